"""Reads which host names a Service requests as endpoints, in its annotation or in slices of names.

Rule 1: the key of a derived slice contains an @, which names of objects can't contain. The state on
disk therefore shows which slices were derived from which names, so that they are read back as
slices of names.
Rule 2: a name whose port the Service doesn't have is omitted, with a note.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from ..model import Endpoint, EndpointSlice, IPFamily, Service, SliceKey, SlicePort
from ..model.annotations import DOMAIN
from ..model.endpoint_names import NAMES_MAX, EndpointName, NameSlice
from ..model.notes import Note, NoteKind
from ..model.quoting import quoted, shown
from .slices import Slices
from .store import ServiceState

# A character that occurs neither in names of objects nor in keys of Endpoints (``mirroring``) or
# pods.
_SEPARATOR = "@"
ANNOTATION = f"{DOMAIN}endpoints"


class NameRequest(NamedTuple):
    """The names that one Service requests."""

    state: ServiceState
    """The Service's state as read by the source, without an earlier run's note about a bug."""
    plain: Slices
    """The Service's slices of addresses."""
    named: tuple[NameSlice, ...]
    families: tuple[IPFamily, ...]
    """The IP families of the Service."""
    notes: tuple[Note, ...]
    """Notes on requests that can't be fulfilled."""

    @property
    def hosts(self) -> tuple[str, ...]:
        """The requested host names, each once."""
        return tuple(dict.fromkeys(e.ip for item in self.named for e in item.named))

    @property
    def names(self) -> tuple[EndpointName, ...]:
        """The first ``NAMES_MAX`` requested names, with ports, of the annotation and slices."""
        found = dict.fromkeys(self.state.service.handling.names)
        for item in self.named:
            # Cost: stop early, as a user's slice may have a thousand names and a hundred ports.
            for port, endpoint in itertools.product(item.ports, item.named):
                if len(found) >= NAMES_MAX:
                    return tuple(found)
                found[EndpointName(endpoint.ip, port.port, port.name)] = None
        return tuple(found)

    @property
    def earlier(self) -> Iterator[tuple[str, EndpointSlice]]:
        """The slices that an earlier run derived, each with the name it was derived from."""
        for item in _named(self.state):
            if not isinstance(item, NameSlice) and (host := host_of(item)):
                yield host, item


def read_request(state: ServiceState) -> NameRequest | None:
    """Return the names that a Service requests; None if it requests none or has no cluster IP."""
    service = state.service
    apart = _named(state)
    if not service.handling.names and not apart:
        return None
    families = tuple(sorted({IPFamily.of(ip) for ip in service.cluster_ips}))
    if not families:
        return None
    named: dict[SliceKey, NameSlice] = {}
    is_earlier = False
    for item in apart:
        if isinstance(item, NameSlice):
            named[item.key] = item
        else:
            is_earlier = True
            _add(named, _before_derivation(item, host_of(item)))
    notes: list[Note] = []
    if service.handling.names and not is_earlier:
        # The keys can't equal keys of slice objects, because they contain the separator.
        named.update((made.key, made) for made in _of_annotation(service, notes))
    plain = _without(state, apart)
    if len(others := _other_notes(service)) < len(service.notes):
        state = replace(state, service=replace(service, notes=others))
    return NameRequest(state, plain, tuple(named.values()), families, tuple(notes))


def without_names(state: ServiceState, bug: str) -> ServiceState:
    """Return a Service without endpoints by name, and with a note about the bug."""
    notes = (*_other_notes(state.service), NoteKind.NAMES_BUG(bug))
    service = replace(state.service, notes=notes)
    return ServiceState(service, _without(state, _named(state)))


def _other_notes(service: Service) -> tuple[Note, ...]:
    return tuple(note for note in service.notes if note.kind is not NoteKind.NAMES_BUG)


def derived_key(origin: SliceKey, host: str, family: IPFamily) -> SliceKey:
    """Return the key of the slice derived from a name in a slice of names."""
    name = _SEPARATOR.join((origin.name, host, str(family.value)))
    return SliceKey(origin.namespace, name)


def host_of(item: EndpointSlice) -> str:
    """Return the name from which a slice was derived; empty if it wasn't derived."""
    _, separator, rest = item.key.name.rpartition(_SEPARATOR)[0].rpartition(_SEPARATOR)
    return rest if separator else ""


def _named(state: ServiceState) -> Sequence[EndpointSlice]:
    """Return the slices of names, and the slices derived from names."""
    return list(itertools.chain.from_iterable(Slices.of(state.slices).derive(_named_of)))


def _named_of(slices: Sequence[EndpointSlice]) -> Sequence[EndpointSlice]:
    return tuple([item for item in slices if isinstance(item, NameSlice) or host_of(item)])


def _without(state: ServiceState, slices: Iterable[EndpointSlice]) -> Slices:
    return Slices.of(state.slices).changed({item.key: None for item in slices})


def _add(named: dict[SliceKey, NameSlice], item: NameSlice) -> None:
    """Add a slice, merged with one of an equal key; entries with non-default values win."""
    before = named.get(item.key)
    if before is None:
        named[item.key] = item
        return
    hosts = {endpoint.ip: endpoint for endpoint in before.named}
    for endpoint in item.named:
        if endpoint != Endpoint(endpoint.ip):
            hosts[endpoint.ip] = endpoint
        hosts.setdefault(endpoint.ip, endpoint)
    named[item.key] = replace(before, named=tuple(hosts.values()))


def _before_derivation(item: EndpointSlice, host: str) -> NameSlice:
    """Return the slice of names from which an earlier run derived a slice."""
    origin = item.key.name.rpartition(_SEPARATOR)[0].rpartition(_SEPARATOR)[0]
    like = item.endpoints[0] if item.endpoints else Endpoint(host)
    return NameSlice(
        SliceKey(item.key.namespace, origin),
        item.service,
        item.family,
        item.ports,
        (),
        notes=item.notes,
        named=(replace(like, ip=host, host=""),),
    )


def _of_annotation(service: Service, notes: list[Note]) -> Iterator[NameSlice]:
    """Yield a slice of names for each port in an annotation; note a selector or unknown ports."""
    if service.selector:
        notes.append(NoteKind.NAMES_BESIDE_SELECTOR(ANNOTATION))
        return
    ports = {port.name: port for port in service.ports}
    hosts: dict[tuple[str, int], list[str]] = {}
    for name in service.handling.names:
        port_name = name.port_name
        if not port_name and len(ports) == 1:
            (port_name,) = ports
        if port_name in ports:
            hosts.setdefault((port_name, name.port), []).append(name.host)
            continue
        at = f"{shown(name.host)}:{name.port}"
        lacks = quoted(port_name) if port_name else ""
        notes.append(NoteKind.NAME_WITHOUT_PORT(ANNOTATION, at, lacks))
    for (port_name, number), names in hosts.items():
        origin = _SEPARATOR.join((service.key.name, port_name, str(number)))
        yield NameSlice(
            SliceKey(service.key.namespace, origin),
            service.key,
            IPFamily.IPV4,
            (SlicePort(port_name, number, ports[port_name].protocol),),
            (),
            named=tuple(map(Endpoint, dict.fromkeys(names))),
        )
