"""What a name stands for: addresses and ports, each made when it is picked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from ..model import Frontend, Protocol, ServicePort, SocketAddress
from .endpoints import Endpoints
from .question import hostname_of

Reach = Callable[[Frontend], SocketAddress]
"""Returns the address at which a frontend of a cluster IP answers."""
Pick = Callable[[int], Sequence[int]]
"""Returns the positions to use, each once, of as many as there are."""


class NamedAddress(NamedTuple):
    """An address and port."""

    owner: str
    """The name that SRV records point to."""
    ip: str
    port: int | None
    """None: the endpoint's slice has no port."""


class Targets:
    """What a name stands for; without more it is only that other names are below it."""

    alias: str = ""
    """Another name that it stands for; empty: none."""
    ips_of_each: int = 1
    """How many addresses a target has."""

    def __len__(self) -> int:
        return 0

    def at(self, position: int) -> Sequence[NamedAddress]:
        """Return the addresses of one target; the position is below the length."""
        raise IndexError(position)

    def ips(self, _pick: Pick, *, is_ipv6: bool) -> Sequence[str]:
        """Return the addresses of a family, each once.

        Args:
            pick: Bounds the number of targets where addresses have to be found for each: the
                first ones, so that answers to equal questions are equal.
        """
        del is_ipv6
        return ()


class Alias(Targets):
    """The name that a Service of type ExternalName has."""

    def __init__(self, name: str) -> None:
        self.alias = name


class PodTarget(Targets):
    """The address in the name of a pod."""

    def __init__(self, owner: str, ip: str) -> None:
        self._target = NamedAddress(owner, ip, 0)

    def __len__(self) -> int:
        return 1

    def at(self, position: int) -> Sequence[NamedAddress]:
        """Part of Targets."""
        return [(self._target,)[position]]

    def ips(self, _pick: Pick, *, is_ipv6: bool) -> Sequence[str]:
        """Part of Targets."""
        return [self._target.ip] if (":" in self._target.ip) is is_ipv6 else []


class EndpointTargets(Targets):
    """Endpoints of a Service, each with a name of its own."""

    def __init__(self, service_name: str, endpoints: Endpoints) -> None:
        self._service_name = service_name
        self._endpoints = endpoints

    def __len__(self) -> int:
        return len(self._endpoints)

    def at(self, position: int) -> Sequence[NamedAddress]:
        """Part of Targets."""
        endpoint, number = self._endpoints.at(position)
        label = hostname_of(endpoint.ip, endpoint.hostname)
        return [NamedAddress(f"{label}.{self._service_name}", endpoint.ip, number)]

    def ips(self, _pick: Pick, *, is_ipv6: bool) -> Sequence[str]:
        """Part of Targets."""
        return self._endpoints.ips(is_ipv6=is_ipv6)


class PortTargets(Targets):
    """The ports of a Service, each at all of its cluster IPs, or where these answer."""

    def __init__(
        self, owner: str, ports: Sequence[ServicePort], ips: Sequence[str], reach: Reach | None
    ) -> None:
        self.ips_of_each = len(ips)
        self._owner = owner
        self._ports = ports
        self._ips = ips
        self._reach = reach

    def __len__(self) -> int:
        return len(self._ports) if self._ips else 0

    def at(self, position: int) -> Sequence[NamedAddress]:
        """Part of Targets."""
        return [self._at(self._ports[position], ip) for ip in self._ips]

    def ips(self, pick: Pick, *, is_ipv6: bool) -> Sequence[str]:
        """Part of Targets; with a ``reach``, the addresses of the first ports."""
        ips: dict[str, None] = dict.fromkeys(self._ips)
        if self._reach is not None:
            ports = range(len(pick(len(self))))
            ips = dict.fromkeys(each.ip for port in ports for each in self.at(port))
        return [ip for ip in ips if (":" in ip) is is_ipv6]

    def _at(self, port: ServicePort, ip: str) -> NamedAddress:
        number = port.port
        if self._reach is not None and port.protocol in Protocol.__members__:
            ip, number = self._reach(Frontend(ip, number, Protocol(port.protocol)))
        return NamedAddress(self._owner, ip, number)
