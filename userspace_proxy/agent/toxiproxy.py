"""toxiproxy's HTTP API for an embedded proxy: its proxies are Services here."""

from __future__ import annotations

import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field

from ..faults.toxics import NamedToxic
from ..faults.toxiproxy import ProxyInfo, ToxiproxyApi
from ..model import Protocol, SocketAddress
from .added_service import AddedService
from .arguments import read_endpoint
from .embedding import EmbeddedProxy

_NAMESPACE = "toxiproxy"
# toxiproxy takes any name; most have underscores, which a Service can't have.
_NOT_IN_LABELS = re.compile(r"[^a-z0-9-]+")


@dataclass(slots=True)
class _Made:
    service: AddedService
    upstream: SocketAddress
    listen: SocketAddress
    enabled: bool
    toxics: dict[str, NamedToxic] = field(default_factory=dict)


async def serve_toxiproxy(proxy: EmbeddedProxy, bind: tuple[str, int]) -> tuple[str, int]:
    """Serve the API until the proxy stops, and return the address.

    Raises:
        ListenError: The address isn't available.
    """
    api = ToxiproxyApi(ToxiproxyProxies(proxy))
    proxy.at_end(api.close)
    return await api.serve(bind)


class ToxiproxyProxies:
    """The Services that toxiproxy's clients have created; others aren't theirs to change."""

    def __init__(self, proxy: EmbeddedProxy) -> None:
        self._proxy = proxy
        self._made: dict[str, _Made] = {}
        self._count = 0

    def all(self) -> Sequence[ProxyInfo]:
        """Part of ToxiproxyServices."""
        return [
            ProxyInfo(name, str(m.listen), str(m.upstream), m.enabled, tuple(m.toxics.values()))
            for name, m in sorted(self._made.items())
        ]

    async def create(self, name: str, listen: str, upstream: str, *, enabled: bool) -> None:
        """Part of ToxiproxyServices."""
        endpoint = read_endpoint(_as_ip(upstream))
        at = _free(_as_ip(listen))
        self._count += 1
        service = await self._proxy.add_service(
            _label(name, self._count),
            port=at.port,
            namespace=_NAMESPACE,
            cluster_ip=at.ip,
            endpoints=[endpoint] if enabled else [],
        )
        made = _Made(service, endpoint, service.address, enabled)
        self._made[name] = made
        self._lead_through_server(made)

    async def update(
        self, name: str, listen: str | None, upstream: str | None, enabled: bool | None
    ) -> None:
        """Part of ToxiproxyServices."""
        made = self._made[name]
        if listen is not None and _as_ip(listen) != str(made.listen):
            raise ValueError(f"listen can't be changed from {made.listen}: delete the proxy first")
        if upstream is not None:
            made.upstream = read_endpoint(_as_ip(upstream))
        if enabled is not None:
            made.enabled = enabled
        if not made.enabled:
            self._proxy.faults.drop_connections(made.service.key)
        await made.service.set_endpoints([made.upstream] if made.enabled else [])
        self._lead_through_server(made)

    async def delete(self, name: str) -> None:
        """Part of ToxiproxyServices."""
        await self._made.pop(name).service.remove()

    def set_toxic(self, name: str, toxic: NamedToxic) -> None:
        """Part of ToxiproxyServices."""
        made = self._made[name]
        made.toxics[toxic.name] = toxic
        self._lead_through_server(made)

    def remove_toxic(self, name: str, toxic: str) -> None:
        """Part of ToxiproxyServices."""
        made = self._made[name]
        made.toxics.pop(toxic, None)
        self._lead_through_server(made)

    def _lead_through_server(self, made: _Made) -> None:
        """Have toxics affect connections that are opened before them, too."""
        key, toxics = made.service.key, list(made.toxics.values())
        self._proxy.faults.set_toxics(key, made.upstream, Protocol.TCP, toxics)


def _label(name: str, number: int) -> str:
    text = _NOT_IN_LABELS.sub("-", name.lower()).strip("-")[:50].strip("-")
    return f"{text or 'proxy'}-{number}"


def _as_ip(address: str) -> str:
    return address.replace("localhost:", "127.0.0.1:").replace("[::]:", "127.0.0.1:")


def _free(listen: str) -> SocketAddress:
    """Return an address to listen at, with a free port for 0."""
    if not listen.endswith(":0"):
        return read_endpoint(listen)
    host = listen.removesuffix(":0").strip("[]")
    with socket.create_server((host, 0)) as probe:
        return SocketAddress(*probe.getsockname()[:2])
