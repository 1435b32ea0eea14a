"""Allocates node ports to Services whose manifests name none.

    named ──▶ unchanged: if two Services name one port, the plan decides which gets it
    not named ──Pool──▶ a number that no Service has, for any protocol

Rule 1: ports of a Service with the same number (DNS: 53/TCP, 53/UDP) share a node port.
Rule 2: two Services may name the same number for different protocols. The API server's allocator,
which ignores protocols, refuses that, but on a node it isn't a conflict.
Rule 3: a health check node port is a TCP port, and not a frontend in the plan: if its number is
also named elsewhere, the first Service in the order of manifests gets it.

Source: the API server's initNodePorts and allocHealthCheckNodePort.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import NamedTuple

from ...model import Service, ServiceKey, ServicePort, ServiceType
from ...model.admission import NODE_PORTS
from ...model.notes import Note, NoteKind
from .pool import Pool, low_band
from .written import Problem, WrittenService

_POOL: Pool[int] = Pool(
    len(NODE_PORTS), low_band(len(NODE_PORTS), share=32, most=128), NODE_PORTS.__getitem__
)


class _Field(NamedTuple):
    """One node port of a Service."""

    path: str
    """The path of the field, such as ``spec.ports[0].nodePort``."""
    name: str
    """The name under which a number is allocated."""
    number: int
    """The node port given here, or at a port with the same number; 0 if there is none."""
    protocol: str
    is_wanted: bool
    is_health: bool = False
    """Whether the port is the health check node port."""


class NodePorts(NamedTuple):
    """The node ports of one Service, named and allocated."""

    ports: tuple[int, ...]
    """The node port of each port; 0 without a node port."""
    health_check: int
    notes: tuple[Note, ...]
    """Notes on ports that couldn't be allocated."""


def allocate_node_ports(
    written: Iterable[WrittenService],
) -> tuple[dict[ServiceKey, NodePorts], list[Problem]]:
    """Return the node ports of each Service whose type permits them, and failed allocations.

    A problem, such as ``spec.healthCheckNodePort: 30080/TCP is already named by shop/web``, is also
    a note of its Service.
    """
    items = [
        (item.service, tuple(_fields(item)))
        for item in written
        if item.service.type in (ServiceType.NODE_PORT, ServiceType.LOAD_BALANCER)
    ]
    owners: dict[tuple[int, str], tuple[ServiceKey, bool]] = {}
    wanting: list[str] = []
    for service, fields in items:
        for field in fields:
            if field.number:
                named = field.number, field.protocol
                owners.setdefault(named, (service.key, field.is_health))
            elif field.is_wanted:
                wanting.append(field.name)
    allocated = _POOL.allocate(wanting, taken={number for number, _ in owners})
    node_ports: dict[ServiceKey, NodePorts] = {}
    problems: list[Problem] = []
    for service, fields in items:
        notes: list[Note] = []
        *ports, health = [_number(service, field, owners, allocated, notes) for field in fields]
        node_ports[service.key] = NodePorts(tuple(ports), health, tuple(notes))
        problems.extend((service.key, note) for note in notes)
    return node_ports, problems


def _fields(written: WrittenService) -> Iterator[_Field]:
    """Yield the ports' node ports in order, then the health check node port."""
    service, is_wanted = written.service, written.wants_node_ports
    for i, port in enumerate(service.ports):
        number = port.node_port or (is_wanted and _shared(service, port)) or 0
        path, name = f"spec.ports[{i}].nodePort", f"{service.key}:{port.port}"
        yield _Field(path, name, number, port.protocol, is_wanted)
    yield _Field(
        "spec.healthCheckNodePort",
        f"{service.key}:health",
        service.health_check_node_port,
        "TCP",
        written.wants_health_check_node_port,
        is_health=True,
    )


def _shared(service: Service, port: ServicePort) -> int:
    """Return the node port that another port with the same number requests, or 0."""
    named = (p.node_port for p in service.ports if p.port == port.port and p.node_port)
    return next(named, 0)


def _number(
    service: Service,
    field: _Field,
    owners: Mapping[tuple[int, str], tuple[ServiceKey, bool]],
    allocated: Mapping[str, int],
    notes: list[Note],
) -> int:
    """Return the number for a field, or 0, with a note if the Service should have a number."""
    if field.number:
        owner, is_health = owners[field.number, field.protocol]
        if owner == service.key or not (is_health or field.is_health):
            return field.number
        taken = f"{field.number}/{field.protocol}"
        notes.append(NoteKind.NODE_PORT_NAMED(field.path, taken, str(owner)))
    elif field.is_wanted:
        if number := allocated.get(field.name, 0):
            return number
        notes.append(NoteKind.NO_NODE_PORT_LEFT(field.path, NODE_PORTS[0], NODE_PORTS[-1]))
    return 0


def with_node_ports(service: Service, given: NodePorts) -> Service:
    """Return a Service with its node ports and notes; the same object if nothing changed."""
    ports = tuple(
        port if port.node_port == number else replace(port, node_port=number)
        for port, number in zip(service.ports, given.ports, strict=True)
    )
    health = given.health_check
    if ports == service.ports and health == service.health_check_node_port and not given.notes:
        return service
    notes = (*service.notes, *given.notes)
    return replace(service, ports=ports, health_check_node_port=health, notes=notes)
