"""Finds ports and ready endpoints of one Service by name, without a scan.

    _http._tcp ──▶ slices' ports of that name ──▶ endpoints × port numbers ──▶ each name and
    web-0      ──▶ endpoints of that label    ──▶ endpoints × port numbers     number once

Rule 1: endpoints are indexed per run of slices, so a change re-indexes only the changed runs. After
that, the cost of a question is proportional to its answer, plus one look-up per run.
Rule 2: an endpoint's name is its hostname, or derived from its address, so several endpoints may
share a name.
"""

from __future__ import annotations

import bisect
import functools
import itertools
from collections.abc import Callable, Hashable, Mapping, Sequence, Set
from hashlib import blake2b
from typing import NamedTuple, TypeVar

from ..cluster import ServiceState, Slices
from ..model import Endpoint, EndpointSlice, ServicePort, SlicePort
from .question import hostname_of, keys_of_label

# The maximum number of endpoints among which duplicates are removed, in 1 to 5 ms. If there are
# more, an endpoint may be listed several times, once per run of slices.
_COMPARED_MAX = 8_192
AT_ONCE = 4_096
"""The maximum number of endpoints or ports that a question reads without ``prepare``, in 5 ms."""
# The maximum number of ports of slices that are indexed by name: two lists of 20,000 (a slice's
# maximum), which may exist while target ports change. They take 0.2 s; 100 such lists took 8 s and
# 0.3 GiB.
_PORTS_MAX = 40_000
# The minimum number of endpoints of a cached result: smaller results take about 10 µs to derive,
# and each cached name takes memory.
_REMEMBERED_FROM = 10

_Asked = tuple[str, str]
"""The name and protocol of a port, in lower case; an empty string matches any."""
_Port = TypeVar("_Port", ServicePort, SlicePort)
_T = TypeVar("_T")


class Ready:
    """Ready endpoints of one run of slices, all with the same ports.

    Args:
        ports_id: A digest of the ports, of which there may be 20,000.
    """

    __slots__ = ("by_label", "each_name", "endpoints", "ips", "ports", "ports_id")

    def __init__(
        self,
        endpoints: Sequence[Endpoint],
        ports: tuple[SlicePort, ...] = (),
        ports_id: bytes = b"",
    ) -> None:
        self.endpoints = endpoints
        self.ports = ports
        self.ports_id = ports_id
        ips = dict.fromkeys(each.ip for each in endpoints)
        self.ips = [ip for ip in ips if ":" not in ip], [ip for ip in ips if ":" in ip]
        """IPv4 addresses and IPv6 addresses, each once."""
        self.each_name = list({each.hostname or each.ip: each for each in endpoints}.values())
        """One endpoint per name."""
        self.by_label: dict[str, Endpoint | Ready | list[Endpoint]] = {}
        """Endpoints by lower-case hostname, or else by address; filled by :func:`read_run`."""

    def labelled(self, key: str, label: str) -> Ready | None:
        """Return the endpoints under a key of ``by_label``; None if their label differs."""
        found = self.by_label[key]
        if not isinstance(found, Ready):
            some = [found] if isinstance(found, Endpoint) else found
            found = Ready(some, self.ports, self.ports_id)
        return found if _name_of(found.endpoints[0]).lower() == label else None


class ReadyRun(NamedTuple):
    """The ready endpoints of one run of slices."""

    parts: Sequence[Ready]
    by_label: Mapping[str, Sequence[Ready]]
    """By key, the parts that contain endpoints with this key; empty if there is only one part."""


def read_run(slices: Sequence[EndpointSlice]) -> ReadyRun:
    """Return the ready endpoints of a run."""
    groups: dict[tuple[SlicePort, ...], list[Endpoint]] = {}
    for item in slices:
        if ready := [endpoint for endpoint in item.endpoints if endpoint.ready]:
            groups.setdefault(item.ports, []).extend(ready)
    parts: list[Ready] = []
    by_label: dict[str, list[Ready]] = {}
    for ports, endpoints in groups.items():
        part = Ready(endpoints, ports, blake2b(ascii(ports).encode(), digest_size=16).digest())
        parts.append(part)
        labels: dict[str, list[Endpoint]] = {}
        for each in endpoints:
            labels.setdefault(each.hostname.lower() or each.ip, []).append(each)
        for key, some in labels.items():
            is_large = len(some) >= _REMEMBERED_FROM
            large = Ready(some, ports, part.ports_id) if is_large else some
            part.by_label[key] = large if len(some) > 1 else some[0]
            if len(groups) > 1:
                by_label.setdefault(key, []).append(part)
    return ReadyRun(parts, by_label)


class SamePorts(NamedTuple):
    """Endpoints with the same ports."""

    parts: Sequence[Ready]
    numbers: Sequence[int]
    """Port numbers, each once; empty if no SRV record can name the ports."""
    port_count: int
    """The number of ports as CoreDNS counts them: 1 if there are none."""


_Groups = Mapping[_Asked, Sequence[SamePorts]]


class Endpoints:
    """Endpoints with their port numbers."""

    def __init__(self, groups: Sequence[SamePorts]) -> None:
        self._groups = groups
        counts = (len(part.endpoints) * one.port_count for one in groups for part in one.parts)
        self._length = sum(counts)

    def __len__(self) -> int:
        """Return the number of pairs of endpoint and port."""
        return self._length

    def ips(self, *, is_ipv6: bool) -> Sequence[str]:
        """Return the addresses of a family; beyond ``_COMPARED_MAX``, they may be repeated."""
        return self._ips[is_ipv6]

    @functools.cached_property
    def named(self) -> NamedPorts:
        """The names of endpoints with their port numbers."""
        return NamedPorts(_numbered([group for group in self._groups if group.numbers]))

    @functools.cached_property
    def with_ports(self) -> Sequence[Endpoint]:
        """The endpoints with ports, each name and address once up to ``_COMPARED_MAX``."""
        parts = [part.endpoints for one in self._groups if one.numbers for part in one.parts]
        return _each_once(parts, lambda each: (_name_of(each), each.ip))

    @functools.cached_property
    def _ips(self) -> tuple[Sequence[str], Sequence[str]]:
        parts = [part.ips for one in self._groups for part in one.parts]
        v4, v6 = ([ips[is_ipv6] for ips in parts] for is_ipv6 in (False, True))
        return _each_once(v4, str), _each_once(v6, str)


class NamedPorts:
    """The names of endpoints, once for each of their port numbers.

    Args:
        groups: One endpoint per name, with the port numbers of that name.
    """

    def __init__(self, groups: Sequence[tuple[Sequence[Endpoint], Sequence[int]]]) -> None:
        self._groups = groups
        counts = (len(endpoints) * len(numbers) for endpoints, numbers in groups)
        self._ends = list(itertools.accumulate(counts))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def at(self, position: int) -> tuple[Endpoint, int]:
        """Return an endpoint and a port number by position, from 0."""
        group = bisect.bisect_right(self._ends, position)
        endpoints, numbers = self._groups[group]
        endpoint, number = divmod(position - (self._ends[group - 1] if group else 0), len(numbers))
        return endpoints[endpoint], numbers[number]


class NamedEndpoints:
    """The ports and ready endpoints of one Service, indexed for every kind of question."""

    def __init__(self, state: ServiceState) -> None:
        self.state = state
        # The outer keys state whether the question has a name and a protocol.
        self._ports: dict[tuple[bool, bool], Mapping[_Asked, Sequence[ServicePort]]] = {}
        self._by_number: dict[_Asked, Sequence[Sequence[ServicePort]]] = {}
        self._by_port: dict[tuple[bool, bool], _Groups] = {}
        self._found: dict[str | _Asked, Endpoints] = {}
        self._wholes: dict[bytes, SamePorts] = {}

    def is_ready(self, port: str, protocol: str, label: str) -> bool:
        """Return whether a question takes at most a few milliseconds without ``prepare``."""
        runs = Slices.of(self.state.slices).runs
        new = (run.weight for run in runs if len(runs) > 1 and read_run not in run.derived)
        if sum(new) > AT_ONCE:
            return False
        is_made = bool(label) or (bool(port), bool(protocol)) in self._by_port
        return is_made or sum(len(ports) for _, ports in self._groups.values()) <= AT_ONCE

    def ports(self, name: str, protocol: str) -> Sequence[ServicePort]:
        """Return the Service's own ports; an empty name or protocol matches any."""
        form = bool(name), bool(protocol)
        if form not in self._ports:
            self._ports[form] = _by_port(self.state.service.ports, form)
        return self._ports[form].get((name, protocol), ())

    def ports_by_number(self, name: str, protocol: str) -> Sequence[Sequence[ServicePort]]:
        """Return the result of :meth:`ports`, grouped by port number."""
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
        """Return the endpoints with a given port; an empty name or protocol matches any."""
        form = bool(port), bool(protocol)
        if form not in self._by_port:
            self._by_port[form] = self._groups_by_port(form)
        return self._of((port, protocol), self._by_port[form].get((port, protocol), ()))

    def labelled(self, label: str) -> Endpoints:
        """Return the endpoints whose names begin with a label, in lower case."""
        if label in self._found:
            return self._found[label]
        keys = keys_of_label(label)
        found = (
            part.labelled(key, label)
            for run in self._read
            for key in keys
            for part in (run.by_label.get(key, ()) if len(run.parts) > 1 else run.parts)
            if key in part.by_label
        )
        some = [one for one in found if one is not None]
        return self._of(label, [self._whole(one.ports_id)._replace(parts=[one]) for one in some])

    def _of(self, asked: str | _Asked, groups: Sequence[SamePorts]) -> Endpoints:
        """Return the endpoints for a question; only results for existing names are cached."""
        found = self._found.get(asked)
        if found is None:
            found = Endpoints(groups)
            if groups and (isinstance(asked, tuple) or len(found) >= _REMEMBERED_FROM):
                self._found[asked] = found
        return found

    @functools.cached_property
    def _read(self) -> Sequence[ReadyRun]:
        return Slices.of(self.state.slices).derive(read_run)

    @functools.cached_property
    def _groups(self) -> Mapping[bytes, tuple[list[Ready], Sequence[SlicePort]]]:
        """The ready endpoints of all slices, grouped by equal ports.

        Beyond ``_PORTS_MAX`` ports, endpoints are treated as having no ports.
        """
        groups: dict[bytes, tuple[list[Ready], Sequence[SlicePort]]] = {}
        left = _PORTS_MAX
        for part in itertools.chain.from_iterable(run.parts for run in self._read):
            if part.ports_id not in groups:
                ports = part.ports if len(part.ports) <= left else ()
                left -= len(ports)
                groups[part.ports_id] = [], ports
            groups[part.ports_id][0].append(part)
        return groups

    def _whole(self, ports_id: bytes) -> SamePorts:
        if ports_id not in self._wholes:
            self._wholes[ports_id] = _group(*self._groups[ports_id])
        return self._wholes[ports_id]

    def _groups_by_port(self, form: tuple[bool, bool]) -> _Groups:
        found: dict[_Asked, list[SamePorts]] = {}
        for parts, ports in self._groups.values():
            for asked, matching in _by_port(ports, form).items():
                found.setdefault(asked, []).append(_group(parts, matching))
            if not ports and form == (False, False):
                found.setdefault(("", ""), []).append(_group(parts, ()))
        return found


def _group(parts: Sequence[Ready], ports: Sequence[SlicePort]) -> SamePorts:
    return SamePorts(parts, list(dict.fromkeys(port.port for port in ports)), max(1, len(ports)))


def _name_of(endpoint: Endpoint) -> str:
    return hostname_of(endpoint.ip, endpoint.hostname)


def _each_once(parts: Sequence[Sequence[_T]], identity: Callable[[_T], Hashable]) -> Sequence[_T]:
    """Return the items of all parts, without duplicates unless there are too many items."""
    all_parts = list(itertools.chain.from_iterable(parts))
    if len(all_parts) > _COMPARED_MAX:
        return all_parts
    return list({identity(one): one for one in all_parts}.values())


def _numbered(groups: Sequence[SamePorts]) -> Sequence[tuple[Sequence[Endpoint], Sequence[int]]]:
    """Return one endpoint per name, with port numbers that no earlier group has for the name."""
    count = sum(len(part.each_name) * len(one.numbers) for one in groups for part in one.parts)
    if count > _COMPARED_MAX:
        return [(part.each_name, one.numbers) for one in groups for part in one.parts]
    found = [
        ({_name_of(each): each for part in one.parts for each in part.each_name}, one.numbers)
        for one in groups
    ]
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
    """Index ports by name and protocol; ``form`` states which of them the key contains."""
    has_name, has_protocol = form
    found: dict[_Asked, list[_Port]] = {}
    for port in ports:
        name = port.name.lower() if has_name else ""
        protocol = port.protocol.lower() if has_protocol else ""
        found.setdefault((name, protocol), []).append(port)
    return found
