"""Defines the desired state of the node as one immutable value, and compares two states.

open     listeners of new Service ports, before any rule points to them
update   endpoints, affinity, frontends; then all frontends are steered in one transaction
close    listeners of removed Service ports, after no rule points to them
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from ..causes.cause import Cause
from ..cluster import PersistentMap, differing_keys
from ..model import Frontend, FrontendKind, PortKey, Protocol, ServiceKey
from ..model.serving import Serving
from ..policy import DEFAULT_PATH, EndpointVerdict, PathDecision, Scope


@dataclass(frozen=True, slots=True)
class PortPlan:
    """The desired state of one family and side of one Service port."""

    key: PortKey
    protocol: Protocol
    frontends: tuple[Frontend, ...]
    """The addresses that clients dial, sorted; without frontends that another Service owns."""
    verdicts: tuple[EndpointVerdict, ...]
    """The verdicts on all endpoints, sorted by address and port."""
    serving: Serving
    """The usable endpoints, and how workers handle clients."""
    cause: Cause | None = None
    """Why clients are refused, wait or are dropped; None if an endpoint is usable."""
    notes: tuple[Cause, ...] = ()
    """Requests of this Service port that have no effect; the first port also has the notes of the
    Service and its slices."""
    scope: Scope = Scope.CLUSTER
    """The traffic policy that decided which endpoints are usable."""
    path: PathDecision = DEFAULT_PATH
    """The path that the bytes of connections take."""
    has_coarse_weights: bool = False
    """Whether the kernel path approximates the weights with few slots."""
    shared_number: int = 0
    """The port's number if the Service also uses it for another protocol; otherwise 0."""

    @property
    def is_dropping(self) -> bool:
        """Whether some clients are dropped, because only other nodes have endpoints for them."""
        return self.serving.is_dropping


@dataclass(frozen=True, slots=True)
class IgnoredService:
    """A Service, or one of its ports, without a listener on some or all of its addresses."""

    service: ServiceKey
    port: str
    """The port's name or number; empty if the whole Service is ignored."""
    cause: Cause
    is_conflict: bool = False
    """Whether the Service or port should be served but can't be, for example because another
    Service owns its address."""
    is_part: bool = False
    """Whether the port is served on another address, and has a note about this address."""


@dataclass(frozen=True, slots=True)
class HealthCheck:
    """The health check node port of one Service."""

    service: ServiceKey
    port: int
    local_endpoints: int
    """The number of ready endpoints on this node."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The desired state of the node; equal snapshots and node facts give equal plans."""

    ports: Mapping[PortKey, PortPlan]
    """The plans of Service ports, sorted by key."""
    ignored: tuple[IgnoredService, ...] = ()
    """Services and ports that aren't served, or only partly, sorted by Service and port."""
    health_checks: Mapping[ServiceKey, HealthCheck] = field(default_factory=dict)
    revision: int = field(default=0, compare=False)
    """The revision of the snapshot."""

    @staticmethod
    def empty() -> Plan:
        return Plan(PersistentMap())


@dataclass(frozen=True, slots=True)
class PlanChanges:
    """The changes from one plan to another; each tuple is sorted by key."""

    open: tuple[PortPlan, ...]
    update: tuple[PortPlan, ...]
    """Ports with the same key and protocol whose plans differ in anything else."""
    close: tuple[PortKey, ...]

    def __bool__(self) -> bool:
        return bool(self.open or self.update or self.close)


def diff_plans(have: Plan, want: Plan) -> PlanChanges:
    """Return the changes from the applied plan to the desired plan.

    A Service that is recreated between two plans keeps its proxy port and connections, because its
    key is the same. A port whose protocol changes is in both ``close`` and ``open``, because it
    needs another socket.
    """
    opened: list[PortPlan] = []
    updated: list[PortPlan] = []
    closed: list[PortKey] = []
    for key in sorted(differing_keys(have.ports, want.ports)):
        old, new = have.ports.get(key), want.ports.get(key)
        if old is not None and new is not None and old.protocol is new.protocol:
            if old != new or _kinds(old) != _kinds(new):
                updated.append(new)
            continue
        if old is not None:
            closed.append(key)
        if new is not None:
            opened.append(new)
    return PlanChanges(open=tuple(opened), update=tuple(updated), close=tuple(closed))


def new_conflicts(have: Plan, want: Plan) -> Collection[IgnoredService]:
    """Return new conflicts, at most one for each Service, which may have many."""
    first: dict[ServiceKey, IgnoredService] = {}
    if have.ignored is not want.ignored:
        before = {item for item in have.ignored if item.is_conflict}
        for item in want.ignored:
            if item.is_conflict and item not in before:
                first.setdefault(item.service, item)
    return first.values()


def _kinds(port: PortPlan) -> list[FrontendKind]:
    """Return the frontends' kinds, which their comparison ignores but the status page shows."""
    return [frontend.kind for frontend in port.frontends]
