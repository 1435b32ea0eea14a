"""Services that an embedder adds: a handle per Service, and the objects behind it."""

from __future__ import annotations

import zlib
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

from ..model import (
    Endpoint,
    EndpointSlice,
    IPFamily,
    Protocol,
    Service,
    ServiceKey,
    ServicePort,
    SliceKey,
    SlicePort,
    SocketAddress,
    parse_ip,
)

if TYPE_CHECKING:
    from .proxy import Proxy

# 127.64.0.0/10: loopback addresses that nobody configures, so that every Service of a
# test has one of its own and keeps the port that was asked for.
_FIRST = (127 << 24) | (64 << 16)
_SIZE = 1 << 22


class AddedService:
    """A Service that :meth:`Proxy.add_service` serves."""

    def __init__(self, proxy: Proxy, service: Service) -> None:
        self._proxy = proxy
        self._service = service
        self._was_put = False

    @property
    def key(self) -> ServiceKey:
        """Its namespace and name."""
        return self._service.key

    @property
    def address(self) -> SocketAddress:
        """What to dial: unpacks into host and port.

        Raises:
            LookupError: It isn't served (any more).
        """
        address = self._proxy.address_of(self.key)
        if address is None:
            raise LookupError(f"{self.key} is not served")
        return address

    async def set_endpoints(self, endpoints: Iterable[str]) -> None:
        """Replace its endpoints; in force on return.

        Args:
            endpoints: ``ip:port`` or ``[ip6]:port``; none: clients are refused.

        Raises:
            ValueError: One of them isn't an address.
            TypeError: A text in place of a list of them.
            LookupError: The Service was removed, or replaced by another of its name.
            ListenError: The port can't be had: clients are refused, and it is tried again each
                second, with these endpoints.
        """
        if self._was_put and not self._proxy.has_put(self._service):
            raise LookupError(f"{self.key} was removed or replaced")
        if isinstance(endpoints, str):
            raise TypeError(f"endpoints: expected a list of ip:port, got {endpoints!r}")
        addresses = [parse_address(text) for text in endpoints]
        self._was_put = True
        await self._proxy.put(self._service, make_slices(self._service, addresses))

    async def remove(self) -> None:
        """Stop serving it; open connections go on. One that has replaced it stays. Idempotent."""
        if self._proxy.has_put(self._service):
            await self._proxy.delete(self.key)


def make_service(
    key: ServiceKey,
    port: int,
    protocol: str,
    *,
    cluster_ip: str | None,
    affinity_timeout_s: int | None,
    taken: Collection[str],
    seed: str,
) -> Service:
    """Make a Service with one port.

    Args:
        key: Its namespace and name.
        port: What clients dial.
        protocol: ``TCP`` or ``UDP``.
        cluster_ip: None for a loopback address that isn't taken.
        affinity_timeout_s: None for no affinity.
        taken: Cluster IPs of the other Services.
        seed: Of the proxy: two of them choose different addresses for Services of one name.

    Raises:
        ValueError: One of them can't be.
    """
    if not 1 <= port <= 65535:
        raise ValueError(f"port: {port} is not in 1–65535")
    if protocol not in Protocol.__members__:
        raise ValueError(f"protocol: {protocol!r} is not TCP or UDP")
    ip = parse_ip(cluster_ip) if cluster_ip else _free_loopback(key, taken, seed)
    return Service(
        key,
        (ServicePort("", port, protocol),),
        cluster_ips=(ip,),
        affinity_timeout_s=affinity_timeout_s,
    )


def make_slices(service: Service, addresses: Iterable[SocketAddress]) -> list[EndpointSlice]:
    """Make the slices of a Service: one a family and port number, as slices want it."""
    protocol = service.ports[0].protocol
    groups: dict[tuple[IPFamily, int], list[Endpoint]] = {}
    for address in addresses:
        groups.setdefault((address.family, address.port), []).append(Endpoint(address.ip))
    return [
        EndpointSlice(
            SliceKey(service.key.namespace, f"{service.key.name}-{family.value}-{port}"),
            service.key,
            family,
            (SlicePort("", port, protocol),),
            tuple(endpoints),
        )
        for (family, port), endpoints in groups.items()
    ]


def parse_address(text: str) -> SocketAddress:
    """Read ``ip:port`` or ``[ip6]:port``.

    Raises:
        ValueError: It isn't one; the message says what is wrong.
    """
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not port.isdecimal() or not 1 <= int(port) <= 65535:
        raise ValueError(f"endpoint {text!r}: expected ip:port, with a port in 1–65535")
    return SocketAddress(parse_ip(host), int(port))


def _free_loopback(key: ServiceKey, taken: Collection[str], seed: str) -> str:
    start = zlib.crc32(f"{seed}/{key}".encode())
    for step in range(_SIZE):
        number = _FIRST + (start + step) % _SIZE
        ip = ".".join(str(number >> shift & 255) for shift in (24, 16, 8, 0))
        if ip not in taken and not ip.endswith((".0", ".255")):
            return ip
    raise ValueError("all addresses of 127.64.0.0/10 are in use")
