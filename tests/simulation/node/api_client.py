"""A client of the simulated API server, with the methods of ``ApiClient``."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from random import Random
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

from userspace_proxy.sources.kubernetes import recorder, source
from userspace_proxy.sources.kubernetes.api_paths import check
from userspace_proxy.sources.kubernetes.client import RESPONSE_S
from userspace_proxy.sources.kubernetes.responses import Response, TransportError

from .api_exchange import PROBES_S, Exchange

if TYPE_CHECKING:
    from .api import ApiServer

URL = "http://api.example:6443"
# The wall clock at the start of a run.
_UNIX_TIME = 1_790_000_000.0


class Address:
    """The address that clients dial: a server, or a load balancer for several."""

    def __init__(self, servers: Sequence[ApiServer], rng: Random) -> None:
        self.servers = list(servers)
        self.rng = rng
        self.timeline = servers[0].timeline
        self.checks_health = False
        """Whether a stopped server gets no requests while another one runs."""
        self.clients: list[SimulatedClient] = []
        self._cut_off: dict[str, float] = {}

    def client_for(self, loop: Any, node: str = "alice") -> SimulatedClient:
        """Return a client on a node, for the process that runs ``loop``."""
        client = SimulatedClient(self, loop, node)
        self.clients.append(client)
        return client

    def choose(self) -> ApiServer:
        """Return the server for a request."""
        up = [each for each in self.servers if each.is_up or not self.checks_health]
        return self.rng.choice(up or self.servers)

    def cut_off_until(self, node: str) -> float:
        """Return the time at which a node's network works again; 0 if it was never cut."""
        return self._cut_off.get(node, 0.0)

    def partition(self, node: str, seconds: float) -> None:
        """Cut a node's network; connections are lost once the kernel's keepalive probes fail."""
        now = self.timeline.now
        self._cut_off[node] = max(self.cut_off_until(node), now + seconds)
        for client in self.clients:
            if client.node == node:
                for exchange in list(client.exchanges):
                    self.timeline.after(PROBES_S, self._probe, exchange, now)

    def _probe(self, exchange: Exchange, since: float) -> None:
        cut_off_until = self.cut_off_until(exchange.client.node)
        if exchange.began <= since and cut_off_until > self.timeline.now:
            exchange.fail("Connection timed out")
            exchange.server.hang_up(exchange)

    def names(self, client: Callable[[], Any]) -> list[tuple[ModuleType, str, Any]]:
        """Return the names to replace in the product's modules.

        Args:
            client: Returns the client of the current process.
        """
        now = self.timeline.clock
        clocks = SimpleNamespace(monotonic=now, time=lambda: _UNIX_TIME + now())
        return [
            (source, "ApiClient", lambda _credentials, clock: client()),
            (recorder, "Clocks", clocks),
        ]


class SimulatedClient:
    """Simulates ApiClient for one process."""

    def __init__(self, address: Address, loop: Any, node: str) -> None:
        self.address = address
        self.loop = loop
        self.node = node
        self.url = URL
        self.credentials = SimpleNamespace(description="the token in /simulated/token")
        self.exchanges = _Exchanges()
        self.is_open = False
        self.on_begin: Callable[[Exchange], object] = lambda _exchange: None
        """Called with each request."""
        self.on_head: Callable[[Exchange], object] = lambda _exchange: None
        """Called when a response begins."""
        self.on_arrival: Callable[[Exchange, bytes], object] = lambda _exchange, _piece: None
        """Called with each received part."""
        self.on_end: Callable[[Exchange], object] = lambda _exchange: None
        """Called when a response has ended or was aborted."""

    async def open(self) -> None:
        self.is_open = True

    async def close(self) -> None:
        self.abort()

    def abort(self) -> None:
        """Close all connections, as the kernel does for a process that died."""
        self.is_open = False
        for exchange in list(self.exchanges):
            exchange.close()

    async def get(self, path: str, query: Mapping[str, str]) -> Response:
        return await self._whole("GET", path, query, None)

    async def send(
        self, method: str, path: str, body: Mapping[str, Any], *, content_type: str
    ) -> Response:
        # The caller may change the body before the request arrives.
        return await self._whole(method, path, {}, json.loads(json.dumps(body)))

    @asynccontextmanager
    async def stream(self, path: str, query: Mapping[str, str]) -> AsyncIterator[SimulatedStream]:
        exchange = self._begin("GET", path, query, None)
        try:
            await _in_time(exchange.until_begun(), RESPONSE_S)
            _check(exchange)
            yield SimulatedStream(exchange)
        finally:
            exchange.close()

    async def _whole(
        self, method: str, path: str, query: Mapping[str, str], body: Mapping[str, Any] | None
    ) -> Response:
        exchange = self._begin(method, path, query, body)
        try:
            await _in_time(exchange.until_begun(), RESPONSE_S)
            _check(exchange)
            return await _rest(exchange)
        finally:
            exchange.close()

    def _begin(
        self, method: str, path: str, query: Mapping[str, str], body: Mapping[str, Any] | None
    ) -> Exchange:
        assert self.is_open, "the client is open"
        check(path)
        server = self.address.choose()
        exchange = Exchange(self, server, method, path, dict(query), body)
        self.exchanges.add(exchange)
        self.on_begin(exchange)
        exchange.depart()
        return exchange

    def failed(self, exchange: Exchange) -> None:
        """Record that a response was aborted."""
        self.on_end(exchange)

    def ended(self, exchange: Exchange) -> None:
        """Record that a response has ended."""
        self.on_end(exchange)

    def arrived(self, exchange: Exchange, piece: bytes) -> None:
        """Record that a part of a response has arrived."""
        self.on_arrival(exchange, piece)


class _Exchanges(dict[Exchange, None]):
    """A set in insertion order."""

    def add(self, exchange: Exchange) -> None:
        self[exchange] = None

    def discard(self, exchange: Exchange) -> None:
        self.pop(exchange, None)


class SimulatedStream:
    """Simulates client.Stream."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self.code = exchange.code

    async def read(self, *, silence_s: float) -> bytes:
        async with asyncio.timeout(silence_s):
            data = await self._exchange.read()
            _check(self._exchange)
            return data

    async def rest(self) -> Response:
        return await _rest(self._exchange)


async def _rest(exchange: Exchange) -> Response:
    parts = []
    while part := await _in_time(exchange.read(), RESPONSE_S):
        parts.append(part)
    _check(exchange)
    return Response(exchange.code, b"".join(parts), exchange.retry_after_s)


async def _in_time(awaitable: Any, seconds: float) -> Any:
    try:
        async with asyncio.timeout(seconds):
            return await awaitable
    except TimeoutError as exc:
        raise TransportError("no answer in time") from exc


def _check(exchange: Exchange) -> None:
    if exchange.error:
        raise TransportError(exchange.error)
