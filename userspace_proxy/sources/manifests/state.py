"""Combines the objects of all manifest files into one snapshot.

    texts ──▶ objects of each file ──▶ one object of each name ──▶ allocation ──▶ Snapshot

Rule 1: while a file has a problem, its objects aren't removed: an object broken by an edit, even in
its name, keeps its last valid form.
Rule 2: of two objects with the same name, the first one is used, in the order of file names and of
places in the file.
Rule 3: endpoints in slices take precedence over an Endpoints object of the same Service.
Rule 4: addresses and node ports are allocated as the API server does, but depend only on the
manifests, not on earlier allocations (ADR 0077).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ...causes.notes import cause_of
from ...causes.say import say
from ...cluster import Snapshot, Store
from ...facts import RejectedFacts
from ...model import EndpointSlice, Node, Service, ServiceKey
from ...model.mirroring import left_out_reason
from ...model.notes import Note
from ...model.similar import similar_hosts
from .cluster_ips import allocate_cluster_ips, open_ranges
from .files import Look
from .node_ports import NodePorts, allocate_node_ports, with_node_ports
from .objects import FileObjects, Found, Identity, ManifestReader, MirroredEndpoints
from .written import WrittenService


@dataclass(slots=True)
class _File:
    """The objects and problems of one file."""

    reader: ManifestReader
    read: FileObjects = field(default_factory=FileObjects)
    """The contents of the last text of the file."""
    kept: tuple[Found, ...] = ()
    """Objects kept from earlier texts."""
    rejected: tuple[RejectedFacts, ...] = ()

    def take(self, text: str) -> None:
        before, self.read = self.read, self.reader.read(text)
        there = {found.identity for found in self.read.objects}
        earlier = (*before.objects, *self.kept) if self.read.rejected else ()
        self.kept = tuple(found for found in earlier if found.identity not in there)
        self.rejected = tuple(_about_kept(self.read.rejected, self.kept))


class ManifestState:
    """The objects and problems of all files; not thread-safe.

    The arguments and exceptions are the same as for ManifestSource.
    """

    def __init__(self, *, node_name: str, service_cidrs: Sequence[str]) -> None:
        self._node_name = node_name
        self._ranges = open_ranges(service_cidrs)
        self._store = Store()
        self._files: dict[str, _File] = {}
        self._first: dict[Identity, Found] = {}
        """The object that is used for each name."""
        self._served: dict[ServiceKey, tuple[_Parts, Service]] = {}
        self.unread: tuple[str, ...] = ()
        """Files and folders that can't be read, and a folder without manifests, one line each."""
        self._conflicts: tuple[RejectedFacts, ...] = ()
        self.snapshot: Snapshot = self._store.snapshot()
        """The current content of the files."""

    def resume(self, snapshot: Snapshot) -> None:
        """Begin with the Services of an earlier run, as the last contents of the files."""
        self._store.resume(snapshot)

    @property
    def problems(self) -> tuple[str, ...]:
        return (*self.unread, *(item.line for item in self.rejected))

    @property
    def rejected(self) -> tuple[RejectedFacts, ...]:
        return (*(item for file in self._in_order() for item in file.rejected), *self._conflicts)

    @property
    def ignored(self) -> tuple[str, ...]:
        """The lines of :attr:`.FileObjects.ignored` of all files."""
        return tuple(line for file in self._in_order() for line in file.read.ignored)

    @property
    def findings(self) -> tuple[str, ...]:
        """Keys of labels and annotations that are duplicates, or aren't text, one line each."""
        return tuple(line for file in self._in_order() for line in file.read.findings)

    def place_of(self, service: ServiceKey) -> str:
        return self._first["Service", str(service)].place

    def take(self, look: Look) -> None:
        """Update ``snapshot`` and ``problems`` from a check of the files."""
        self.unread = tuple(line for _, line in sorted(look.problems.items()))
        if not look.texts and not look.gone:
            return
        for name in look.gone:
            self._files.pop(name, None)
        for name, text in look.texts.items():
            self._files.setdefault(name, _File(ManifestReader(name))).take(text)
        self._combine()

    def _in_order(self) -> list[_File]:
        return [self._files[name] for name in sorted(self._files)]

    def _combine(self) -> None:
        conflicts: list[RejectedFacts] = []
        first: dict[Identity, Found] = {}
        self._first = first
        for file in self._in_order():
            for found in file.read.objects:
                earlier = first.setdefault(found.identity, found)
                if earlier is not found:
                    what = f"{found.kind} {found.key}"
                    problem = f"{what} is already defined in {earlier.place}"
                    services = tuple(_services_of(found))
                    conflicts.append(RejectedFacts.at(found.place, problem, services=services))
        # A broken object never replaces a valid object in another file.
        for file in self._in_order():
            for found in file.kept:
                first.setdefault(found.identity, found)
        slices, unmirrored = _slices(first.values())
        self._store.replace_services(self._allocate(first.values(), unmirrored, conflicts))
        self._store.replace_slices(slices)
        nodes = [f.value for f in first.values() if isinstance(f.value, Node)]
        own = next((n for n in nodes if n.name == self._node_name), None)
        if own is None and nodes and self._node_name:
            similar = similar_hosts(self._node_name, (node.name for node in nodes))
            own = Node(self._node_name, is_missing=True, similar=similar)
        self._store.set_node(own)
        self._store.set_node_addresses(frozenset(a for n in nodes for a in n.addresses))
        self._conflicts = tuple(conflicts)
        self.snapshot = self._store.snapshot()

    def _allocate(
        self,
        objects: Iterable[Found],
        unmirrored: Mapping[ServiceKey, Note],
        conflicts: list[RejectedFacts],
    ) -> list[Service]:
        """Return all Services with allocated fields; append to ``conflicts``."""
        found = [f for f in objects if f.kind == "Service"]
        written = [f.value for f in found if isinstance(f.value, WrittenService)]
        cluster_ips, without_ip = allocate_cluster_ips(written, self._ranges)
        node_ports, without_port = allocate_node_ports(written)
        if without_ip or without_port:
            places = {f.key: f.place for f in found}
            conflicts.extend(
                _not_allocated(places[str(key)], str(key), problem)
                for key, problem in (*without_ip, *without_port)
            )
        served: dict[ServiceKey, tuple[_Parts, Service]] = {}
        for item in written:
            key = item.service.key
            parts = (item, cluster_ips[key], node_ports.get(key), unmirrored.get(key))
            old = self._served.get(key)
            # Cost: an edit leaves most Services unchanged.
            served[key] = old if old is not None and old[0] == parts else (parts, _join(*parts))
        self._served = served
        return [service for _, service in served.values()]


_Parts = tuple[WrittenService, tuple[str, ...], NodePorts | None, Note | None]
"""A Service, its allocations, and the reason why no slice mirrors its Endpoints."""


def _join(
    written: WrittenService,
    cluster_ips: tuple[str, ...],
    node_ports: NodePorts | None,
    unmirrored: Note | None,
) -> Service:
    service = written.service
    if unmirrored is not None:
        service = replace(service, notes=(*service.notes, unmirrored))
    if cluster_ips != service.cluster_ips:
        service = replace(service, cluster_ips=cluster_ips)
    return service if node_ports is None else with_node_ports(service, node_ports)


def _not_allocated(place: str, service: str, problem: str | Note) -> RejectedFacts:
    if isinstance(problem, str):
        return RejectedFacts.at(place, problem, services=(service,))
    note = cause_of(problem)
    return RejectedFacts.at(place, say(note), services=(service,), note=note)


def _about_kept(
    rejected: Sequence[RejectedFacts], kept: Sequence[Found]
) -> Iterator[RejectedFacts]:
    """Yield the problems of a file, with the Services whose objects are kept because of them.

    A kept object has a problem now, or is in the first part that can't be read; if there is no such
    part, it was removed.
    """
    of_object = {f"{found.kind} {found.key}": tuple(_services_of(found)) for found in kept}
    broken = {item.object for item in rejected}
    others = (of_object[name] for name in of_object if name not in broken)
    lost = tuple(dict.fromkeys(key for services in others for key in services))
    unreadable = next((at for at, item in enumerate(rejected) if not item.object), None)
    for at, item in enumerate(rejected):
        services = (*item.services, *of_object.get(item.object, ()))
        if at == unreadable:
            services += lost
        keeps = lost if at == 0 and unreadable is None else ()
        yield item.about(tuple(dict.fromkeys(services)), keeps)


def _services_of(found: Found) -> Iterator[str]:
    """Yield the name of the Service that an object concerns, if there is one."""
    if isinstance(found.value, EndpointSlice):
        if found.value.service.name:
            yield str(found.value.service)
    elif not isinstance(found.value, Node):
        yield found.key


def _slices(objects: Iterable[Found]) -> tuple[list[EndpointSlice], dict[ServiceKey, Note]]:
    """Return all slices, and why the Endpoints of some Services have none."""
    values = [found.value for found in objects]
    written = [v for v in values if isinstance(v, EndpointSlice)]
    mirrored = [v for v in values if isinstance(v, MirroredEndpoints)]
    # Cost: few Services have both mirrored and written endpoints, so collect only their addresses.
    both = {v.service for v in mirrored}
    ips: dict[ServiceKey, set[str]] = {}
    for item in written:
        if item.service in both:
            ips.setdefault(item.service, set()).update(endpoint.ip for endpoint in item.endpoints)
    slices = [*written, *(item for v in mirrored if v.service not in ips for item in v.slices)]
    why = {
        v.service: left_out_reason(v.slices, ips[v.service]) if v.service in ips else v.none_reason
        for v in mirrored
    }
    return slices, {service: reason for service, reason in why.items() if reason is not None}
