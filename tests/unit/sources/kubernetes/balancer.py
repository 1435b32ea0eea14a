"""A load balancer in front of the fake API server that resets idle connections."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Self
from urllib.parse import urlsplit

from userspace_proxy_testing.fakes.api_server import FakeApiServer


class Balancer:
    """Forwards connections while it runs; only :meth:`pass_time` advances its clock.

    Args:
        limit_s: A connection is reset after this many idle seconds.
    """

    def __init__(self, api: FakeApiServer, *, limit_s: float) -> None:
        self._to = urlsplit(api.url)
        self._limit_s = limit_s
        self._now_s = 0.0
        self._moved_s: dict[asyncio.StreamWriter, float] = {}
        """The time of the last byte on each connection, by its client's writer."""
        self._pauses: list[tuple[float, asyncio.Future[None]]] = []

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        host, port = self._server.sockets[0].getsockname()
        self.url = f"http://{host}:{port}"
        return self

    async def __aexit__(self, *_error: object) -> None:
        self._server.close()
        for client in self._moved_s:
            client.transport.abort()

    @property
    def pauses(self) -> int:
        """How many pauses are pending."""
        return len(self._pauses)

    @property
    def idle_s(self) -> float:
        """The idle time of the connection that has been idle the longest; 0 if there is none."""
        return max((self._now_s - moved_s for moved_s in self._moved_s.values()), default=0.0)

    def pass_time(self, seconds: float) -> None:
        """Advance the clock: reset connections that are idle by then, and end pauses."""
        self._now_s += seconds
        for client, moved_s in self._moved_s.items():
            if self._now_s - moved_s >= self._limit_s:
                client.transport.abort()
        due = [pause for pause in self._pauses if pause[0] <= self._now_s]
        for pause in due:
            self._pauses.remove(pause)
            pause[1].set_result(None)

    async def pause(self, seconds: float) -> None:
        over = asyncio.get_running_loop().create_future()
        self._pauses.append((self._now_s + seconds, over))
        await over

    async def _serve(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        server_reader, server = await asyncio.open_connection(self._to.hostname, self._to.port)
        self._moved_s[client] = self._now_s

        async def relay(source: asyncio.StreamReader, to: asyncio.StreamWriter) -> None:
            while data := await source.read(1 << 16):
                self._moved_s[client] = self._now_s
                to.write(data)

        ways = relay(reader, server), relay(server_reader, client)
        tasks = [asyncio.ensure_future(way) for way in ways]
        with contextlib.suppress(ConnectionError):
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        del self._moved_s[client]
        client.close()
        server.transport.abort()
