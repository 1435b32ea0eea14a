"""The desired state of the node as one immutable value."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from ..cluster import PersistentMap
from ..model import (
    Balance,
    Frontend,
    IPFamily,
    Protocol,
    ServiceKey,
    ServicePortName,
    SocketAddress,
)
from ..policy import EndpointVerdict, Scope


class Side(enum.StrEnum):
    """Which frontends of a Service port share a proxy port, because one policy is theirs."""

    ALL = ""
    """All of them; or, where others have a policy of their own, the cluster IPs."""
    EXTERNAL = "external"
    """Node ports, load-balancer IPs and external IPs."""
    LOAD_BALANCER = "load balancer"
    """Load-balancer IPs that have source ranges."""


class PortKey(NamedTuple):
    """One IP family and side of one Service port: what has a proxy port and a balancer."""

    name: ServicePortName
    family: IPFamily
    side: Side = Side.ALL

    def __str__(self) -> str:
        words = [str(self.family)] if self.family is IPFamily.IPV6 else []
        words += [self.side] if self.side else []
        return f"{self.name} ({', '.join(words)})" if words else str(self.name)


@dataclass(frozen=True, slots=True)
class PortPlan:
    """What one family and side of one Service port is to do."""

    key: PortKey
    protocol: Protocol
    frontends: tuple[Frontend, ...]
    """What clients dial, sorted; only those that no other Service holds."""
    endpoints: tuple[EndpointVerdict, ...]
    """Every endpoint with its verdict, by address."""
    usable: tuple[SocketAddress, ...]
    """The endpoints that may serve, in the order of their turns; empty: refuse, or drop."""
    reason: str
    """Why clients are refused or dropped; empty when an endpoint is usable."""
    affinity_timeout_s: int | None = None
    notes: tuple[str, ...] = ()
    """What this Service port asks for and doesn't get, one sentence each."""
    outside: tuple[SocketAddress, ...] | None = None
    """What clients that aren't ``inside`` may use; None: what all may."""
    inside: tuple[str, ...] = ()
    """Networks of the cluster's own clients; empty where ``outside`` is None."""
    admits: tuple[str, ...] | None = None
    """Networks whose packets come in; others' are dropped. None: everybody's; empty: nobody's."""
    balance: Balance = Balance.ROUND_ROBIN
    keeps_clients: bool = True
    """Endpoints may see their clients' own addresses."""
    scope: Scope = Scope.CLUSTER
    """Whose endpoints its clients may be sent to: it made ``usable`` and ``outside``."""

    @property
    def is_refusing(self) -> bool:
        """Whether clients are refused at once, because no node has a usable endpoint."""
        return not self.usable and self.admits != ()

    @property
    def is_dropping(self) -> bool:
        """Whether some clients are dropped, because only other nodes have endpoints for them."""
        return bool(self.reason) and not self.is_refusing


@dataclass(frozen=True, slots=True)
class IgnoredService:
    """A Service, or one port of it, that gets no listener."""

    service: ServiceKey
    port: str
    """The port's name or number; empty when the whole Service is ignored."""
    reason: str
    is_conflict: bool = False
    """It should be served, and another Service has its address: somebody must decide."""


@dataclass(frozen=True, slots=True)
class HealthCheck:
    """The health check node port of one Service."""

    service: ServiceKey
    port: int
    local_endpoints: int
    """Ready endpoints on this node."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The wanted state of the node; equal snapshots give equal plans."""

    ports: Mapping[PortKey, PortPlan]
    """Sorted by key."""
    ignored: tuple[IgnoredService, ...] = ()
    """Sorted by Service and port."""
    health_checks: Mapping[ServiceKey, HealthCheck] = field(default_factory=dict)
    revision: int = field(default=0, compare=False)
    """The snapshot's."""

    @staticmethod
    def empty() -> Plan:
        """Return the plan of a node without Services."""
        return Plan(PersistentMap())
