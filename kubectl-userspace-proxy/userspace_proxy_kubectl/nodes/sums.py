"""Figures of several nodes, summed; what a node can't have counted is left out.

Rule 1: an agent's figures are believed within what a counter can have, so that a wrong one costs
its own row only.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, TypeVar

from userspace_proxy.facts import EndpointFacts, PortFacts, TotalsFacts

# No counter has more, and as many nodes' sums can be written.
_MOST = 2**53
_N = TypeVar("_N", int, float)


class Sums(NamedTuple):
    """Figures of one or more nodes."""

    active: int = 0
    """Open connections, or live flows."""
    connections: int = 0
    """Since the starts of the agents; so are the others."""
    failed: int = 0
    """Clients that got no answer; of endpoints also dials."""
    refused: int = 0
    saved: int = 0
    received_bytes: int = 0
    """From clients."""
    sent_bytes: int = 0
    """To clients."""
    waiting: int = 0
    """Clients that wait for an endpoint now."""
    kernel_connections: int = 0
    """That the kernel led straight to endpoints, as far as they are counted."""


NOTHING = Sums()


def added(parts: Iterable[Sums]) -> Sums:
    """Return the sums of some sums."""
    columns = zip(*parts, strict=True)
    return Sums(*map(sum, columns))


def of_port(port: PortFacts | TotalsFacts) -> Sums:
    """Return the figures of a Service port on one node, or of all of them."""
    return _believed(
        port.active,
        port.connections,
        port.failed,
        port.refused,
        port.saved,
        port.received_bytes,
        port.sent_bytes,
        port.waits.waiting,
        port.kernel_connections or 0,
    )


def of_endpoint(endpoint: EndpointFacts) -> Sums:
    """Return the figures of an endpoint on one node."""
    return _believed(
        endpoint.active,
        endpoint.connections,
        endpoint.failed,
        0,
        0,
        endpoint.received_bytes,
        endpoint.sent_bytes,
        0,
        0,
    )


def since(now: Sums, before: Sums) -> Sums:
    """Return what was counted in between; nothing of what fell, as after a restart."""
    return Sums(*(max(0, new - old) for new, old in zip(now, before, strict=True)))


def bounded(number: _N) -> _N:
    """Return a number that every function of ``facts.units`` can write: one of 400 digits can't."""
    return min(max(number, -_MOST), _MOST)


def _believed(*counts: int) -> Sums:
    if min(counts) < 0 or max(counts) > _MOST:
        counts = tuple(count if 0 <= count <= _MOST else 0 for count in counts)
    return Sums(*counts)
