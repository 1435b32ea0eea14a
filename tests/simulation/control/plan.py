"""What happens in one run: plain values, which ``drawing`` makes from a seed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from userspace_proxy.model import Protocol, SocketAddress
from userspace_proxy.model.serving import Serving

from ..plan import Event
from .machine import Speed

SERVE, REMOVE, RENAME, SWAP, CLIENT, KILL, STOP, CRASH, HAND_OVER, NO_START, BREAK, END = (
    "serve",
    "remove",
    "rename",
    "swap",
    "client",
    "kill",
    "stop",
    "crash",
    "hand over",
    "no start",
    "break",
    "end",
)
SHORT, TAKE, NETWORKS = "short", "take", "networks"
"""What events are."""

LATE_S = 6.0
"""For so long Services change, and workers are killed, while one control process lives."""
WAIT_S = 2.5
"""For a client to be served by a worker that runs, also if it reads its messages late."""
EARLY_S = 0.001
"""So much a timer may be early: uvloop rounds to milliseconds."""
MANY = 100
"""Descriptors: with fewer no worker stands in for another one."""
ENDPOINTS = [SocketAddress(f"10.2.0.{n}", 8080) for n in range(1, 6)]


@dataclass(frozen=True)
class Fate:
    """When a process dies by itself: at that call, or at that message."""

    is_message: bool
    number: int


@dataclass(frozen=True)
class ServicePlan:
    """One Service port: where it can listen, and how it is served at first."""

    protocol: Protocol
    addresses: tuple[SocketAddress, ...]
    serving: Serving
    places: tuple[int, ...]
    """Of its addresses, those at which it listens."""


@dataclass(frozen=True)
class Plan:
    """A whole run."""

    seed: int
    features: frozenset[str]
    workers: tuple[int, ...]
    """How many each control process has, in the order of starts; the last one is for all later."""
    descriptors: int
    drain_s: float
    """For predecessors."""
    speed: Speed
    services: tuple[ServicePlan, ...]
    events: tuple[Event, ...]
    worker_fates: dict[int, Fate] = field(hash=False)
    """By the order in which workers are started."""
    control_fates: dict[int, Fate] = field(hash=False)
    """By the order in which control processes are started."""
    absence_s: float
    """After a control process has died, before calm, until another one starts."""
    limits: Mapping[str, float] = field(hash=False)
    """Other values of the product's constants, by their names."""
    speaks_more: bool
    """Workers send the next control process messages of another version."""
    is_abandoned: bool
    """In the end no control process follows the last one, which dies."""
    calm_at: float
    """From then on nothing fails but workers, and after LATE_S nothing changes."""
