"""A plan of a run, decided by a seed: the node, its Services, and the events in their order.

A plan is a value: ``drawing`` draws it from a seed, and ``shrinking`` removes parts of it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from userspace_proxy.model import Protocol, SocketAddress
from userspace_proxy.model.handling import Hold
from userspace_proxy.model.serving import Serving

from .actors import Step
from .network import Address

CLIENT, ASK, DENY = "client", "ask", "deny"
UPDATE, BEHAVE, LACK, STOP, SKIP, CLOSE_LISTENER, OPEN_LISTENER, ELSEWHERE, MEMORY, REPORT = (
    "update",
    "behave",
    "lack",
    "stop",
    "skip",
    "close listener",
    "open listener",
    "elsewhere",
    "memory",
    "report",
)
MOVE_LISTENER = "move listener"


@dataclass(frozen=True)
class Node:
    """The node: its kernel, its network, and the data plane's settings."""

    buffer_bytes: int
    bulk_bytes: int
    pipe_bytes: int
    max_pipes: int
    descriptor_limit: int
    inbox_bytes: int
    outbox_bytes: int
    segment_bytes: int
    delay_s: float
    loss: float
    preemption: float
    spurious: float
    timers_first: bool
    tcp_idle_s: float
    half_closed_s: float
    udp_idle_s: float | None
    max_flows: int
    is_preserving: bool
    reads_headers: bool
    rounds: int
    finishes_first: str
    """The side that sends FIN first at the end: ``client``, ``endpoint`` or ``both``."""
    resets_every: int
    """At the end, one of this many parties sends RST; 0 if none does."""
    ends: str
    """How the data plane is closed: ``calm``, after all connections; ``drain`` or ``abrupt``."""
    processes: int = 1
    """The number of workers that share limits."""
    index: int = 0
    """The number of this worker."""

    def share_of(self, limit: int | None) -> int | None:
        """Return this worker's part of a connection limit, at least 1; None without a limit."""
        if limit is None:
            return None
        return max(1, len(range(self.index, limit, self.processes)))

    def places_of(self, hold: Hold | None) -> int:
        """Return the number of clients that may wait in this worker, rounded up."""
        return 0 if hold is None else math.ceil(hold.connections / self.processes)


@dataclass(frozen=True)
class ServicePlan:
    """One Service port: its address, and its first endpoints and policy."""

    protocol: Protocol
    address: Address
    pool: tuple[SocketAddress, ...]
    """All endpoints that the Service port ever has."""
    serving: Serving


@dataclass(frozen=True)
class Event:
    """An event of a run."""

    at: float
    what: str
    args: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Plan:
    """The plan of a whole run."""

    seed: int
    features: frozenset[str]
    node: Node
    services: tuple[ServicePlan, ...]
    events: tuple[Event, ...]
    scripts: dict[SocketAddress, tuple[tuple[Step, ...], ...]] = field(hash=False)
    """The scripts of each endpoint's connections, in turn."""
    streams: dict[SocketAddress, tuple[float, int]] = field(hash=False)
    """For UDP endpoints: the delay in seconds after which they send again, and the repetitions."""
    calm_at: float
    """The time from which nothing fails and all parties read."""

    @property
    def calm_s(self) -> float:
        """The time until all sent bytes have been read, after which all parties close."""
        node = self.node
        most = 2 * (node.inbox_bytes + node.outbox_bytes) + node.buffer_bytes
        return 3.0 + 2 * node.delay_s * most / min(node.segment_bytes, node.inbox_bytes)
