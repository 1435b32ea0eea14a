"""Target for request bodies to toxiproxy's API; the first byte selects the request."""

from __future__ import annotations

import asyncio
import functools

from tests.kit.faults.test_toxiproxy import Services
from userspace_proxy_testing.faults.toxiproxy import ToxiproxyApi

REQUESTS = (
    "POST /proxies",
    "POST /populate",
    "POST /proxies/web",
    "POST /proxies/web/toxics",
    "PATCH /proxies/web/toxics/slow",
)
WEB = ("web", "127.0.0.1:0", "127.0.0.1:80")
_ANSWER_S = 5.0


class Server:
    """The API for Services that only record changes, in a separate event loop."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._services = Services()
        self._address = self._loop.run_until_complete(
            ToxiproxyApi(self._services).serve(("127.0.0.1", 0))
        )

    def answer(self, which: int, body: bytes) -> bytes:
        """Return the response to a request with a body, while one Service with a toxic exists."""
        return self._loop.run_until_complete(self._answer(which, body))

    async def _answer(self, which: int, body: bytes) -> bytes:
        self._services.proxies.clear()
        await self._services.create(*WEB, enabled=True)
        reader, writer = await asyncio.open_connection(*self._address)
        try:
            await _send(writer, REQUESTS[3], b'{"name": "slow", "type": "latency"}')
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200"), head
            length = head.lower().partition(b"content-length:")[2].split()[0]
            await reader.readexactly(int(length))
            await _send(writer, REQUESTS[which % len(REQUESTS)], body, "Connection: close\r\n")
            async with asyncio.timeout(_ANSWER_S):
                return await reader.read()
        finally:
            writer.close()


async def _send(writer: asyncio.StreamWriter, request: str, body: bytes, more: str = "") -> None:
    head = f"{request} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n{more}\r\n"
    writer.write(head.encode() + body)
    await writer.drain()


@functools.cache
def server() -> Server:
    """Return the server, which runs until the process exits."""
    return Server()


def check_toxiproxy(data: bytes) -> None:
    """Check that a body causes a change or a client error."""
    if not data:
        return
    answer = server().answer(data[0], data[1:])
    assert answer.startswith((b"HTTP/1.1 2", b"HTTP/1.1 4")), answer[:200]
