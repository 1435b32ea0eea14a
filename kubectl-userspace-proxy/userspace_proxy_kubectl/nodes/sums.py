"""Sums up figures of several nodes, which ``decoding`` has bounded; ignores negative figures."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from userspace_proxy.facts import EndpointFacts, PortFacts, TotalsFacts


class Sums(NamedTuple):
    """The figures of one or more nodes, added up."""

    active: int = 0
    """Open connections, or live flows."""
    connections: int = 0
    """Connections since the agents' starts, like the following figures."""
    failed: int = 0
    """Clients without an answer; endpoints also count failed dials."""
    refused: int = 0
    saved: int = 0
    received_bytes: int = 0
    """Bytes from clients."""
    sent_bytes: int = 0
    """Bytes to clients."""
    waiting: int = 0
    """Clients now waiting for an endpoint."""
    kernel_connections: int = 0
    """Connections that the kernel sent straight to endpoints, where it counts them."""

    @property
    def counted(self) -> int:
        """All connections, on both paths."""
        return self.connections + self.kernel_connections


NOTHING = Sums()


def added(parts: Iterable[Sums]) -> Sums:
    """Return the sum of several sums."""
    columns = zip(*parts, strict=True)
    return Sums(*map(sum, columns))


def of_port(port: PortFacts | TotalsFacts) -> Sums:
    """Return the figures of one Service port, or of all Service ports, on one node."""
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
    """Return an endpoint's figures on one node."""
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
    """Return the figures counted in between; 0 for figures that decreased, as after a restart."""
    return Sums(*(max(0, new - old) for new, old in zip(now, before, strict=True)))


def _believed(*counts: int) -> Sums:
    return Sums(*(counts if min(counts) >= 0 else (max(0, count) for count in counts)))
