"""The ports and ready endpoints of one Service, found without going through all of them.

    _http._tcp ──▶ slices' ports of that name ──▶ endpoints × port numbers
    web-0      ──▶ endpoints of that label    ──▶ endpoints × port numbers

Rule 1: an index is made when it is first needed, once for each state of the Service. After that a
question costs as much as its answer, whatever number of endpoints and ports the Service has.
"""

from __future__ import annotations

import bisect
import functools
import itertools
from collections.abc import Mapping, Sequence
from typing import TypeVar

from ..cluster import ServiceState
from ..model import Endpoint, ServicePort, SlicePort
from .question import hostname_of

# A slice without ports has addresses, but nothing that an SRV record could name.
_NO_PORT = (None,)

_Asked = tuple[str, str]
"""Name and protocol of a port in lower case; an empty one is any."""
_Numbers = Sequence[int | None]
_Groups = Mapping[str | _Asked, Sequence[tuple[Sequence[Endpoint], _Numbers]]]
_Port = TypeVar("_Port", ServicePort, SlicePort)


class Endpoints:
    """Endpoints, each once for each of its port numbers.

    Args:
        groups: Endpoints with the same port numbers; None is the number if they have no ports.
    """

    def __init__(self, groups: Sequence[tuple[Sequence[Endpoint], _Numbers]]) -> None:
        self._groups = groups
        counts = (len(endpoints) * len(numbers) for endpoints, numbers in self._groups)
        self._ends = list(itertools.accumulate(counts))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def at(self, position: int) -> tuple[Endpoint, int | None]:
        """Return an endpoint and a port number; the position is below the length."""
        group = bisect.bisect_right(self._ends, position)
        endpoints, numbers = self._groups[group]
        endpoint, number = divmod(position - (self._ends[group - 1] if group else 0), len(numbers))
        return endpoints[endpoint], numbers[number]

    def ips(self, *, is_ipv6: bool) -> Sequence[str]:
        """Return the addresses of a family, each once."""
        return self._ips[is_ipv6]

    @functools.cached_property
    def _ips(self) -> tuple[Sequence[str], Sequence[str]]:
        ips = dict.fromkeys(e.ip for endpoints, _ in self._groups for e in endpoints)
        return [ip for ip in ips if ":" not in ip], [ip for ip in ips if ":" in ip]


class NamedEndpoints:
    """The ports and ready endpoints of one Service, by what may be asked for."""

    def __init__(self, state: ServiceState) -> None:
        self.state = state
        # By whether a name and a protocol are asked for.
        self._ports: dict[tuple[bool, bool], Mapping[_Asked, Sequence[ServicePort]]] = {}
        self._by_port: dict[tuple[bool, bool], _Groups] = {}
        self._found: dict[str | _Asked, Endpoints] = {}

    def ports(self, name: str, protocol: str) -> Sequence[ServicePort]:
        """Return the Service's own ports; an empty name or protocol matches any."""
        form = bool(name), bool(protocol)
        if form not in self._ports:
            self._ports[form] = _by_port(self.state.service.ports, form)
        return self._ports[form].get((name, protocol), ())

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
            found = Endpoints(groups.get(asked, ()))
            if len(found):
                self._found[asked] = found
        return found

    @functools.cached_property
    def _groups(self) -> Sequence[tuple[Sequence[Endpoint], Sequence[SlicePort]]]:
        """The ready endpoints of all slices with the same ports together."""
        groups: dict[Sequence[SlicePort], list[Endpoint]] = {}
        for item in self.state.slices:
            ready = [endpoint for endpoint in item.endpoints if endpoint.ready]
            if ready:
                groups.setdefault(item.ports, []).extend(ready)
        return [(endpoints, ports) for ports, endpoints in groups.items()]

    def _groups_by_port(self, form: tuple[bool, bool]) -> _Groups:
        found: dict[str | _Asked, list[tuple[Sequence[Endpoint], _Numbers]]] = {}
        for endpoints, ports in self._groups:
            for asked, matching in _by_port(ports, form).items():
                numbers = [port.port for port in matching]
                found.setdefault(asked, []).append((endpoints, numbers))
            if not ports and form == (False, False):
                found.setdefault(("", ""), []).append((endpoints, _NO_PORT))
        return found

    @functools.cached_property
    def _by_label(self) -> _Groups:
        found: dict[str | _Asked, list[tuple[list[Endpoint], _Numbers]]] = {}
        for endpoints, ports in self._groups:
            numbers = [port.port for port in ports] or _NO_PORT
            for endpoint in endpoints:
                label = hostname_of(endpoint.ip, endpoint.hostname).lower()
                groups = found.setdefault(label, [])
                if not groups or groups[-1][1] is not numbers:
                    groups.append(([], numbers))
                groups[-1][0].append(endpoint)
        return found


def _by_port(ports: Sequence[_Port], form: tuple[bool, bool]) -> Mapping[_Asked, Sequence[_Port]]:
    """Return ports by what has to be asked for to find them."""
    has_name, has_protocol = form
    found: dict[_Asked, list[_Port]] = {}
    for port in ports:
        name = port.name.lower() if has_name else ""
        protocol = port.protocol.lower() if has_protocol else ""
        found.setdefault((name, protocol), []).append(port)
    return found
