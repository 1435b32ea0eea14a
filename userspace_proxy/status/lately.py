"""Words the clients of the last minute that got no answer, though endpoints answer others.

    12 of 20 connections failed in the last minute: 10.244.0.9:8080 refused connections

Rule 1: a few failures are no news; many are, whatever is so at this moment.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator
from dataclasses import replace

from ..facts import EndpointCounters, LatelyFacts, PortFacts, Streak
from ..facts.last_minute import Lately
from ..model import CauseCode
from ..policy import EndpointVerdict
from ..policy.causes import NO_DATAGRAM, dial_failed, end_code, resets
from ..policy.endpoint_causes import UNANSWERED_S, at_times, no_datagram, sends_nothing
from .failures import PAST_S, Clock
from .units import plural

LEAST = 3
"""Clients: fewer are no news."""
SHARE = 0.05
"""Of all clients: a busy Service always has some that fail."""
SILENT_SHARE = 0.1
"""Of all flows, or connections that clients leave: an answer may take longer, as those of DNS
servers to some names, and clients leave for reasons of their own."""
_Endpoints = Iterable[tuple[EndpointVerdict, EndpointCounters]]


def failed_lately(lately: Lately, endpoints: _Endpoints, clock: Clock) -> LatelyFacts:
    """Return the clients of the last minute, and which endpoint failed and has answered since.

    Args:
        endpoints: Those that may serve.
    """
    if not any(lately[1:]):
        return LatelyFacts()
    most = max(lately[1:])
    is_refused = lately.refused == most
    is_left = not is_refused and lately.left == most
    failures = _dials_before(endpoints) if is_refused else _ends(endpoints, is_left=is_left)
    streak, verdict = max(failures, key=lambda one: one[0].last_at, default=(None, None))
    if streak is None or verdict is None or clock.now - streak.last_at >= PAST_S:
        return LatelyFacts(*lately)
    if is_refused:
        failed = dial_failed(verdict.address, streak.number, os.strerror(streak.number))
    else:
        silent = no_datagram if streak.number == NO_DATAGRAM else sends_nothing
        word = silent if end_code(streak.number) is CauseCode.ENDPOINT_SENDS_NOTHING else resets
        failed = word(verdict.address)
    cause = replace(at_times(failed, verdict.host), count=most)
    return LatelyFacts(*lately, replace(cause, last_at=clock.unix(streak.last_at)))


def _dials_before(endpoints: _Endpoints) -> Iterator[tuple[Streak, EndpointVerdict]]:
    """Yield failed dials that a later one has succeeded after, of a client or of this node."""
    for verdict, counters in endpoints:
        if counters.dials.failures and not counters.dials.is_on:
            yield counters.dials, verdict
        if counters.denials.failures:
            yield counters.denials, verdict


def _ends(endpoints: _Endpoints, *, is_left: bool) -> Iterator[tuple[Streak, EndpointVerdict]]:
    """Yield connections (flows) without a byte that clients have left, or all others.

    The last one is included, though the endpoint may have answered none since.
    """
    for verdict, counters in endpoints:
        if counters.ends.failures and is_left == (counters.ends.number == errno.ETIMEDOUT):
            yield counters.ends, verdict


def many_failed(lately: LatelyFacts, protocol: str) -> str:
    """Return how many clients failed, and why; empty if they are few."""
    # A connection that has ended may have begun more than a minute ago.
    noun, total = "connection", max(lately.connections, lately.unanswered) + lately.refused
    failed = lately.failed
    if protocol == "UDP":
        # A flow has its endpoint before that shows whether it answers.
        noun, total = "flow", max(lately.connections, lately.refused)
        failed = lately.refused
    if failed < max(LEAST, SHARE * total):
        return ""
    return f"{failed:,} of {plural(total, noun)} failed in the last minute{_why(lately)}"


def many_unanswered(port: PortFacts, in_a_row: int = 0) -> str:
    """Return how many clients got no byte in time, where others did; empty if they are few.

    Args:
        in_a_row: Those that its failing endpoints haven't answered since the last answer. If these
            are all, it doesn't answer now.
    """
    lately = port.lately
    is_udp = port.protocol == "UDP"
    silent = lately.unanswered if is_udp else lately.left
    if port.is_without_answer or silent <= in_a_row:
        return ""
    total = max(lately.connections, silent)
    if silent < max(LEAST, SILENT_SHARE * total):
        return ""
    what = f"within {UNANSWERED_S} s" if is_udp else "before they left"
    whose = plural(total, "flow" if is_udp else "client")
    return f"{silent:,} of {whose} got no answer {what} in the last minute{_why(lately)}"


def _why(lately: LatelyFacts) -> str:
    return f": {lately.cause}" if lately.cause is not None else ""
