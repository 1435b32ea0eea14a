"""Computes the plan from a snapshot and node facts.

Service ──claims_of──▶ FrontendOwners: one owner per frontend ──┐
Service + slices + all frontends ──▶ port plans                 ├──▶ Plan
                                                               ─┘
Rule 1: the plan of a Service is kept while its state is the same object, and none of its endpoints
has the address of a frontend that was added or removed, or a cluster IP whose Service has changed.
If only slices differ, only the changed endpoints are judged again.
Rule 2: caching affects only the cost of a plan, never its content; the cost depends on the size of
the change, not on the size of the cluster.
Rule 3: when the facts change, all Services are planned again.
Rule 4: a plan is computed in steps, between which the caller may do other work. A step takes as
long as planning one Service port with its endpoints, or computing the claims of one Service.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import replace
from typing import TypeVar

from ..causes.cause import Cause
from ..causes.services import first_notes
from ..cluster import PersistentMap, ServiceState, Slices, Snapshot, differing_keys
from ..model import (
    Frontend,
    IPFamily,
    PortKey,
    ServiceKey,
    ServicePortName,
    SocketAddress,
)
from ..policy import EndpointIndex, NodeFacts
from ..policy.name_causes import needs_nodes
from ..policy.orphans import Orphans
from ..shares import Shares
from .bounds import (
    ENDPOINTS_OF_NAMESPACE_MAX,
    ENDPOINTS_OF_SERVICE_MAX,
    FRONTENDS_OF_NAMESPACE_MAX,
    FRONTENDS_OF_SERVICE_MAX,
)
from .claims import PortClaim, ServiceClaims, claims_of, count_frontends, first_ignored
from .kernel_room import NO_SIZE, KernelRoom, KernelSize, kernel_size
from .ownership import Address, FrontendOwners, OwnershipChange, ServiceIndex, lost_address
from .plan import HealthCheck, IgnoredService, Plan, PortPlan
from .ports import Earlier, count_endpoints, health_check_of, plan_ports, slice_notes

_Value = TypeVar("_Value")

# How many claims are applied per step; a step takes about 10 ms.
_CLAIMS_IN_TURN = 1_000


class Planner:
    """Computes plans, and caches the plan of each unchanged Service.

    Args:
        facts: The initial facts about this node, which :meth:`plan` may replace.
    """

    def __init__(self, facts: NodeFacts) -> None:
        self.facts = facts
        self.planned_services = 0
        """How many Services were planned since startup, including repetitions."""
        self._is_under_way = False
        self._forget()

    def _forget(self) -> None:
        self._states: Mapping[ServiceKey, ServiceState] = PersistentMap()
        self._owners = FrontendOwners()
        self._planned: dict[ServiceKey, tuple[PortPlan, ...]] = {}
        """The ports of each Service, as if it owned all frontends that it claims."""
        self._orphans = Orphans()
        self._orphaned: Mapping[ServiceKey, Slices] = PersistentMap()
        """The slices from which ``_orphans`` was built."""
        self._without_slices: set[ServiceKey] = set()
        """Services without slices, whose cause depends on orphaned slices."""
        self._by_endpoint_ip: ServiceIndex[str] = ServiceIndex()
        self._by_endpoint_port: ServiceIndex[int] = ServiceIndex()
        self._at_nodes: ServiceIndex[int] = ServiceIndex()
        """Services with endpoints on addresses of Nodes, by the ports of the endpoints."""
        self._found_by_name: set[ServiceKey] = set()
        """Services with endpoints by DNS name, which depend on the addresses of the Nodes."""
        self._ports: PersistentMap[PortKey, PortPlan] = PersistentMap()
        self._ignored: dict[ServiceKey, tuple[IgnoredService, ...]] = {}
        self._health_checks: dict[ServiceKey, HealthCheck] = {}
        self._endpoints = Shares[ServiceKey](of_namespace=ENDPOINTS_OF_NAMESPACE_MAX)
        self._frontends = Shares[ServiceKey](of_namespace=FRONTENDS_OF_NAMESPACE_MAX)
        self._kernel_room = KernelRoom()
        self.last = Plan.empty()
        """The last complete plan."""

    def plan(self, snapshot: Snapshot, facts: NodeFacts | None = None) -> Plan:
        """Return the plan for a snapshot.

        Args:
            facts: New facts; None to use the facts of the last call.
        """
        for _ in self.turns(snapshot, facts):
            pass
        return self.last

    def turns(self, snapshot: Snapshot, facts: NodeFacts | None = None) -> Iterator[None]:
        """Compute the plan for a snapshot, and yield between steps; then :attr:`last` is the plan.

        ``facts`` are as for :meth:`plan`. The plan is computed from scratch if they have changed,
        or if the previous iterator wasn't exhausted.
        """
        if self._is_under_way or (facts is not None and facts != self.facts):
            self.facts = facts or self.facts
            self._forget()
        self._is_under_way = True
        new = snapshot.services
        differing = differing_keys(self._states, new)
        changed = {key for key in differing if key in new}
        gone = differing - changed
        had, self._states = self._states, new
        change = OwnershipChange(set(), set(), set(), set())
        changed |= yield from self._change_frontends(changed, gone)
        yield from self._change_owners(changed, gone, change)
        affected = {key for address in change.addresses for key in self._with_endpoint(address)}
        affected.update(key for port in change.node_ports for key in self._at_nodes[port])
        affected.update(key for ip in change.cluster_ips for key in self._by_endpoint_ip[ip])
        doubtful = {address.ip for address in change.addresses}.union(
            change.cluster_ips, self.facts.all_node_addresses if change.node_ports else ()
        )
        wholly = yield from self._change_orphans(snapshot.orphans)
        indexes: dict[ServiceKey, EndpointIndex] = {}
        counts = dict.fromkeys(gone, 0)
        sizes = dict.fromkeys(gone, NO_SIZE)
        for key in changed:
            index = indexes[key] = yield from EndpointIndex.in_turns(new[key].slices)
            counts[key] = min(count_endpoints(index, self._claims(key)), ENDPOINTS_OF_SERVICE_MAX)
            sizes[key] = self._kernel_size(new[key], index)
            yield
        wholly |= self._endpoints.change(counts)
        wholly |= self._kernel_room.change(sizes)
        again = changed | ((affected | wholly) - gone)
        before = {key: self._planned.pop(key, ()) for key in again | gone}
        for key in again:
            old = had.get(key) if key not in wholly else None
            earlier = _earlier(old, before[key], doubtful)
            yield from self._plan_service(new[key], indexes.pop(key, None), earlier)
        self.planned_services += len(again)
        self._without_slices -= gone
        for key, ports in before.items():
            self._index_endpoints(key, ports, self._planned.get(key, ()))
            yield
        yield from self._update_ports(again.union(gone, change.services), before)
        ignored = self._all_ignored(changed.union(gone, change.services))
        checks = self._all_health_checks(again | gone)
        self.last = Plan(self._ports, ignored, checks, snapshot.revision)
        self._is_under_way = False

    def _claims(self, key: ServiceKey) -> tuple[PortClaim, ...]:
        return self._owners.claims[key].ports

    def _plan_service(
        self, state: ServiceState, index: EndpointIndex | None, before: Earlier | None
    ) -> Iterator[None]:
        key, ports = state.service.key, []
        if index is None:
            index = yield from EndpointIndex.in_turns(state.slices)
        for port in plan_ports(
            state,
            index,
            self._claims(key),
            self._owners,
            self.facts,
            orphans=self._orphans,
            before=before,
            is_left_out=self._endpoints.is_left_out(key),
            kernel=self._kernel_room.fit(key, self._kernel_size(state, index)),
        ):
            ports.append(port)
            yield
        self._note_without_slices(state, is_planned=bool(ports))
        self._planned[key] = tuple(ports)

    def _kernel_size(self, state: ServiceState, index: EndpointIndex) -> KernelSize:
        return kernel_size(state.service, index, self._claims(state.service.key), self.facts)

    def kernel_elements(self, state: ServiceState) -> int:
        """Estimate how many elements of the kernel path's maps a change to a Service may write.

        Returns 0 for a Service that isn't planned yet: it enters the kernel path later.
        """
        if state.service.key not in self._states:
            return 0
        return self._kernel_room.elements(state, self.facts)

    @property
    def needs_node_addresses(self) -> bool:
        """Whether an endpoint may be refused because its address belongs to a Node."""
        numbers = self._by_endpoint_port.addresses
        are_apart = (ports.keys().isdisjoint(numbers) for ports in self._owners.node_ports.values())
        return bool(self._found_by_name) or not all(are_apart)

    def _change_orphans(
        self, orphaned: Mapping[ServiceKey, Slices]
    ) -> Generator[None, None, set[ServiceKey]]:
        """Update the slices without a Service; return the Services that the slices may concern."""
        found: set[ServiceKey] = set()
        if orphaned is self._orphaned:
            return found
        concerns = yield from self._orphans.change(orphaned)
        self._orphaned = orphaned
        for key in self._without_slices:
            if concerns(key):
                found.add(key)
            yield
        return found

    def _note_without_slices(self, state: ServiceState, *, is_planned: bool) -> None:
        if is_planned and not state.slices:
            self._without_slices.add(state.service.key)
        else:
            self._without_slices.discard(state.service.key)

    def _change_frontends(
        self, changed: Iterable[ServiceKey], gone: Iterable[ServiceKey]
    ) -> Generator[None, None, set[ServiceKey]]:
        """Count frontends; return the remaining Services that are newly or no longer left out."""
        counts = dict.fromkeys(gone, 0)
        for key in changed:
            count = count_frontends(self._states[key].service, self.facts)
            counts[key] = min(count, FRONTENDS_OF_SERVICE_MAX)
            yield
        return self._frontends.change(counts).difference(gone)

    def _change_owners(
        self, changed: Iterable[ServiceKey], gone: Iterable[ServiceKey], change: OwnershipChange
    ) -> Iterator[None]:
        """Update the owners, yielding between steps, and add the effects to ``change``."""
        have = self._owners.claims
        new: list[ServiceClaims] = []
        count = 0
        for key in gone:
            change.add(self._owners.change([key], ()))
            yield
        for key in changed:
            is_left_out = self._frontends.is_left_out(key)
            claims = claims_of(self._states[key].service, self.facts, is_left_out=is_left_out)
            # Skip unchanged claims, which are the usual case.
            if not claims.is_same(have.get(key)):
                new.append(claims)
                count += len(claims.ports)
            if count >= _CLAIMS_IN_TURN:
                change.add(self._owners.change((), new))
                new, count = [], 0
            yield
        change.add(self._owners.change((), new))

    def _index_endpoints(
        self, key: ServiceKey, before: Iterable[PortPlan], now: Iterable[PortPlan]
    ) -> None:
        old = [verdict.address for port in before for verdict in port.verdicts]
        new = [verdict.address for port in now for verdict in port.verdicts]
        _move(self._by_endpoint_ip, key, {at.ip for at in old}, {at.ip for at in new})
        _move(self._by_endpoint_port, key, {at.port for at in old}, {at.port for at in new})
        nodes = self.facts.all_node_addresses
        numbers = ({at.port for at in some if at.ip in nodes} for some in (old, new))
        _move(self._at_nodes, key, *numbers)
        state = self._states.get(key)
        if state is not None and needs_nodes(state):
            self._found_by_name.add(key)
        else:
            self._found_by_name.discard(key)

    def _with_endpoint(self, address: SocketAddress) -> Iterator[ServiceKey]:
        """Yield Services with an endpoint at an address, or its IP and its port at two endpoints.

        An index by address would be larger than the index by IP, which ClusterIPs need anyway.
        """
        at_ip, at_port = self._by_endpoint_ip[address.ip], self._by_endpoint_port[address.port]
        fewer, more = sorted((at_ip, at_port), key=len)
        return (key for key in fewer if key in more)

    def _update_ports(
        self, keys: Iterable[ServiceKey], before: Mapping[ServiceKey, tuple[PortPlan, ...]]
    ) -> Iterator[None]:
        put: dict[PortKey, PortPlan] = {}
        drop: set[PortKey] = set()
        for key in keys:
            planned = self._planned.get(key, ())
            drop.update(port.key for port in (*before.get(key, ()), *planned))
            put.update(self._owned_ports(key, planned))
            yield
        if put or drop:
            self._ports = self._ports.changed(put, drop)

    def _all_health_checks(self, changed: Iterable[ServiceKey]) -> Mapping[ServiceKey, HealthCheck]:
        if _update(self._health_checks, changed, self._health_check):
            return dict(sorted(self._health_checks.items()))
        return self.last.health_checks

    def _health_check(self, key: ServiceKey) -> HealthCheck | None:
        return health_check_of(self._states[key], self.facts) if self._planned.get(key) else None

    def _owned_ports(
        self, service: ServiceKey, ports: Sequence[PortPlan]
    ) -> Iterator[tuple[PortKey, PortPlan]]:
        """Yield the port plans that own a frontend, without their lost frontends.

        The first plan has the Service's notes, the first plan of a family has the notes of its
        slices, and the first plan of each Service port has the notes about its lost frontends.
        """
        families: set[IPFamily] = set()
        losses = self._losses(ports)
        for port in ports:
            owned, notes = self._owned(port), port.notes
            if not owned:
                continue
            if self.facts.lists_ports and port.serving.ranges:
                owned = tuple(self._owners.one_by_one(owned))
            lost = losses.pop(port.key.name, {})
            notes = (*first_notes(lost.values()), *notes)
            if port.key.family not in families:
                if not families:
                    notes = (*self._owners.claims[service].notes, *notes)
                notes = (*notes, *slice_notes(self._states[service], port.key.family))
                families.add(port.key.family)
            if owned != port.frontends or len(notes) != len(port.notes):
                yield port.key, replace(port, frontends=owned, notes=notes)
            else:
                yield port.key, port

    def _owned(self, port: PortClaim | PortPlan) -> tuple[Frontend, ...]:
        """Return the frontends of a port, without lost frontends."""
        lost = self._owners.lost_by(port.key)
        return tuple(f for f in port.frontends if f not in lost) if lost else port.frontends

    def _losses(self, ports: Iterable[PortPlan]) -> dict[ServicePortName, dict[object, Cause]]:
        """Return why each Service port lost addresses, by kind of address and IP or number."""
        losses: dict[ServicePortName, dict[object, Cause]] = {}
        for port in ports:
            # Sort the losses, because their order depends on earlier plans.
            for frontend, cause in sorted(self._owners.lost_by(port.key).items()):
                what, note = lost_address(frontend, cause)
                losses.setdefault(port.key.name, {}).setdefault(what, note)
        return losses

    def _all_ignored(self, changed: Iterable[ServiceKey]) -> tuple[IgnoredService, ...]:
        if not _update(self._ignored, changed, lambda key: self._ignored_of(key) or None):
            return self.last.ignored
        return tuple(itertools.chain.from_iterable(self._ignored[k] for k in sorted(self._ignored)))

    def _ignored_of(self, key: ServiceKey) -> tuple[IgnoredService, ...]:
        claims = self._owners.claims.get(key)
        if claims is None:
            return ()
        losers = [claim for claim in claims.ports if self._owners.lost_by(claim.key)]
        served = {c.key.name for c in claims.ports if self._owned(c)} if losers else ()
        lost = [
            IgnoredService(
                key,
                claim.key.name.port or str(frontend.port),
                cause,
                is_conflict=True,
                is_part=claim.key.name in served,
            )
            for claim in losers
            for frontend, cause in self._owners.lost_by(claim.key).items()
        ]
        first_lost = first_ignored(sorted(lost, key=_in_order))
        return tuple(sorted((*claims.ignored, *first_lost), key=_in_order))


def _earlier(
    old: ServiceState | None, planned: Sequence[PortPlan], doubtful_ips: Set[str]
) -> Earlier | None:
    """Return the inputs of a Service's previous plan; None if all endpoints must be judged."""
    # Cost: don't read the slices of a Service without ports to serve, such as a headless Service.
    if old is None or not planned:
        return None
    ports = {port.key: port for port in planned}
    return Earlier(EndpointIndex(old.slices), ports, doubtful_ips)


def _move(
    index: ServiceIndex[Address], key: ServiceKey, old: Set[Address], new: Set[Address]
) -> None:
    index.add(new - old, key)
    index.discard(old - new, key)


def _in_order(item: IgnoredService) -> tuple[str, str, object]:
    return item.port, item.cause.row.key, item.cause.params


def _update(
    values: dict[ServiceKey, _Value],
    changed: Iterable[ServiceKey],
    compute: Callable[[ServiceKey], _Value | None],
) -> bool:
    """Compute the values of some Services again; return whether any value has changed."""
    differs = False
    for key in changed:
        old, new = values.pop(key, None), compute(key)
        if new is not None:
            values[key] = new
        differs = differs or old != new
    return differs
