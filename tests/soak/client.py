"""Generates mixed load in a namespace, and prints each result, until SIGTERM.

    start (Unix time)   seconds   kind   ok | the error   start of its connection

It imports only the standard library. A request starts when it is due, even if earlier requests are
open. The first argument is JSON, the address of each Service; the second is the number of new
connections per second.
"""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

# A request's timeout in seconds; while an API server starts, the machine is busy for some seconds.
TIMEOUT_S = 15.0
RESEND_S = 1.0
LARGE_BYTES = 1 << 20
ABORT_AFTER_BYTES = 64 << 10
KEPT_FOR_S = 3.0
KEPT_EVERY_S = 0.1
# The period of the pattern that the backends' --source sends.
PERIOD = 251
PATTERN = bytes(range(PERIOD)) * (LARGE_BYTES // PERIOD + 2)

T = TypeVar("T")
Address = tuple[str, int]
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@asynccontextmanager
async def connected(at: Address) -> AsyncIterator[Streams]:
    reader, writer = await asyncio.open_connection(*at)
    try:
        yield reader, writer
    finally:
        writer.close()


async def short(at: Address) -> None:
    """Send one HTTP request on a new connection."""
    async with connected(at) as (reader, writer):
        writer.write(b"GET / HTTP/1.1\r\nHost: soak\r\nConnection: close\r\n\r\n")
        if b" 200 " not in (await reader.read())[:20]:
            raise ConnectionError


async def large(at: Address) -> None:
    """Read a megabyte, and check each byte."""
    async with connected(at) as (reader, writer):
        writer.write(b"%d\n" % LARGE_BYTES)
        if await reader.readexactly(LARGE_BYTES) != PATTERN[:LARGE_BYTES]:
            raise ValueError


async def aborted(at: Address) -> None:
    """Reset a connection in the middle of an answer."""
    async with connected(at) as (reader, writer):
        writer.write(b"%d\n" % LARGE_BYTES)
        await reader.readexactly(ABORT_AFTER_BYTES)
        writer.transport.abort()


async def datagram(at: Address) -> None:
    """Send a query, and repeat it until it is answered, like a resolver."""
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
        await loop.sock_connect(sock, at)
        while True:
            try:
                await loop.sock_sendall(sock, b"question")
                async with asyncio.timeout(RESEND_S):
                    answer = await loop.sock_recv(sock, 100)
                break
            except (TimeoutError, ConnectionRefusedError):
                # An ICMP error arrived, or no answer: the next query may be answered.
                await asyncio.sleep(RESEND_S / 10)  # noqa: TID251 - the rate
        if not answer.endswith(b"question"):
            raise ValueError


async def kept(at: Address) -> None:
    """Send requests on one connection for a few seconds; print the outcome of each."""
    until, start = time.monotonic() + KEPT_FOR_S, time.time()
    streams: list[asyncio.StreamWriter] = []

    async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"GET / HTTP/1.1\r\nHost: soak\r\n\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        length = head.lower().partition(b"content-length:")[2].split()[0]
        await reader.readexactly(int(length))

    async def first() -> Streams:
        opened = await asyncio.open_connection(*at)
        streams.append(opened[1])
        await ask(*opened)
        return opened

    opened = await timed("keep-alive", first())
    while opened is not None and time.monotonic() < until:
        await asyncio.sleep(KEPT_EVERY_S)  # noqa: TID251 - the rate
        if await timed("keep-alive", answered(ask(*opened)), start) is None:
            break
    for writer in streams:
        writer.close()


async def answered(request: Awaitable[None]) -> bool:
    """Wait for a request's completion; return True, unlike a failed request."""
    await request
    return True


async def timed(kind: str, request: Awaitable[T], opened: float = 0.0) -> T | None:
    """Print a request's outcome; return its result, or None if it failed.

    Args:
        request: The coroutine, not started yet.
        opened: The Unix time at which the request's connection was opened; 0 if it opens one.
    """
    start, began, result = time.time(), time.monotonic(), None
    try:
        async with asyncio.timeout(TIMEOUT_S):
            result, outcome = await request, "ok"
    except (OSError, ValueError, EOFError, IndexError) as error:
        outcome = type(error).__name__
    seconds = time.monotonic() - began
    line = f"{start:.3f} {seconds:.3f} {kind} {outcome} {opened or start:.3f}"
    print(line, flush=True)  # noqa: T201
    return result


class Load:
    """Starts requests at their rates until SIGTERM, then waits for open requests."""

    def __init__(self) -> None:
        self._open: set[asyncio.Task[object]] = set()
        self._stopped = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self._stopped.set)

    async def run(self, requests: list[tuple[float, Callable[[], Awaitable[object]]]]) -> None:
        """Start the requests of each kind at their rate per second."""
        async with asyncio.TaskGroup() as group:
            for rate, request in requests:
                group.create_task(self._repeat(rate, request))
        if self._open:
            await asyncio.wait(self._open)

    async def _repeat(self, rate: float, request: Callable[[], Awaitable[object]]) -> None:
        due = time.monotonic()
        while not self._stopped.is_set():
            task = asyncio.ensure_future(request())
            self._open.add(task)
            task.add_done_callback(self._open.discard)
            # Requests that are more than a second late are skipped.
            due = max(due + 1 / rate, time.monotonic() - 1)
            await asyncio.sleep(max(0.0, due - time.monotonic()))  # noqa: TID251 - the rate


async def main(addresses: dict[str, Address], rate: float) -> None:
    """Generate load of all kinds on the Services."""
    web, sticky, dns, source = (
        tuple(addresses[name]) for name in ("web", "sticky", "dns", "source")
    )
    await Load().run(
        [
            (rate, lambda: timed("short", short(web))),
            (rate / 10, lambda: timed("affinity", short(sticky))),
            (rate / 10, lambda: timed("UDP", datagram(dns))),
            (rate / 50, lambda: timed("large", large(source))),
            (rate / 50, lambda: timed("aborted", aborted(source))),
            # Each connection lasts three seconds, so some connections are always open.
            (rate / 50, lambda: kept(web)),
        ]
    )


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1]), float(sys.argv[2])))
