"""Why a test can't pass or says nothing, in one sentence each."""

from __future__ import annotations

import re

REASONS = {
    r"\[Provider:GCE\]": "Asks for Google's DNS servers, which no machine has but theirs.",
}
"""By an expression that a test's name contains; of all proxies, ours and kube-proxy."""


def reason_for(name: str) -> str | None:
    """Return the sentence for a test that didn't pass, if there is one."""
    return next((why for what, why in REASONS.items() if re.search(what, name)), None)
