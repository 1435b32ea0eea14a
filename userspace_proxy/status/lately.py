"""Words the clients of the last minute that no endpoint answered, though endpoints answer now.

    12 of 20 connections failed in the last minute: 10.244.0.9:8080 refused connections

Rule 1: a few failures are no news; many are, whatever is so at this moment.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace

from ..facts import EndpointCounters, LatelyFacts
from ..facts.last_minute import Lately
from ..policy import EndpointVerdict
from ..policy.causes import dial_failed
from ..policy.endpoint_causes import at_times
from .failures import PAST_S, Clock
from .units import plural

LEAST = 3
"""Clients: fewer are no news."""
SHARE = 0.05
"""Of all clients: a busy Service always has some that fail."""


def failed_lately(
    lately: Lately, endpoints: Iterable[tuple[EndpointVerdict, EndpointCounters]], clock: Clock
) -> LatelyFacts:
    """Return the clients of the last minute, and which endpoint failed and has answered since.

    Args:
        endpoints: Those that may serve.
    """
    if not lately.refused:
        return LatelyFacts()
    returned = [
        (counters.dials, verdict)
        for verdict, counters in endpoints
        if counters.dials.failures and not counters.dials.is_on
    ]
    dials, verdict = max(returned, key=lambda one: one[0].last_at, default=(None, None))
    if dials is None or verdict is None or clock.now - dials.last_at >= PAST_S:
        return LatelyFacts(*lately)
    failed = dial_failed(verdict.address, dials.number, os.strerror(dials.number))
    cause = replace(at_times(failed, verdict.host), count=lately.refused)
    return LatelyFacts(*lately, replace(cause, last_at=clock.unix(dials.last_at)))


def many_failed(lately: LatelyFacts, protocol: str) -> str:
    """Return how many clients failed, and why; empty if they are few."""
    noun, total = "connection", lately.connections + lately.refused
    if protocol == "UDP":
        # A flow has its endpoint before that shows whether it answers.
        noun, total = "flow", max(lately.connections, lately.refused)
    if lately.refused < max(LEAST, SHARE * total):
        return ""
    why = f": {lately.cause}" if lately.cause is not None else ""
    return f"{lately.refused:,} of {plural(total, noun)} failed in the last minute{why}"
