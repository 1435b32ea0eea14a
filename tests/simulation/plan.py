"""What a seed decides before anything happens: the node, Services, and events in their order.

A plan is a value: ``drawing`` makes it from a seed, the shrinker removes parts of it.
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
    """The side that ends connections in the end: ``client``, ``endpoint`` or ``both``."""
    resets_every: int
    """The share of parties that end by a RST in the end; 0: none."""
    ends: str
    """How the data plane ends: ``calm``, when all has ended; ``drain`` or ``abrupt``."""
    processes: int = 1
    """How many workers share limits."""
    index: int = 0
    """Which of them this one is."""

    def share_of(self, limit: int | None) -> int | None:
        """Return how many connections an endpoint may have in this worker: 1 at least."""
        if limit is None:
            return None
        return max(1, len(range(self.index, limit, self.processes)))

    def places_of(self, hold: Hold | None) -> int:
        """Return how many clients may wait in this worker: a part of a place is a place."""
        return 0 if hold is None else math.ceil(hold.connections / self.processes)


@dataclass(frozen=True)
class ServicePlan:
    """One Service port: its address, and how it is served first."""

    protocol: Protocol
    address: Address
    pool: tuple[SocketAddress, ...]
    """All endpoints that it ever has."""
    serving: Serving


@dataclass(frozen=True)
class Event:
    """Something that happens."""

    at: float
    what: str
    args: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Plan:
    """A whole run."""

    seed: int
    features: frozenset[str]
    node: Node
    services: tuple[ServicePlan, ...]
    events: tuple[Event, ...]
    scripts: dict[SocketAddress, tuple[tuple[Step, ...], ...]] = field(hash=False)
    """What the parties of each endpoint do, one after another."""
    streams: dict[SocketAddress, tuple[float, int]] = field(hash=False)
    """Of endpoints of UDP: after how many seconds they send again, and how often."""
    calm_at: float
    """From then on nothing fails, and all parties read."""

    @property
    def calm_s(self) -> float:
        """How long it takes until all that was sent has been read; then all parties end."""
        node = self.node
        most = 2 * (node.inbox_bytes + node.outbox_bytes) + node.buffer_bytes
        return 3.0 + 2 * node.delay_s * most / min(node.segment_bytes, node.inbox_bytes)
