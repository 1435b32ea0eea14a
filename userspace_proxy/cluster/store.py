"""Collects the objects of a source, and returns snapshots.

Rule 1: an equal object causes no new revision. Equal endpoints stay the same objects, so that
changed endpoints are found quickly.
Rule 2: a list replaces all objects of its kind, but equal objects stay the same, so a relist yields
only differences.
Rule 3: a snapshot never changes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from ..model import EndpointSlice, Node, Service, ServiceKey, SliceKey
from .persistent import PersistentMap
from .slices import NO_SLICES, Slices


@dataclass(frozen=True, slots=True)
class ServiceState:
    """One Service and its slices, in the order of their names.

    The object stays the same in all snapshots until the Service changes, so caches can compare
    states with ``is``.
    """

    service: Service
    slices: tuple[EndpointSlice, ...]
    """The slices of the Service; of type :class:`Slices` in a store's snapshots."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The state of the cluster at one moment; equal states compare equal."""

    services: Mapping[ServiceKey, ServiceState]
    node: Node | None = None
    """This node's object, with ``is_missing`` if the cluster lacks it; None if unknown."""
    node_addresses: frozenset[str] | None = None
    """The addresses of all Nodes; None if unknown."""
    orphans: Mapping[ServiceKey, Slices] = field(default_factory=PersistentMap)
    """Slices of Services that don't exist, by Service, and slices without a Service. Only their
    keys are current."""
    revision: int = field(default=0, compare=False)
    """A number that increases with every change, shown in logs and on the status page."""


class Store:
    """The objects of one source."""

    def __init__(self) -> None:
        self._services: dict[ServiceKey, Service] = {}
        self._slices: dict[SliceKey, EndpointSlice] = {}
        self._slices_of: dict[ServiceKey, Slices] = {}
        """The slices in the last snapshot; no entry is empty."""
        self._node: Node | None = None
        self._node_addresses: frozenset[str] | None = None
        self._affected: dict[ServiceKey, dict[SliceKey, EndpointSlice | None]] = defaultdict(dict)
        """Services changed since the last snapshot, with changed slices; None for a deleted
        slice."""
        self._states: PersistentMap[ServiceKey, ServiceState] = PersistentMap()
        self._orphans: PersistentMap[ServiceKey, Slices] = PersistentMap()
        self._last = Snapshot(self._states, orphans=self._orphans)

    def resume(self, snapshot: Snapshot) -> None:
        """Start with an earlier run's Services and Node addresses.

        Call this only while the store is empty.
        """
        for key, state in snapshot.services.items():
            self._services[key] = state.service
            self._slices.update((item.key, item) for item in state.slices)
            if state.slices:
                self._slices_of[key] = Slices.of(state.slices)
        self._states = self._states.changed(snapshot.services)
        self._last = Snapshot(self._states, orphans=self._orphans)
        self._node_addresses = snapshot.node_addresses

    def replace_services(self, services: Iterable[Service]) -> None:
        new = {service.key: service for service in services}
        for key in self._services.keys() - new.keys():
            self.delete_service(key)
        for service in new.values():
            self.put_service(service)

    def put_service(self, service: Service) -> None:
        """Add a Service, or replace the Service of the same name."""
        old = self._services.get(service.key)
        if old is not service and old != service:
            self._services[service.key] = service
            self._affected.setdefault(service.key, {})

    def uid_of(self, key: ServiceKey) -> str:
        """Return a Service's uid; empty if unknown."""
        service = self._services.get(key)
        return "" if service is None else service.uid

    def delete_service(self, key: ServiceKey) -> None:
        """Delete a Service, if it exists."""
        if self._services.pop(key, None) is not None:
            self._affected.setdefault(key, {})

    def replace_slices(self, slices: Iterable[EndpointSlice]) -> None:
        new = {item.key: item for item in slices}
        for key in self._slices.keys() - new.keys():
            self.delete_slice(key)
        for item in new.values():
            self.put_slice(item)

    def put_slice(self, item: EndpointSlice) -> None:
        """Add a slice, or replace the slice of the same name, even of another Service."""
        old = self._slices.get(item.key)
        if old is item or old == item:
            return
        if old is not None and old.service != item.service:
            self.delete_slice(item.key)
        elif old is not None:
            item = _keeping_endpoints(old, item)
        self._slices[item.key] = item
        self._affected[item.service][item.key] = item

    def delete_slice(self, key: SliceKey) -> None:
        """Delete a slice, if it exists."""
        old = self._slices.pop(key, None)
        if old is not None:
            self._affected[old.service][key] = None

    @property
    def node(self) -> Node | None:
        """The node's object as last set, which may be newer than the snapshot; None if unknown."""
        return self._node

    def set_node(self, node: Node | None) -> None:
        self._node = node

    def set_node_addresses(self, addresses: frozenset[str] | None) -> None:
        """Set the addresses of all Nodes; None if unknown."""
        self._node_addresses = addresses

    def snapshot(self) -> Snapshot:
        """Return the current state; the same object until something changes."""
        for key, changes in self._affected.items():
            slices = self._slices_of.pop(key, NO_SLICES).changed(changes)
            if slices:
                self._slices_of[key] = slices
        changed = {key for key in self._affected if self._differs(key)}
        self._note_orphans()
        others = self._node, self._node_addresses
        last = self._last
        # Compare orphans by identity, because there may be many.
        is_other = others != (last.node, last.node_addresses) or self._orphans is not last.orphans
        if changed or is_other:
            put = {
                key: ServiceState(self._services[key], self._slices_of.get(key, NO_SLICES))
                for key in changed
                if key in self._services
            }
            self._states = self._states.changed(put, changed)
            self._last = Snapshot(self._states, *others, self._orphans, last.revision + 1)
        self._affected.clear()
        return self._last

    def _note_orphans(self) -> None:
        # Cost: `self._affected.keys() - self._services.keys()` would read all Services.
        named = {k for k in self._affected if k not in self._services and k in self._slices_of}
        put = {
            key: self._slices_of[key]
            for key in named
            for old, new in self._orphans.get(key, NO_SLICES).differing(self._slices_of[key])
            # Changed slices don't matter, because only the keys of orphans are kept current.
            if old is None or new is None
        }
        drop = {key for key in self._affected if key in self._orphans and key not in named}
        if put or drop:
            self._orphans = self._orphans.changed(put, drop)

    def _differs(self, key: ServiceKey) -> bool:
        """Return whether a Service differs from the last snapshot."""
        service = self._services.get(key)
        old = self._last.services.get(key)
        if service is None or old is None:
            return service is not None or old is not None
        return old.service != service or old.slices is not self._slices_of.get(key, NO_SLICES)


def differing_slices(
    old: ServiceState | None, new: ServiceState | None
) -> Iterator[tuple[EndpointSlice | None, EndpointSlice | None]]:
    """Yield the differing slices of a Service's states, as :meth:`Slices.differing` does."""
    before = old.slices if old is not None else NO_SLICES
    return Slices.of(before).differing(new.slices if new is not None else NO_SLICES)


def count_new(old: ServiceState | None, new: ServiceState | None) -> int:
    """Return approximately how many slices, endpoints and ports are only in the second state."""
    known = set(Slices.of(old.slices).runs) if old is not None else ()
    runs = Slices.of(new.slices).runs if new is not None else ()
    return sum(run.weight for run in runs if run not in known)


def _keeping_endpoints(old: EndpointSlice, new: EndpointSlice) -> EndpointSlice:
    known = {endpoint.ip: endpoint for endpoint in old.endpoints}
    same = ((known.get(endpoint.ip), endpoint) for endpoint in new.endpoints)
    kept = tuple([before if before == endpoint else endpoint for before, endpoint in same])
    return replace(new, endpoints=kept)
