"""Allocates node ports to Services whose manifests name none, and resolves conflicts.

    named ones, in the order of the manifests ──▶ named twice? its holder keeps it,
                                                  the other one has none
    the others ──Pool──▶ a number that no Service has, whatever the protocol

Rule 1: the ports of one Service with one number (DNS: 53/TCP, 53/UDP) share a node port.
Rule 2: two Services may name one number for different protocols, which the API server's
allocator refuses, as it knows no protocols: on a node this is no conflict.
Rule 3: a health check node port is one of TCP.

Source: the API server's initNodePorts and allocHealthCheckNodePort.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from ..model import Service, ServiceKey, ServicePort
from ..model.admission import NODE_PORTS
from .pool import Pool, low_band
from .written import WrittenService

_Holders = dict[tuple[int, str], ServiceKey]
_LEFT = f"no node port is left in {NODE_PORTS[0]}–{NODE_PORTS[-1]}"


@dataclass(frozen=True, slots=True)
class Conflict:
    """A node port that a Service asks for and doesn't get."""

    service: ServiceKey
    problem: str
    """As ``spec.ports[0].nodePort: 30080/TCP is that of shop/web already``."""


class NodePorts:
    """Gives out the node ports of the cluster; see :class:`Pool` for who gets which."""

    def __init__(self) -> None:
        low = low_band(len(NODE_PORTS), share=32, most=128)
        self._pool: Pool[int] = Pool(len(NODE_PORTS), low, NODE_PORTS.__getitem__)
        self._holders: _Holders = {}
        self._contested: set[tuple[int, str]] = set()

    @property
    def contested(self) -> Mapping[str, str]:
        """Who has which number that several Services name: by ``30080/TCP``, sorted."""
        return {f"{n}/{p}": str(self._holders[n, p]) for n, p in sorted(self._contested)}

    @property
    def given(self) -> Mapping[str, int]:
        """Who has which number, by ``namespace/name:port``, or ``…:health``."""
        return self._pool.given

    def remember(self, given: Mapping[str, int], contested: Mapping[str, str]) -> None:
        """Take over what both were before a restart; what isn't a node port is left out."""
        for seat, key in contested.items():
            number, _, protocol = seat.partition("/")
            namespace, _, name = key.partition("/")
            if number.isdecimal():
                self._holders[int(number), protocol] = ServiceKey(namespace, name)
        self._pool.remember({name: n for name, n in given.items() if n in NODE_PORTS})

    def allocate(self, written: Iterable[WrittenService]) -> tuple[list[Service], list[Conflict]]:
        """Give a node port to each port that is to have one.

        Args:
            written: All Services; where two name one number, who had it before keeps it,
                else the first has it.

        Returns:
            The Services in their order with their numbers, and who went without.
        """
        claims = [_Claims(item) for item in written]
        named = {seat for claim in claims for seat in claim.named()}
        who = Counter((number, protocol) for number, protocol, _ in named)
        self._contested = {seat for seat, count in who.items() if count > 1}
        holders = {s: key for s, key in self._holders.items() if (*s, key) in named}
        conflicts: list[Conflict] = []
        for claim in claims:
            conflicts.extend(claim.take_named(holders))
        self._holders = holders
        wanting = [name for claim in claims for name in claim.open.values()]
        given = self._pool.allocate(wanting, taken={number for number, _ in holders})
        for claim in claims:
            conflicts.extend(claim.take_given(given))
        return [claim.settled() for claim in claims], conflicts


class _Claims:
    """The node ports of one Service while they are given out.

    Args:
        written: The Service.
    """

    def __init__(self, written: WrittenService) -> None:
        self._written = written
        self._service = written.service
        self._numbers: dict[str, int] = {}
        """By field: ``spec.ports[0].nodePort``."""
        self._notes: list[str] = []
        self.open: dict[str, str] = {}
        """Fields that are to be given a number, and the name under which it is kept."""

    def named(self) -> Iterable[tuple[int, str, ServiceKey]]:
        """Yield the numbers that it names, each with protocol and Service."""
        for _, _, number, protocol, _ in self._fields():
            if number:
                yield number, protocol, self._service.key

    def take_named(self, holders: _Holders) -> Iterable[Conflict]:
        """Take what is named and not held yet; yield what another Service holds."""
        key = self._service.key
        for field, name, number, protocol, is_wanted in self._fields():
            if not number:
                if is_wanted:
                    self.open[field] = name
                continue
            holder = holders.setdefault((number, protocol), key)
            if holder == key:
                self._numbers[field] = number
            else:
                yield self._conflict(field, f"{number}/{protocol} is already used by {holder}")

    def take_given(self, given: Mapping[str, int]) -> Iterable[Conflict]:
        """Take what the pool gave; yield what it had no number for."""
        for field, name in self.open.items():
            if name in given:
                self._numbers[field] = given[name]
            else:
                yield self._conflict(field, _LEFT)

    def settled(self) -> Service:
        """Return the Service with its numbers; the same object where nothing changed."""
        service, numbers = self._service, self._numbers
        ports = tuple(
            port if port.node_port == number else replace(port, node_port=number)
            for i, port in enumerate(service.ports)
            for number in (numbers.get(_field(i), 0),)
        )
        health = numbers.get(_HEALTH, 0)
        is_same = ports == service.ports and health == service.health_check_node_port
        if is_same and not self._notes:
            return service
        notes = (*service.notes, *self._notes)
        return replace(service, ports=ports, health_check_node_port=health, notes=notes)

    def _fields(self) -> Iterable[tuple[str, str, int, str, bool]]:
        """Yield field, name to keep it under, number named, protocol, whether one is wanted."""
        service, is_wanted = self._service, self._written.wants_node_ports
        for i, port in enumerate(service.ports):
            number = port.node_port or (is_wanted and self._shared(port)) or 0
            yield _field(i), f"{service.key}:{port.port}", number, port.protocol, is_wanted
        is_wanted = self._written.wants_health_check_node_port
        yield _HEALTH, f"{service.key}:health", service.health_check_node_port, "TCP", is_wanted

    def _shared(self, port: ServicePort) -> int:
        """Return what another port of the same number names."""
        named = (p.node_port for p in self._service.ports if p.port == port.port and p.node_port)
        return next(named, 0)

    def _conflict(self, field: str, problem: str) -> Conflict:
        self._notes.append(f"{field}: {problem}")
        return Conflict(self._service.key, f"{field}: {problem}")


_HEALTH = "spec.healthCheckNodePort"


def _field(index: int) -> str:
    return f"spec.ports[{index}].nodePort"
