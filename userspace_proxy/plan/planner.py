"""Computes the plan from a snapshot and node facts.

Service ──claims──▶ settlement: who has which frontend ──┐
Service + slices + all frontends ──▶ port plans          ├──▶ Plan
                                                        ─┘
Rule 1: what was made of a Service is kept while its state is the same object and its
endpoints point to none of the frontends that came or went.
Rule 2: what is kept changes what a plan costs, never what is in it; and a plan costs what has
changed, never what there is.
Rule 3: when the facts change, everything is planned anew.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace

from ..cluster import PersistentMap, ServiceState, Snapshot, differing_keys
from ..model import ServiceKey, ServiceType, SocketAddress, intersect, own_network
from ..policy import (
    NodeFacts,
    Scope,
    count_local_ready,
    usable_endpoints,
)
from .claims import PortClaim, claims_of
from .index import ServiceIndex
from .ownership import FrontendOwners, Moved
from .plan import HealthCheck, IgnoredService, Plan, PortKey, PortPlan


class Planner:
    """Makes plans; keeps what it made of each Service while that stays the same.

    Args:
        facts: What the plan must know of this node, until :meth:`plan` is told others.
    """

    def __init__(self, facts: NodeFacts) -> None:
        self.facts = facts
        self.planned_services = 0
        """How many Services were planned anew since the start."""
        self._forget()

    def _forget(self) -> None:
        self._states: Mapping[ServiceKey, ServiceState] = PersistentMap()
        self._owners = FrontendOwners()
        self._made: dict[ServiceKey, tuple[PortPlan, ...]] = {}
        """As if each had what it asks for."""
        self._pointing: ServiceIndex[SocketAddress] = ServiceIndex()
        """Which Services have an endpoint there."""
        self._dialling: ServiceIndex[int] = ServiceIndex()
        """Which Services have an endpoint at a port of that number."""
        self._suspects: set[ServiceKey] = set()
        self._ports: PersistentMap[PortKey, PortPlan] = PersistentMap()
        self._ignored: dict[ServiceKey, tuple[IgnoredService, ...]] = {}
        self._health_checks: dict[ServiceKey, HealthCheck] = {}
        self._last = Plan.empty()

    def plan(self, snapshot: Snapshot, facts: NodeFacts | None = None) -> Plan:
        """Return the plan for a snapshot; what costs time is what changed since the last.

        Args:
            snapshot: What the source says.
            facts: New ones; None: those of the last time.
        """
        if facts is not None and facts != self.facts:
            self.facts = facts
            self._forget()
        new = snapshot.services
        differing = differing_keys(self._states, new)
        changed = {key for key in differing if key in new}
        gone = differing - changed
        self._states = new
        moved = self._settle(changed, gone)
        pointing = {key for at in moved.addresses for key in self._pointing[at]}
        pointing.update(key for number in moved.node_ports for key in self._dialling[number])
        anew = changed | (pointing - gone)
        before = {key: self._made.pop(key, ()) for key in anew | gone}
        for key in anew:
            claims = self._owners.claims[key].ports
            self._made[key] = tuple([self._plan_port(new[key], claim) for claim in claims])
        self.planned_services += len(anew)
        for key, ports in before.items():
            self._point(key, ports, self._made.get(key, ()))
        self._hold(anew.union(gone, moved.services), before)
        ignored = self._all_ignored(differing.union(moved.services))
        checks = self._all_health_checks(anew | gone)
        self._last = Plan(self._ports, ignored, checks, snapshot.revision)
        return self._last

    @property
    def needs_node_addresses(self) -> bool:
        """Whether some endpoint is a node port, if its address is a node's."""
        return bool(self._suspects)

    def _settle(self, changed: Iterable[ServiceKey], gone: Collection[ServiceKey]) -> Moved:
        """Take in what Services ask for; nearly always that is what it was."""
        have = self._owners.claims
        claims = [claims_of(self._states[key].service, self.facts) for key in changed]
        come = [one for one in claims if not one.is_same(have.get(one.service))]
        return self._owners.change(gone, come)

    def _point(self, key: ServiceKey, before: Iterable[PortPlan], now: Iterable[PortPlan]) -> None:
        """Note where the endpoints of a Service are."""
        old = {verdict.address for port in before for verdict in port.endpoints}
        new = {verdict.address for port in now for verdict in port.endpoints}
        self._pointing.add(new - old, key)
        self._pointing.discard(old - new, key)
        old_numbers, numbers = {at.port for at in old}, {at.port for at in new}
        self._dialling.add(numbers - old_numbers, key)
        self._dialling.discard(old_numbers - numbers, key)
        if any(
            at.port in self._owners.node_ports[port.protocol]
            for port in now
            for at in [verdict.address for verdict in port.endpoints]
        ):
            self._suspects.add(key)
        else:
            self._suspects.discard(key)

    def _hold(
        self, keys: Iterable[ServiceKey], before: Mapping[ServiceKey, tuple[PortPlan, ...]]
    ) -> None:
        """Bring the ports of some Services up to date that hold a frontend."""
        put: dict[PortKey, PortPlan] = {}
        drop: set[PortKey] = set()
        for key in keys:
            made = self._made.get(key, ())
            drop.update(port.key for port in (*before.get(key, ()), *made))
            put.update(self._held_ports(made))
        if put or drop:
            self._ports = self._ports.changed(put, drop)

    def _plan_port(self, state: ServiceState, claim: PortClaim) -> PortPlan:
        family = claim.key.family
        usable = usable_endpoints(
            state.slices,
            port=claim.port.name,
            protocol=claim.protocol,
            family=family,
            facts=self.facts,
            ours=self._owners.served(claim.protocol),
            node_ports=self._owners.node_ports[claim.protocol],
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
            keeps_clients=state.service.keeps_clients,
            scope=claim.scope,
        )

    def _inside(self, claim: PortClaim) -> tuple[str, ...]:
        """Return the networks of the cluster's own clients.

        The frontends are among them: where they are routed to this node, whoever dials one on
        the node itself has that address as its own.
        """
        own = [own_network(frontend.ip) for frontend in claim.frontends]
        return tuple(dict.fromkeys((*self.facts.inside(claim.key.family), *own)))

    def _all_health_checks(self, changed: Iterable[ServiceKey]) -> Mapping[ServiceKey, HealthCheck]:
        """Return the health check node ports, some of which may have changed."""
        is_other = False
        for key in changed:
            old, new = self._health_checks.pop(key, None), self._health_check(key)
            if new is not None:
                self._health_checks[key] = new
            is_other = is_other or old != new
        return dict(sorted(self._health_checks.items())) if is_other else self._last.health_checks

    def _health_check(self, key: ServiceKey) -> HealthCheck | None:
        """Return the health check node port of a Service that has one.

        Source: Kubernetes' NeedsHealthCheck: only of type LoadBalancer, and only with
        ``externalTrafficPolicy: Local``.
        """
        if not self._made.get(key):
            return None
        state = self._states[key]
        service = state.service
        port = service.health_check_node_port
        is_asked = service.is_external_local and service.type is ServiceType.LOAD_BALANCER
        if not port or not is_asked:
            return None
        return HealthCheck(key, port, count_local_ready(state.slices, self.facts))

    def _held_ports(self, ports: Iterable[PortPlan]) -> Iterable[tuple[PortKey, PortPlan]]:
        """Yield those ports that hold a frontend, without what they lost."""
        for port in ports:
            lost = self._owners.lost_by(port.key)
            if not lost:
                yield port.key, port
            elif held := tuple(f for f in port.frontends if f not in lost):
                yield port.key, replace(port, frontends=held)

    def _all_ignored(self, changed: Iterable[ServiceKey]) -> tuple[IgnoredService, ...]:
        """Return what is ignored, some of which may have changed."""
        is_other = False
        for key in changed:
            old, new = self._ignored.pop(key, ()), tuple(self._ignored_of(key))
            if new:
                self._ignored[key] = new
            is_other = is_other or old != new
        if not is_other:
            return self._last.ignored
        everything = itertools.chain.from_iterable(self._ignored.values())
        return tuple(sorted(everything, key=lambda i: (i.service, i.port, i.reason)))

    def _ignored_of(self, key: ServiceKey) -> Iterator[IgnoredService]:
        claims = self._owners.claims.get(key)
        if claims is None:
            return
        yield from claims.ignored
        for claim in claims.ports:
            for frontend, why in self._owners.lost_by(claim.key).items():
                port = claim.key.name.port or str(frontend.port)
                yield IgnoredService(key, port, why, is_conflict=True)


def _admits(
    ranges: tuple[str, ...] | None, inside: tuple[str, ...], *, is_dropping: bool
) -> tuple[str, ...] | None:
    """Return whose packets come in: who is in the ranges, and has an endpoint to be sent to."""
    if not is_dropping:
        return ranges
    return inside if ranges is None else intersect(ranges, inside)
