"""Snapshot and node facts in, plan out.

Service ──claims──▶ settlement: who has which frontend ──┐
Service + slices + all frontends ──▶ port plans          ├──▶ Plan
                                                        ─┘
Rule 1: what was made of a Service is kept while its state is the same object and its
endpoints point to none of the frontends that came or went.
Rule 2: what is kept changes what a plan costs, never what is in it.
Rule 3: when the facts change, everything is planned anew.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace

from ..cluster import ServiceState, Snapshot
from ..model import Protocol, ServiceKey, ServiceType, SocketAddress
from ..policy import (
    NodeFacts,
    Scope,
    count_local_ready,
    intersect,
    own_network,
    usable_endpoints,
)
from .claims import PortClaim, ServiceClaims, Settlement, claims_of, settle
from .plan import HealthCheck, Ignored, Plan, PortKey, PortPlan

_Served = Mapping[Protocol, frozenset[SocketAddress]]


class Planner:
    """Makes plans; keeps what it made of each Service while that stays the same.

    Args:
        facts: What the plan must know of this node, until :meth:`plan` is told others.
    """

    def __init__(self, facts: NodeFacts) -> None:
        self.facts = facts
        self._states: Mapping[ServiceKey, ServiceState] = {}
        self._claims: dict[ServiceKey, ServiceClaims] = {}
        self._settlement = Settlement({}, {})
        self._served: _Served = {protocol: frozenset() for protocol in Protocol}
        self._made: dict[ServiceKey, tuple[PortPlan, ...]] = {}
        self._health_checks: dict[ServiceKey, HealthCheck] = {}
        self._last = Plan.empty()
        self.planned_services = 0
        """How many Services were planned anew since the start."""

    def plan(self, snapshot: Snapshot, facts: NodeFacts | None = None) -> Plan:
        """Return the plan for a snapshot; what costs time is what changed since the last.

        Args:
            snapshot: What the source says.
            facts: New ones; None: those of the last time.
        """
        if facts is not None and facts != self.facts:
            self.facts = facts
            self._states = {}
        old, new = self._states, snapshot.services
        changed = {key for key, state in new.items() if old.get(key) is not state}
        gone = self._claims.keys() - new.keys()
        self._states = new
        are_claims_other = self._claim(changed, gone)
        if are_claims_other:
            changed |= self._settle()
        for key in changed:
            claims = self._claims[key].ports
            self._made[key] = tuple(self._plan_port(new[key], claim) for claim in claims)
            self._check_health(key, new[key])
        self.planned_services += len(changed)
        if are_claims_other:
            self._last = Plan(
                self._all_ports(),
                self._all_ignored(),
                dict(sorted(self._health_checks.items())),
                snapshot.revision,
            )
        else:
            ports = {**self._last.ports, **dict(self._held_ports(changed))}
            checks = self._last.health_checks
            if any(checks.get(key) != self._health_checks.get(key) for key in changed):
                checks = dict(sorted(self._health_checks.items()))
            self._last = replace(
                self._last, ports=ports, health_checks=checks, revision=snapshot.revision
            )
        return self._last

    def _claim(self, changed: Iterable[ServiceKey], gone: Collection[ServiceKey]) -> bool:
        """Take in what Services ask for; tell whether that is other than it was."""
        are_other = bool(gone)
        for key in gone:
            del self._claims[key], self._made[key]
            self._health_checks.pop(key, None)
        for key in changed:
            claims = claims_of(self._states[key].service, self.facts)
            if not claims.is_same(self._claims.get(key)):
                self._claims[key] = claims
                are_other = True
        return are_other

    def _settle(self) -> set[ServiceKey]:
        """Settle the claims; return the Services with endpoints among what came or went."""
        self._settlement = settle(self._claims.values())
        before, self._served = self._served, _served(self._settlement)
        moved = {protocol: before[protocol] ^ self._served[protocol] for protocol in Protocol}
        if not any(moved.values()):
            return set()
        return {
            key
            for key, ports in self._made.items()
            for port in ports
            if not moved[port.protocol].isdisjoint([v.address for v in port.endpoints])
        }

    def _plan_port(self, state: ServiceState, claim: PortClaim) -> PortPlan:
        family = claim.key.family
        usable = usable_endpoints(
            state.slices,
            port=claim.port.name,
            protocol=claim.protocol,
            family=family,
            facts=self.facts,
            ours=self._served[claim.protocol],
            scope=claim.scope,
        )
        has_outside = claim.scope is Scope.LOCAL_FROM_OUTSIDE
        inside = self._inside(claim) if has_outside else ()
        return PortPlan(
            key=claim.key,
            protocol=claim.protocol,
            frontends=claim.frontends,
            endpoints=usable.verdicts,
            usable=usable.addresses,
            reason=usable.reason,
            affinity_timeout_s=state.service.affinity_timeout_s,
            notes=claim.notes,
            outside=usable.outside,
            inside=inside,
            admits=_admits(claim.admits, inside, is_dropping=usable.is_dropping),
            balance=state.service.balance,
            scope=claim.scope,
        )

    def _inside(self, claim: PortClaim) -> tuple[str, ...]:
        """Return the networks of the cluster's own clients.

        The frontends are among them: where they are routed to this node, whoever dials one on
        the node itself has that address as its own.
        """
        own = [own_network(frontend.ip) for frontend in claim.frontends]
        return tuple(dict.fromkeys((*self.facts.inside(claim.key.family), *own)))

    def _check_health(self, key: ServiceKey, state: ServiceState) -> None:
        """Note the health check node port of a Service that has one.

        Source: Kubernetes' NeedsHealthCheck: only of type LoadBalancer, and only with
        ``externalTrafficPolicy: Local``.
        """
        service = state.service
        port = service.health_check_node_port
        is_asked = service.is_external_local and service.type is ServiceType.LOAD_BALANCER
        self._health_checks.pop(key, None)
        if port and is_asked and self._made[key]:
            count = count_local_ready(state.slices, self.facts)
            self._health_checks[key] = HealthCheck(key, port, count)

    def _held_ports(self, keys: Iterable[ServiceKey]) -> Iterable[tuple[PortKey, PortPlan]]:
        """Yield the ports of some Services that hold a frontend, without what they lost."""
        for key in keys:
            for port in self._made[key]:
                if port.key not in self._settlement.lost:
                    yield port.key, port
                    continue
                lost = self._settlement.lost_by(port.key)
                if held := tuple(f for f in port.frontends if f not in lost):
                    yield port.key, replace(port, frontends=held)

    def _all_ports(self) -> dict[PortKey, PortPlan]:
        return dict(self._held_ports(sorted(self._made)))

    def _all_ignored(self) -> tuple[Ignored, ...]:
        ignored = [item for claims in self._claims.values() for item in claims.ignored]
        for key, items in self._settlement.lost.items():
            for lost in items:
                port = key.name.port or str(lost.frontend.port)
                ignored.append(Ignored(key.name.service, port, lost.why, is_conflict=True))
        return tuple(sorted(ignored, key=lambda i: (i.service, i.port, i.reason)))


def _served(settlement: Settlement) -> _Served:
    """Return every frontend's address, by protocol."""
    return {
        protocol: frozenset(f.address for f in settlement.holders if f.protocol is protocol)
        for protocol in Protocol
    }


def _admits(
    ranges: tuple[str, ...] | None, inside: tuple[str, ...], *, is_dropping: bool
) -> tuple[str, ...] | None:
    """Return whose packets come in: who is in the ranges, and has an endpoint to be sent to."""
    if not is_dropping:
        return ranges
    return inside if ranges is None else intersect(ranges, inside)
