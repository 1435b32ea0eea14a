"""Builds the facts of one endpoint from its counters."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from ..facts import (
    EndpointCounters,
    EndpointFacts,
    Traffic,
    TrafficByCause,
    counted_names,
    facts_of_verdict,
)
from ..model import Cause, SocketAddress
from ..policy import EndpointVerdict, causes
from .rounds.wall_clock import WallClock

# Of connections in a row that an endpoint ends without a byte: a few are no news.
_MANY_ENDS = 3
_NAMES = counted_names(Traffic)

Faults = Mapping[SocketAddress, Sequence[str]]
"""Faults on purpose in words, by endpoint."""


def view_endpoint(
    verdict: EndpointVerdict,
    counters: EndpointCounters,
    clock: WallClock,
    ejected: Mapping[SocketAddress, float],
    starting: Mapping[SocketAddress, float],
    faults: Faults,
) -> EndpointFacts:
    """Return the facts about an endpoint; figures are copies, as pages are rendered in a thread.

    Args:
        ejected: Seconds until a probe, of the endpoints that are ejected.
        starting: What endpoints that start slowly have of their shares.
    """
    address = verdict.address
    facts = facts_of_verdict(verdict, starting.get(address) if verdict.is_usable else None)
    facts.ejected_for_s = ejected.get(address)
    # It must not look like a failure.
    words = faults.get(address)
    on_purpose = causes.fault_on_purpose(address, words) if words else None
    facts.cause = on_purpose or _cause(verdict, counters, clock)
    facts.answered_at = clock.unix(counters.dials.succeeded_at)
    show_traffic(facts, counters)
    return facts


def show_traffic(facts: TrafficByCause, counters: EndpointCounters) -> None:
    """Copy what was counted for an endpoint, or the sum over some."""
    for name in _NAMES:
        setattr(facts, name, getattr(counters, name))
    if counters.failures:
        facts.failures_by_cause = counters.failures_by_cause()


def _cause(verdict: EndpointVerdict, counters: EndpointCounters, clock: WallClock) -> Cause | None:
    dials, ends, address = counters.dials, counters.ends, verdict.address
    failing = dials if dials.is_on else ends
    when = {"first_at": clock.unix(failing.first_at), "last_at": clock.unix(failing.last_at)}
    if dials.is_on:
        error = os.strerror(dials.number)
        return causes.dial_failed(address, dials.number, error, count=dials.failures, **when)
    if ends.is_on and ends.failures >= _MANY_ENDS:
        return causes.resets(address, count=ends.failures, **when)
    return None
