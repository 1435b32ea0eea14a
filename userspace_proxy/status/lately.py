"""Words the clients of the last minute that got no answer, though endpoints answer others.

    12 of 20 connections failed in the last minute: 10.244.0.9:8080 refused connections

Rule 1: a few failures are no news; many are, whatever is so at this moment.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import replace

from ..facts import EndpointCounters, LatelyFacts, Streak
from ..facts.last_minute import Lately
from ..model import CauseCode
from ..policy import EndpointVerdict
from ..policy.causes import dial_failed, end_code, resets
from ..policy.endpoint_causes import at_times
from .failures import PAST_S, Clock
from .units import plural

LEAST = 3
"""Clients: fewer are no news."""
SHARE = 0.05
"""Of all clients: a busy Service always has some that fail."""
_Endpoints = Iterable[tuple[EndpointVerdict, EndpointCounters]]


def failed_lately(lately: Lately, endpoints: _Endpoints, clock: Clock) -> LatelyFacts:
    """Return the clients of the last minute, and which endpoint failed and has answered since.

    Args:
        endpoints: Those that may serve.
    """
    if not lately.failed:
        return LatelyFacts()
    is_refused = lately.refused >= lately.unanswered
    failures = _dials_before(endpoints) if is_refused else _ends(endpoints)
    streak, verdict = max(failures, key=lambda one: one[0].last_at, default=(None, None))
    if streak is None or verdict is None or clock.now - streak.last_at >= PAST_S:
        return LatelyFacts(*lately)
    if is_refused:
        failed = dial_failed(verdict.address, streak.number, os.strerror(streak.number))
    else:
        failed = resets(verdict.address)
    cause = replace(at_times(failed, verdict.host), count=max(lately.refused, lately.unanswered))
    return LatelyFacts(*lately, replace(cause, last_at=clock.unix(streak.last_at)))


def _dials_before(endpoints: _Endpoints) -> Iterator[tuple[Streak, EndpointVerdict]]:
    """Yield failed dials that a later one has succeeded after."""
    for verdict, counters in endpoints:
        if counters.dials.failures and not counters.dials.is_on:
            yield counters.dials, verdict


def _ends(endpoints: _Endpoints) -> Iterator[tuple[Streak, EndpointVerdict]]:
    """Yield connections that endpoints have ended without a byte, the last one included."""
    for verdict, counters in endpoints:
        if counters.ends.failures and end_code(counters.ends.number) is CauseCode.ENDPOINT_RESETS:
            yield counters.ends, verdict


def many_failed(lately: LatelyFacts, protocol: str) -> str:
    """Return how many clients failed, and why; empty if they are few."""
    # A connection that has ended may have begun more than a minute ago.
    noun, total = "connection", max(lately.connections, lately.unanswered) + lately.refused
    if protocol == "UDP":
        # A flow has its endpoint before that shows whether it answers.
        noun, total = "flow", max(lately.connections, lately.refused)
    if lately.failed < max(LEAST, SHARE * total):
        return ""
    why = f": {lately.cause}" if lately.cause is not None else ""
    return f"{lately.failed:,} of {plural(total, noun)} failed in the last minute{why}"
