"""Lists the targets of a name: addresses and ports, created only when picked."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from ..model import Endpoint, Frontend, Protocol, ServicePort, SocketAddress
from .endpoints import Endpoints
from .question import hostname_of

DialledAddress = Callable[[Frontend], SocketAddress]
"""Returns the address at which a cluster IP's frontend answers."""
Pick = Callable[[int], Sequence[int]]
"""Returns the positions to use, each once, given the number of positions."""


class NamedPort(NamedTuple):
    """The target of an SRV record."""

    owner: str
    port: int


class NamedAddress(NamedTuple):
    """An address of a name that SRV records point to."""

    owner: str
    ip: str


class Targets:
    """The targets of a name; this base class is for a name without records, but with subdomains."""

    alias: str = ""
    """The name for which this name is an alias; empty if it isn't an alias."""

    def __len__(self) -> int:
        """Return the number of pairs of address and port, which CoreDNS uses for weights."""
        return 0

    def count_ports(self) -> int:
        """Return the number of positions of :meth:`ports_at`."""
        return 0

    def ports_at(self, position: int) -> Sequence[NamedPort]:
        """Return a position's name and port; several if its ports have different numbers."""
        raise IndexError(position)

    def addresses(self, _pick: Pick) -> Sequence[NamedAddress]:
        """Return as many addresses of the names from :meth:`ports_at` as ``pick`` picks."""
        return ()

    def ips(self, _pick: Pick, *, is_ipv6: bool) -> Sequence[str]:
        """Return the addresses of a family, each once.

        Args:
            pick: Limits the targets if their addresses must be looked up one by one. The first
                targets are taken, so that equal questions get equal answers.
        """
        del is_ipv6
        return ()


class Alias(Targets):
    """The external name of a Service of type ExternalName."""

    def __init__(self, name: str) -> None:
        self.alias = name


class EndpointTargets(Targets):
    """Endpoints of a Service, each with a name, which several endpoints may share."""

    def __init__(self, service_name: str, endpoints: Endpoints) -> None:
        self._service_name = service_name
        self._endpoints = endpoints

    def __len__(self) -> int:
        return len(self._endpoints)

    def count_ports(self) -> int:
        return len(self._endpoints.named)

    def ports_at(self, position: int) -> Sequence[NamedPort]:
        endpoint, number = self._endpoints.named.at(position)
        return [NamedPort(self._owner(endpoint), number)]

    def addresses(self, pick: Pick) -> Sequence[NamedAddress]:
        endpoints = self._endpoints.with_ports
        chosen = (endpoints[i] for i in pick(len(endpoints)))
        return [NamedAddress(self._owner(each), each.ip) for each in chosen]

    def ips(self, _pick: Pick, *, is_ipv6: bool) -> Sequence[str]:
        return self._endpoints.ips(is_ipv6=is_ipv6)

    def _owner(self, endpoint: Endpoint) -> str:
        return f"{hostname_of(endpoint.ip, endpoint.hostname)}.{self._service_name}"


class PortTargets(Targets):
    """The ports of a Service on its cluster IPs, or on the addresses dialled instead of these.

    Args:
        ports: The ports, grouped by number.
        count: The number of ports.
    """

    def __init__(
        self,
        owner: str,
        ports: Sequence[Sequence[ServicePort]],
        count: int,
        ips: Sequence[str],
        dialled_address: DialledAddress | None,
    ) -> None:
        self._owner = owner
        self._ports = ports
        self._count = count
        self._ips = ips
        self._dialled_address = dialled_address

    def __len__(self) -> int:
        return self._count * len(self._ips)

    def count_ports(self) -> int:
        return len(self._ports) if self._ips else 0

    def ports_at(self, position: int) -> Sequence[NamedPort]:
        reached = dict.fromkeys(number for _, number in self._at(position))
        return [NamedPort(self._owner, number) for number in reached]

    def addresses(self, pick: Pick) -> Sequence[NamedAddress]:
        return [NamedAddress(self._owner, ip) for ip in self._all_ips(pick)]

    def ips(self, pick: Pick, *, is_ipv6: bool) -> Sequence[str]:
        """Return addresses; with a ``dialled_address``, only the addresses of the first ports."""
        return [ip for ip in self._all_ips(pick) if (":" in ip) is is_ipv6]

    def _all_ips(self, pick: Pick) -> Iterable[str]:
        if self._dialled_address is None:
            return dict.fromkeys(self._ips)
        looked_up = range(len(pick(self.count_ports())))
        return dict.fromkeys(ip for position in looked_up for ip, _ in self._at(position))

    def _at(self, position: int) -> Iterator[tuple[str, int]]:
        """Yield the addresses to dial for the ports at a position, which share one number."""
        for port, ip in itertools.product(self._ports[position], self._ips):
            if self._dialled_address is None or port.protocol not in Protocol.__members__:
                yield ip, port.port
            else:
                yield self._dialled_address(Frontend(ip, port.port, Protocol(port.protocol)))


class EachTargets(Targets):
    """A Service whose endpoints are Services: its own address, and a name for each endpoint."""

    def __init__(self, whole: Targets, parts: Sequence[Targets]) -> None:
        self._whole = whole
        self._parts = parts

    def __len__(self) -> int:
        return sum(map(len, self._parts)) or len(self._whole)

    def count_ports(self) -> int:
        return sum(part.count_ports() for part in self._parts)

    def ports_at(self, position: int) -> Sequence[NamedPort]:
        for part in self._parts:
            if position < part.count_ports():
                return part.ports_at(position)
            position -= part.count_ports()
        raise IndexError(position)

    def addresses(self, pick: Pick) -> Sequence[NamedAddress]:
        found = [each for part in self._parts for each in part.addresses(pick)]
        return [found[i] for i in pick(len(found))]

    def ips(self, pick: Pick, *, is_ipv6: bool) -> Sequence[str]:
        return self._whole.ips(pick, is_ipv6=is_ipv6)


def pod_target(owner: str, ip: str) -> Targets:
    """Return the target for a pod's name: the pod's address, with a placeholder for a port."""
    return PortTargets(owner, [[ServicePort("", 0, "")]], 1, [ip], None)
