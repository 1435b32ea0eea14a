"""Implements toxiproxy's API for an embedded proxy: each of toxiproxy's proxies is a Service."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field

from userspace_proxy.embedding.arguments import is_address, read_endpoint
from userspace_proxy.embedding.embedded_proxy import AddedService, EmbeddedProxy
from userspace_proxy.errors import ListenError
from userspace_proxy.model import IPFamily, Protocol, SocketAddress, parse_ip

from .endpoint_faults import EndpointFaults
from .toxics import NamedToxic
from .toxiproxy import ProxyInfo, ToxiproxyApi

_NAMESPACE = "toxiproxy"
_ANY = ("", "localhost", "0.0.0.0", "[::]")
# toxiproxy accepts any name, and most contain underscores, which Service names can't.
_NOT_IN_LABELS = re.compile(r"[^a-z0-9-]+")


@dataclass(slots=True)
class _Made:
    service: AddedService
    upstream: str
    """The upstream address, as given by the client."""
    endpoint: SocketAddress
    listen: SocketAddress
    enabled: bool
    toxics: dict[str, NamedToxic] = field(default_factory=dict)


async def serve_toxiproxy(
    proxy: EmbeddedProxy, faults: EndpointFaults, bind: tuple[str, int]
) -> tuple[str, int]:
    """Serve the API until the proxy stops, and return the address.

    Raises:
        TypeError: ``bind`` isn't an IP address with a port.
        ListenError: The address isn't available.
    """
    if not is_address(bind):
        raise TypeError(f"bind: expected a tuple of IP address and port, got {bind!r}")
    api = ToxiproxyApi(ToxiproxyProxies(proxy, faults))
    proxy.at_end(api.close)
    return await api.serve(bind)


class ToxiproxyProxies:
    """Implements :class:`.ToxiproxyServices`; clients can change only Services that they create."""

    def __init__(self, proxy: EmbeddedProxy, faults: EndpointFaults) -> None:
        self._proxy = proxy
        self._faults = faults
        self._made: dict[str, _Made] = {}
        self._count = 0

    def all(self) -> Sequence[ProxyInfo]:
        return [
            ProxyInfo(name, str(m.listen), m.upstream, m.enabled, tuple(m.toxics.values()))
            for name, m in sorted(self._made.items())
        ]

    async def create(self, name: str, listen: str, upstream: str, *, enabled: bool) -> None:
        self._made[name] = await self._serve(name, listen, upstream, enabled=enabled)

    async def update(
        self, name: str, listen: str | None, upstream: str | None, enabled: bool | None
    ) -> None:
        made = self._made[name]
        upstream = made.upstream if upstream is None else upstream
        enabled = made.enabled if enabled is None else enabled
        if listen is not None and _as_ip(listen) != str(made.listen):
            moved = await self._serve(name, listen, upstream, enabled=enabled)
            await made.service.remove()
            moved.toxics = made.toxics
            self._made[name] = made = moved
        elif upstream != made.upstream:
            endpoint = await _resolved(upstream, made.listen)
            self._faults.remove(made.service.key)
            made.upstream, made.endpoint = upstream, endpoint
        made.enabled = enabled
        if not enabled:
            self._faults.drop_connections(made.service.key)
        await made.service.set_endpoints([made.endpoint] if enabled else [])
        self._lead_through_server(made)

    async def delete(self, name: str) -> None:
        await self._made.pop(name).service.remove()

    def is_at(self, name: str, listen: str, upstream: str) -> bool:
        made = self._made[name]
        return (str(made.listen), made.upstream) == (_as_ip(listen), upstream)

    def set_toxic(self, name: str, toxic: NamedToxic) -> None:
        made = self._made[name]
        made.toxics[toxic.name] = toxic
        self._lead_through_server(made)

    def remove_toxic(self, name: str, toxic: str) -> None:
        made = self._made[name]
        made.toxics.pop(toxic, None)
        self._lead_through_server(made)

    async def _serve(self, name: str, listen: str, upstream: str, *, enabled: bool) -> _Made:
        at = _free(_as_ip(listen))
        for other, made in self._made.items():
            if made.listen == at:
                raise ListenError(f"cannot listen on {at}: proxy {other!r} does")
        endpoint = await _resolved(upstream, at)
        self._count += 1
        service = await self._proxy.add_service(
            _label(name, self._count),
            port=at.port,
            namespace=_NAMESPACE,
            cluster_ip=at.ip,
            endpoints=[endpoint] if enabled else [],
        )
        if (got := service.address) != at:
            # Other Services may fall back to another port, but toxiproxy's clients expect this
            # port.
            await service.remove()
            if got.ip != at.ip:
                raise ListenError(
                    f"cannot listen on {at}: only loopback addresses are served here",
                    hint=f"choose {SocketAddress(got.ip, at.port)}",
                )
            raise ListenError(
                f"cannot listen on {at}: the port is in use, or needs privileges",
                hint="choose another one, or 0",
            )
        made = _Made(service, upstream, endpoint, at, enabled)
        self._lead_through_server(made)
        return made

    def _lead_through_server(self, made: _Made) -> None:
        """Route connections through a server even if there is no toxic yet."""
        key, toxics = made.service.key, list(made.toxics.values())
        self._faults.set_toxics(key, made.endpoint, Protocol.TCP, toxics)


def _label(name: str, number: int) -> str:
    text = _NOT_IN_LABELS.sub("-", name.lower()).strip("-")[:50].strip("-")
    return f"{text or 'proxy'}-{number}"


def _as_ip(listen: str) -> str:
    """Return ``listen`` with 127.0.0.1 in place of a wildcard address, no host or ``localhost``."""
    host, _, port = listen.rpartition(":")
    return f"127.0.0.1:{port}" if host in _ANY else listen


async def _resolved(upstream: str, listen: SocketAddress) -> SocketAddress:
    """Return an upstream's first address of the listener's family; a name is resolved only here.

    Raises:
        ValueError: The text isn't ``host:port``, or the host has no address of that family.
    """
    host, _, port = upstream.rpartition(":")
    if not host or not port.isdecimal() or not 1 <= int(port) <= 65535:
        raise ValueError(f"upstream {upstream!r}: expected host:port, with a port in 1–65535")
    family = socket.AF_INET6 if listen.family is IPFamily.IPV6 else socket.AF_INET
    try:
        found = await asyncio.get_running_loop().getaddrinfo(
            host.strip("[]"), port, family=family, type=socket.SOCK_STREAM
        )
    except (OSError, UnicodeError) as exc:
        cause = getattr(exc, "strerror", None) or exc
        what = f"upstream {upstream!r} has no {listen.family} address: {cause}"
        raise ValueError(what) from exc
    ip, number = found[0][4][:2]
    return read_endpoint((str(ip), int(number)))


def _free(listen: str) -> SocketAddress:
    """Return an address to listen on, replacing port 0 by a free port.

    Raises:
        ValueError: The text isn't an address.
        ListenError: The port is 0, and the address isn't one of this machine.
    """
    if not listen.endswith(":0"):
        return read_endpoint(listen)
    ip = parse_ip(listen.removesuffix(":0").removeprefix("[").removesuffix("]"))
    try:
        with socket.socket(socket.AF_INET6 if ":" in ip else socket.AF_INET) as probe:
            probe.bind((ip, 0))
            return SocketAddress(*probe.getsockname()[:2])
    except OSError as exc:
        raise ListenError(f"cannot listen on {listen}: {exc.strerror}") from exc
