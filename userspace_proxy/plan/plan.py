"""The wanted state of the node as one immutable value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from ..model import Frontend, IPFamily, Protocol, ServiceKey, ServicePortName, SocketAddress
from ..policy import EndpointVerdict


class PortKey(NamedTuple):
    """One IP family of one Service port: what has a proxy port and a balancer."""

    name: ServicePortName
    family: IPFamily

    def __str__(self) -> str:
        return str(self.name) if self.family is IPFamily.IPV4 else f"{self.name} ({self.family})"


@dataclass(frozen=True, slots=True)
class PortPlan:
    """What one family of one Service port is to do."""

    key: PortKey
    protocol: Protocol
    frontends: tuple[Frontend, ...]
    """What clients dial, sorted; only those that no other Service holds."""
    endpoints: tuple[EndpointVerdict, ...]
    """Every endpoint with its verdict, by address."""
    usable: tuple[SocketAddress, ...]
    """The endpoints that may serve, in the order of their turns; empty: refuse."""
    reason: str
    """Why clients are refused; empty when an endpoint is usable."""
    affinity_timeout_s: int | None = None
    notes: tuple[str, ...] = ()
    """What this Service port asks for and doesn't get, one sentence each."""


@dataclass(frozen=True, slots=True)
class Ignored:
    """A Service, or one port of it, that gets no listener."""

    service: ServiceKey
    port: str
    """The port's name or number; empty when the whole Service is ignored."""
    reason: str
    is_conflict: bool = False
    """It should be served, and another Service has its address: somebody must decide."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The wanted state of the node; equal snapshots give equal plans."""

    ports: Mapping[PortKey, PortPlan]
    """Sorted by key."""
    ignored: tuple[Ignored, ...] = ()
    """Sorted by Service and port."""
    revision: int = field(default=0, compare=False)
    """The snapshot's."""

    @staticmethod
    def empty() -> Plan:
        """Return the plan of a node without Services."""
        return Plan({})
