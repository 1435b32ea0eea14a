"""Connects to an address repeatedly, and prints the result of each connection.

    start (Unix time) seconds ok | the error

    prober.py HOST PORT RATE [KIND [TIMEOUT_S]]

Runs in a pod whose command line contains this text, so it imports only the standard library. TCP:
an HTTP request and its whole answer on a new connection. UDP: a datagram from a new port, and an
answer. kept-TCP and kept-UDP: a few connections or sockets send requests in turn; the first of them
is kept, the others are replaced when they are old, and each is replaced after a failure. These
sockets repeat an unanswered datagram. Each attempt starts when it is due, even if earlier attempts
are still open; a kept connection sends again once it has its answer. After SIGTERM, no more
attempts start, and the process exits after the last open attempt.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import signal
import socket
import sys
import time
from collections.abc import Coroutine, Iterator

TIMEOUT_S = 5.0
AGAIN_S = 1.0
# Lifetimes of kept connections in seconds: one is never replaced; the others differ in age.
LIVES_S = (math.inf, 3.0, 6.0, 9.0, 12.0, 15.0, 18.0, 21.0)


async def connect(host: str, port: int) -> None:
    """Connect, send a request, and read the whole answer."""
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(b"GET /hostname HTTP/1.0\r\n\r\n")
        answer = await reader.read()
        if b" 200 " not in answer:
            raise ConnectionError(f"{len(answer)} bytes of an answer")
    finally:
        writer.close()


async def ask(host: str, port: int) -> None:
    """Send a datagram, and receive a datagram."""
    loop = asyncio.get_running_loop()
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
        await loop.sock_connect(sock, (host, port))
        await loop.sock_sendall(sock, b"hostname")
        await loop.sock_recv(sock, 65535)


class Kept:
    """A connection, or a UDP socket, that sends many requests one after the other.

    Args:
        protocol: ``TCP`` or ``UDP``.
        life_s: The age at which it is replaced.
    """

    def __init__(self, host: str, port: int, protocol: str, life_s: float) -> None:
        self._address = host, port
        self._is_tcp = protocol == "TCP"
        self._life_s = life_s
        self._sock: socket.socket | None = None
        self._end = 0.0
        self.is_busy = False
        self._numbers = itertools.count(1)

    async def ask(self) -> None:
        """Send a request, and receive the answer, which has no body."""
        self.is_busy = True
        if time.monotonic() > self._end:
            self.close()
        try:
            await self._ask(self._sock or await self._open())
        except BaseException:
            self.close()
            raise
        finally:
            self.is_busy = False

    def close(self) -> None:
        """Close the connection or socket; the next request opens another one."""
        if self._sock is not None:
            self._sock.close()
            self._sock = None

    async def _open(self) -> socket.socket:
        family = socket.AF_INET6 if ":" in self._address[0] else socket.AF_INET
        kind = socket.SOCK_STREAM if self._is_tcp else socket.SOCK_DGRAM
        self._sock = socket.socket(family, kind | socket.SOCK_NONBLOCK)
        self._end = time.monotonic() + self._life_s
        await asyncio.get_running_loop().sock_connect(self._sock, self._address)
        return self._sock

    async def _ask(self, sock: socket.socket) -> None:
        if self._is_tcp:
            await _ask_by_http(sock)
        else:
            await _ask_until_answered(sock, next(self._numbers))


async def _ask_by_http(sock: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(sock, b"HEAD /hostname HTTP/1.1\r\nHost: web\r\n\r\n")
    answer = b""
    while not answer.endswith(b"\r\n\r\n"):
        more = await loop.sock_recv(sock, 65535)
        if not more:
            raise ConnectionError(f"{len(answer)} bytes of an answer")
        answer += more


async def _ask_until_answered(sock: socket.socket, number: int) -> None:
    """Repeat a datagram each second until the answer with its number arrives."""
    loop = asyncio.get_running_loop()
    while True:
        await loop.sock_sendall(sock, b"echo %d" % number)
        try:
            async with asyncio.timeout(AGAIN_S):
                while not (await loop.sock_recv(sock, 65535)).endswith(b"%d" % number):
                    pass
        except TimeoutError:
            continue
        return


def requests(host: str, port: int, kind: str) -> Iterator[Coroutine[None, None, None] | None]:
    """Yield a coroutine for each request, forever; None while the kept connection is busy."""
    prefix, _, protocol = kind.rpartition("-")
    if not prefix:
        while True:
            yield (ask if protocol == "UDP" else connect)(host, port)
    for kept in itertools.cycle([Kept(host, port, protocol, life_s) for life_s in LIVES_S]):
        yield None if kept.is_busy else kept.ask()


async def probe(request: Coroutine[None, None, None], timeout_s: float) -> None:
    """Send one request and print the result."""
    start, began = time.time(), time.monotonic()
    try:
        await asyncio.wait_for(request, timeout_s)
        outcome = "ok"
    except OSError as error:
        outcome = type(error).__name__
    print(f"{start:.3f} {time.monotonic() - began:.3f} {outcome}", flush=True)  # noqa: T201


async def main(host: str, port: int, rate: float, kind: str, timeout_s: float) -> None:
    """Send requests at the given rate until SIGTERM."""
    probes: set[asyncio.Task[None]] = set()
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    due = time.monotonic()
    all_requests = requests(host, port, kind)
    while not stopped.is_set():
        request = next(all_requests)
        if request is not None:
            task = asyncio.create_task(probe(request, timeout_s))
            probes.add(task)
            task.add_done_callback(probes.discard)
        due += 1 / rate
        await asyncio.sleep(max(0.0, due - time.monotonic()))  # noqa: TID251 - the rate
    if probes:
        await asyncio.wait(probes)


if __name__ == "__main__":
    _, host, port, rate, *more = sys.argv
    kind = more[0] if more else "TCP"
    timeout_s = float(more[1]) if len(more) > 1 else TIMEOUT_S
    asyncio.run(main(host, int(port), float(rate), kind, timeout_s))
