"""Computes the plan from a snapshot and node facts.

Service ──claims_of──▶ FrontendOwners: one owner per frontend ──┐
Service + slices + all frontends ──▶ port plans                 ├──▶ Plan
                                                               ─┘
Rule 1: what was planned for a Service is kept while its state is the same object and its
endpoints aren't at any of the frontends that were added or removed.
Rule 2: caching affects only the cost of a plan, never its content; the cost depends on the size of
the change, not on the size of the cluster.
Rule 3: when the facts change, everything is planned again.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import TypeVar

from ..cluster import PersistentMap, ServiceState, Snapshot, differing_keys
from ..model import IPFamily, ServiceKey, SliceKey, SocketAddress
from ..policy import NodeFacts
from ..policy.orphans import Orphans
from .claims import claims_of
from .ownership import FrontendOwners, OwnershipChange, ServiceIndex
from .plan import HealthCheck, IgnoredService, Plan, PortKey, PortPlan
from .ports import NO_ORPHANS, health_check_of, plan_port, slice_notes

_Value = TypeVar("_Value")


class Planner:
    """Computes plans, and caches what it planned for each unchanged Service.

    Args:
        facts: Of this node, until :meth:`plan` gets others.
    """

    def __init__(self, facts: NodeFacts) -> None:
        self.facts = facts
        self.planned_services = 0
        """How many Services were planned since the start, repetitions included."""
        self._forget()

    def _forget(self) -> None:
        self._states: Mapping[ServiceKey, ServiceState] = PersistentMap()
        self._owners = FrontendOwners()
        self._planned: dict[ServiceKey, tuple[PortPlan, ...]] = {}
        """As if each Service owned all frontends that it claims."""
        self._orphans = NO_ORPHANS
        self._orphaned: Mapping[ServiceKey, tuple[SliceKey, ...]] = PersistentMap()
        """What ``_orphans`` was made of."""
        self._without_slices: set[ServiceKey] = set()
        """Services whose cause depends on the orphans."""
        self._by_endpoint: ServiceIndex[SocketAddress] = ServiceIndex()
        self._by_endpoint_port: ServiceIndex[int] = ServiceIndex()
        self._at_node_ports: set[ServiceKey] = set()
        """Services with an endpoint whose port is the number of a node port."""
        self._ports: PersistentMap[PortKey, PortPlan] = PersistentMap()
        self._ignored: dict[ServiceKey, tuple[IgnoredService, ...]] = {}
        self._health_checks: dict[ServiceKey, HealthCheck] = {}
        self._last = Plan.empty()

    def plan(self, snapshot: Snapshot, facts: NodeFacts | None = None) -> Plan:
        """Return the plan for a snapshot.

        Args:
            facts: New ones; None for those of the last call.
        """
        if facts is not None and facts != self.facts:
            self.facts = facts
            self._forget()
        new = snapshot.services
        differing = differing_keys(self._states, new)
        changed = {key for key in differing if key in new}
        gone = differing - changed
        self._states = new
        change = self._change_owners(changed, gone)
        affected = {key for address in change.addresses for key in self._by_endpoint[address]}
        affected.update(key for port in change.node_ports for key in self._by_endpoint_port[port])
        affected |= self._change_orphans(snapshot.orphans)
        again = changed | (affected - gone)
        before = {key: self._planned.pop(key, ()) for key in again | gone}
        for key in again:
            claims, state = self._owners.claims[key].ports, new[key]
            ports = [
                plan_port(state, claim, self._owners, self.facts, self._orphans) for claim in claims
            ]
            self._note_without_slices(state, is_planned=bool(ports))
            self._planned[key] = tuple(ports)
        self.planned_services += len(again)
        self._without_slices -= gone
        for key, old in before.items():
            self._index_endpoints(key, old, self._planned.get(key, ()))
        self._update_ports(again.union(gone, change.services), before)
        ignored = self._all_ignored(differing.union(change.services))
        checks = self._all_health_checks(again | gone)
        self._last = Plan(self._ports, ignored, checks, snapshot.revision)
        return self._last

    @property
    def needs_node_addresses(self) -> bool:
        """Whether an endpoint would be a node port if its address were a node's."""
        return bool(self._at_node_ports)

    def _change_orphans(
        self, orphaned: Mapping[ServiceKey, tuple[SliceKey, ...]]
    ) -> set[ServiceKey]:
        """Take the slices without a Service; returns which Services they may concern."""
        if orphaned is self._orphaned:
            return set()
        before, self._orphans, self._orphaned = self._orphans, Orphans(orphaned), orphaned
        return {
            key
            for key in self._without_slices
            if before.concerns(key) or self._orphans.concerns(key)
        }

    def _note_without_slices(self, state: ServiceState, *, is_planned: bool) -> None:
        if is_planned and not state.slices:
            self._without_slices.add(state.service.key)
        else:
            self._without_slices.discard(state.service.key)

    def _change_owners(
        self, changed: Iterable[ServiceKey], gone: Collection[ServiceKey]
    ) -> OwnershipChange:
        have = self._owners.claims
        claims = [claims_of(self._states[key].service, self.facts) for key in changed]
        # Nearly always a Service claims what it claimed before.
        new = [one for one in claims if not one.is_same(have.get(one.service))]
        return self._owners.change(gone, new)

    def _index_endpoints(
        self, key: ServiceKey, before: Iterable[PortPlan], now: Iterable[PortPlan]
    ) -> None:
        old = {verdict.address for port in before for verdict in port.endpoints}
        new = {verdict.address for port in now for verdict in port.endpoints}
        self._by_endpoint.add(new - old, key)
        self._by_endpoint.discard(old - new, key)
        old_numbers, numbers = {at.port for at in old}, {at.port for at in new}
        self._by_endpoint_port.add(numbers - old_numbers, key)
        self._by_endpoint_port.discard(old_numbers - numbers, key)
        if any(
            verdict.address.port in self._owners.node_ports[port.protocol]
            for port in now
            for verdict in port.endpoints
        ):
            self._at_node_ports.add(key)
        else:
            self._at_node_ports.discard(key)

    def _update_ports(
        self, keys: Iterable[ServiceKey], before: Mapping[ServiceKey, tuple[PortPlan, ...]]
    ) -> None:
        put: dict[PortKey, PortPlan] = {}
        drop: set[PortKey] = set()
        for key in keys:
            planned = self._planned.get(key, ())
            drop.update(port.key for port in (*before.get(key, ()), *planned))
            put.update(self._owned_ports(key, planned))
        if put or drop:
            self._ports = self._ports.changed(put, drop)

    def _all_health_checks(self, changed: Iterable[ServiceKey]) -> Mapping[ServiceKey, HealthCheck]:
        if _update(self._health_checks, changed, self._health_check):
            return dict(sorted(self._health_checks.items()))
        return self._last.health_checks

    def _health_check(self, key: ServiceKey) -> HealthCheck | None:
        return health_check_of(self._states[key], self.facts) if self._planned.get(key) else None

    def _owned_ports(
        self, service: ServiceKey, ports: Iterable[PortPlan]
    ) -> Iterator[tuple[PortKey, PortPlan]]:
        """Yield the ports that own a frontend, without the frontends that they lost.

        The first has the notes of the Service, the first of a family those of its slices.
        """
        families: set[IPFamily] = set()
        for port in ports:
            owned, notes = port.frontends, port.notes
            if lost := self._owners.lost_by(port.key):
                owned = tuple(f for f in owned if f not in lost)
            if not owned:
                continue
            if port.key.family not in families:
                if not families:
                    notes = (*self._owners.claims[service].notes, *notes)
                notes = (*notes, *slice_notes(self._states[service], port.key.family))
                families.add(port.key.family)
            if lost or len(notes) != len(port.notes):
                yield port.key, replace(port, frontends=owned, notes=notes)
            else:
                yield port.key, port

    def _all_ignored(self, changed: Iterable[ServiceKey]) -> tuple[IgnoredService, ...]:
        if not _update(self._ignored, changed, lambda key: tuple(self._ignored_of(key)) or None):
            return self._last.ignored
        everything = itertools.chain.from_iterable(self._ignored.values())
        return tuple(sorted(everything, key=lambda i: (i.service, i.port, str(i.cause))))

    def _ignored_of(self, key: ServiceKey) -> Iterator[IgnoredService]:
        claims = self._owners.claims.get(key)
        if claims is None:
            return
        yield from claims.ignored
        for claim in claims.ports:
            for frontend, cause in self._owners.lost_by(claim.key).items():
                port = claim.key.name.port or str(frontend.port)
                yield IgnoredService(key, port, cause, is_conflict=True)


def _update(
    values: dict[ServiceKey, _Value],
    changed: Iterable[ServiceKey],
    compute: Callable[[ServiceKey], _Value | None],
) -> bool:
    """Compute the values of some Services again; return whether any differs."""
    differs = False
    for key in changed:
        old, new = values.pop(key, None), compute(key)
        if new is not None:
            values[key] = new
        differs = differs or old != new
    return differs
