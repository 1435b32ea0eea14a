"""The ports and ready endpoints of one Service, found without going through all of them.

    _http._tcp ──▶ slices' ports of that name ──▶ endpoints × port numbers ──▶ each name and
    web-0      ──▶ endpoints of that label    ──▶ endpoints × port numbers     number once

Rule 1: an index is made when it is first needed, once for each state of the Service. After that a
question costs as much as its answer, whatever number of endpoints and ports the Service has.
Rule 2: an endpoint's name is its hostname or made of its address, so several may have one name.
"""

from __future__ import annotations

import bisect
import functools
import itertools
from collections.abc import Mapping, Sequence, Set
from typing import NamedTuple, TypeVar

from ..cluster import ServiceState
from ..model import Endpoint, ServicePort, SlicePort
from .question import hostname_of

# Comparing as many takes 1 to 18 ms. Of more, some may be listed once for each of several slices
# with different ports; with up to 14 such slices an answer of 64 KiB can't contain all anyway.
_COMPARED_MAX = 32_768
# Ports of slices for which names are found: two lists of 20,000, the most of a slice, as while
# target ports change. All take 0.2 s; of 100 such lists they took 8 s and 0.3 GiB.
_PORTS_MAX = 40_000
# What is derived from the endpoints of fewer takes 3 ms at most, and memory for each name.
_REMEMBERED_FROM = 1000

_Asked = tuple[str, str]
"""Name and protocol of a port in lower case; an empty one is any."""
_Port = TypeVar("_Port", ServicePort, SlicePort)


class SamePorts(NamedTuple):
    """Endpoints with the same ports."""

    endpoints: Sequence[Endpoint]
    numbers: Sequence[int]
    """Of the ports, each once; none: an SRV record can't name them."""
    port_count: int
    """As CoreDNS counts them: 1 without ports."""


_Groups = Mapping[str | _Asked, Sequence[SamePorts]]


class Endpoints:
    """Endpoints with their port numbers."""

    def __init__(self, groups: Sequence[SamePorts]) -> None:
        self._groups = groups
        self._length = sum(len(group.endpoints) * group.port_count for group in groups)

    def __len__(self) -> int:
        """Return how many pairs of endpoint and port there are."""
        return self._length

    def ips(self, *, is_ipv6: bool) -> Sequence[str]:
        """Return the addresses of a family, each once."""
        return self._ips[is_ipv6]

    @functools.cached_property
    def named(self) -> NamedPorts:
        return NamedPorts(_each_once([group for group in self._groups if group.numbers]))

    @functools.cached_property
    def with_ports(self) -> Sequence[Endpoint]:
        """Endpoints that have ports, each name and address once."""
        listed = itertools.chain.from_iterable(g.endpoints for g in self._groups if g.numbers)
        return list({(_name_of(each), each.ip): each for each in listed}.values())

    @functools.cached_property
    def _ips(self) -> tuple[Sequence[str], Sequence[str]]:
        ips = dict.fromkeys(each.ip for group in self._groups for each in group.endpoints)
        return [ip for ip in ips if ":" not in ip], [ip for ip in ips if ":" in ip]


class NamedPorts:
    """The names of endpoints, each once with each of its port numbers.

    Args:
        groups: One endpoint of each name, with the numbers of that name.
    """

    def __init__(self, groups: Sequence[tuple[Sequence[Endpoint], Sequence[int]]]) -> None:
        self._groups = groups
        counts = (len(endpoints) * len(numbers) for endpoints, numbers in groups)
        self._ends = list(itertools.accumulate(counts))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def at(self, position: int) -> tuple[Endpoint, int]:
        """Return an endpoint of a name and a number; the position is below the length."""
        group = bisect.bisect_right(self._ends, position)
        endpoints, numbers = self._groups[group]
        endpoint, number = divmod(position - (self._ends[group - 1] if group else 0), len(numbers))
        return endpoints[endpoint], numbers[number]


class NamedEndpoints:
    """The ports and ready endpoints of one Service, by what may be asked for."""

    def __init__(self, state: ServiceState) -> None:
        self.state = state
        # By whether a name and a protocol are asked for.
        self._ports: dict[tuple[bool, bool], Mapping[_Asked, Sequence[ServicePort]]] = {}
        self._by_number: dict[_Asked, Sequence[Sequence[ServicePort]]] = {}
        self._by_port: dict[tuple[bool, bool], _Groups] = {}
        self._found: dict[str | _Asked, Endpoints] = {}

    def ports(self, name: str, protocol: str) -> Sequence[ServicePort]:
        """Return the Service's own ports; an empty name or protocol matches any."""
        form = bool(name), bool(protocol)
        if form not in self._ports:
            self._ports[form] = _by_port(self.state.service.ports, form)
        return self._ports[form].get((name, protocol), ())

    def ports_by_number(self, name: str, protocol: str) -> Sequence[Sequence[ServicePort]]:
        """Return the same ports, those with one number together."""
        found = self._by_number.get((name, protocol))
        if found is None:
            by_number: dict[int, list[ServicePort]] = {}
            for port in self.ports(name, protocol):
                by_number.setdefault(port.port, []).append(port)
            found = list(by_number.values())
            if found:
                self._by_number[name, protocol] = found
        return found

    def endpoints(self, port: str = "", protocol: str = "") -> Endpoints:
        """Return the endpoints that have a port; an empty name or protocol matches any."""
        form = bool(port), bool(protocol)
        if form not in self._by_port:
            self._by_port[form] = self._groups_by_port(form)
        return self._of((port, protocol), self._by_port[form])

    def labelled(self, label: str) -> Endpoints:
        """Return the endpoints whose names begin with a label, in lower case."""
        return self._of(label, self._by_label)

    def _of(self, asked: str | _Asked, groups: _Groups) -> Endpoints:
        """Return endpoints by what was asked for; only what exists is remembered."""
        found = self._found.get(asked)
        if found is None:
            some = groups.get(asked, ())
            found = Endpoints(some)
            is_port = isinstance(asked, tuple)
            if some and (is_port or sum(len(g.endpoints) for g in some) >= _REMEMBERED_FROM):
                self._found[asked] = found
        return found

    @functools.cached_property
    def _groups(self) -> Sequence[tuple[Sequence[Endpoint], Sequence[SlicePort]]]:
        """The ready endpoints of all slices with the same ports together.

        Those with further ports than as many as are used are as if they had none.
        """
        groups: dict[Sequence[SlicePort], list[Endpoint]] = {}
        left = _PORTS_MAX
        for item in self.state.slices:
            ready = [endpoint for endpoint in item.endpoints if endpoint.ready]
            if not ready:
                continue
            # Comparing long lists takes as long as all else: once is enough.
            same = groups.get(item.ports)
            if same is None:
                ports = item.ports if len(item.ports) <= left else ()
                left -= len(ports)
                same = groups.setdefault(ports, [])
            same.extend(ready)
        return [(endpoints, ports) for ports, endpoints in groups.items()]

    def _groups_by_port(self, form: tuple[bool, bool]) -> _Groups:
        found: dict[str | _Asked, list[SamePorts]] = {}
        for endpoints, ports in self._groups:
            for asked, matching in _by_port(ports, form).items():
                found.setdefault(asked, []).append(_group(endpoints, matching))
            if not ports and form == (False, False):
                found.setdefault(("", ""), []).append(_group(endpoints, ()))
        return found

    @functools.cached_property
    def _by_label(self) -> _Groups:
        found: dict[str | _Asked, list[SamePorts]] = {}
        for endpoints, ports in self._groups:
            whole = _group((), ports)
            by_label: dict[str, list[Endpoint]] = {}
            for endpoint in endpoints:
                by_label.setdefault(_name_of(endpoint).lower(), []).append(endpoint)
            for label, some in by_label.items():
                found.setdefault(label, []).append(whole._replace(endpoints=some))
        return found


def _group(endpoints: Sequence[Endpoint], ports: Sequence[SlicePort]) -> SamePorts:
    return SamePorts(
        endpoints, list(dict.fromkeys(port.port for port in ports)), max(1, len(ports))
    )


def _name_of(endpoint: Endpoint) -> str:
    return hostname_of(endpoint.ip, endpoint.hostname)


def _each_once(
    groups: Sequence[SamePorts],
) -> Sequence[tuple[Sequence[Endpoint], Sequence[int]]]:
    """Return one endpoint of each name, with the numbers that no group before it has."""
    found = [({_name_of(each): each for each in one.endpoints}, one.numbers) for one in groups]
    if sum(len(named) * len(numbers) for named, numbers in found) > _COMPARED_MAX:
        return [([*named.values()], numbers) for named, numbers in found]
    rest: list[tuple[Sequence[Endpoint], Sequence[int]]] = []
    known: dict[str, Set[int]] = {}
    for named, numbers in found:
        all_numbers = frozenset(numbers)
        parts: dict[frozenset[int], list[Endpoint]] = {}
        for name, endpoint in named.items():
            before = known.setdefault(name, all_numbers)
            new = all_numbers if before is all_numbers else all_numbers - before
            parts.setdefault(new, []).append(endpoint)
            if before is not all_numbers:
                known[name] = before = before if isinstance(before, set) else set(before)
                before |= new
        for new, some in parts.items():
            is_all = len(new) == len(numbers)
            rest.append((some, numbers if is_all else [each for each in numbers if each in new]))
    return rest


def _by_port(ports: Sequence[_Port], form: tuple[bool, bool]) -> Mapping[_Asked, Sequence[_Port]]:
    """Return ports by what has to be asked for to find them."""
    has_name, has_protocol = form
    found: dict[_Asked, list[_Port]] = {}
    for port in ports:
        name = port.name.lower() if has_name else ""
        protocol = port.protocol.lower() if has_protocol else ""
        found.setdefault((name, protocol), []).append(port)
    return found
