"""Why a test can't pass or says nothing, in one sentence each."""

from __future__ import annotations

import re

REASONS = {
    r"\[Provider:GCE\]": "Asks for Google's DNS servers, which no machine has but theirs.",
}
"""By an expression that a test's name contains; of all proxies, ours and kube-proxy."""

OURS = {
    "not be vulnerable to the invalid conntrack state bug": "The test fails if its server gets any "
    "RST, and probes of path auto end with one.",
}
"""Likewise, of ours only."""


def reason_for(name: str, *, is_ours: bool) -> str | None:
    """Return the sentence for a test that didn't pass, if there is one."""
    table = REASONS | (OURS if is_ours else {})
    return next((why for what, why in table.items() if re.search(what, name)), None)
