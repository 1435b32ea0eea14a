"""Why a test can't pass or says nothing, in one sentence each."""

from __future__ import annotations

import re
from collections.abc import Mapping

REASONS = {
    r"\[Provider:GCE\]": "Asks for Google's DNS servers, which no machine has but theirs.",
}
"""By an expression that a test's name contains; of all proxies, ours and kube-proxy."""

REASONS_OF: Mapping[str, Mapping[str, str]] = {
    "nftables-auto": {
        "not be vulnerable to the invalid conntrack state bug": "The test fails if its server gets "
        "any RST, and probes of path auto end with one.",
    }
}
"""Likewise, of one proxy: a key of `PROXIES`."""


def reason_for(name: str, proxy: str) -> str | None:
    """Return the sentence for a test that didn't pass, if there is one."""
    table = {**REASONS, **REASONS_OF.get(proxy, {})}
    return next((why for what, why in table.items() if re.search(what, name)), None)
