"""Builds the view of one endpoint from its counters."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from ..dataplane import EndpointCounters
from ..model import Cause, SocketAddress
from ..policy import EndpointVerdict, causes
from ..status.view import EndpointView, Traffic
from .wall_clock import WallClock

# Of connections in a row that an endpoint ends without a byte: a few are no news.
_MANY_ENDS = 3

Faults = Mapping[SocketAddress, Sequence[str]]
"""Faults on purpose in words, by endpoint."""


def view_endpoint(
    verdict: EndpointVerdict,
    counters: EndpointCounters,
    clock: WallClock,
    ejected: Mapping[SocketAddress, float],
    starting: Mapping[SocketAddress, float],
    faults: Faults,
) -> EndpointView:
    """Return the view of an endpoint.

    Args:
        ejected: Seconds until a probe, of the endpoints that are ejected.
        starting: What endpoints that start slowly have of their shares.
    """
    address = verdict.address
    # It must not look like a failure.
    words = faults.get(address)
    on_purpose = causes.fault_on_purpose(address, words) if words else None
    return EndpointView(
        verdict,
        traffic_of(counters),
        ejected.get(address),
        cause=on_purpose or _cause(verdict, counters, clock),
        answered_at=clock.unix(counters.dials.succeeded_at),
        failures_by_cause=counters.failures_by_cause(),
        starting=starting.get(address) if verdict.is_usable else None,
    )


def traffic_of(counters: EndpointCounters) -> Traffic:
    """Return what was counted; a copy, because a page is rendered in a thread."""
    return Traffic(
        active=counters.active,
        connections=counters.connections,
        failures=counters.failures,
        preserved=counters.preserved,
        received_bytes=counters.received_bytes,
        sent_bytes=counters.sent_bytes,
        resets=counters.resets,
        empty=counters.empty,
    )


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
