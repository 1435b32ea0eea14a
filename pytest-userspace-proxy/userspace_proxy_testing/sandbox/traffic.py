"""A steady load for demos: ``python -m userspace_proxy_testing.sandbox.traffic TARGET=RATE …``.

    http://10.96.0.10/=12     GET, with a new connection each time
    udp://10.96.0.53:53=4     one datagram from a new socket

RATE is the average number of requests per second; the rate rises and falls over a minute,
differently for each target. Slow or failing requests don't delay later requests, and failures are
ignored. The program runs until a signal ends it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import math
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

TIMEOUT_S = 5.0
MAX_OPEN = 50
"""The maximum number of concurrent requests per target."""
WAVE_S = 60.0
WAVE_SHARE = 0.6
_RESPONSE_BYTES = 65536


@dataclass(frozen=True, slots=True)
class Target:
    """The address to request, and the rate."""

    protocol: str
    """``http`` or ``udp``."""
    host: str
    port: int
    per_second: float

    def pause_s(self, now: float, phase: float) -> float:
        """Return the pause before the next request in seconds.

        Args:
            now: Seconds of any clock.
            phase: Radians by which the wave is shifted.
        """
        wave = 1 + WAVE_SHARE * math.sin(2 * math.pi * now / WAVE_S + phase)
        return 1 / (self.per_second * wave)


def target(text: str) -> Target:
    """Parse ``URL=RATE``.

    Raises:
        argparse.ArgumentTypeError: The text isn't a target.
    """
    url, _, rate = text.rpartition("=")
    try:
        parts = urlsplit(url)
        per_second = float(rate)
        port = parts.port or 80
    except ValueError:
        per_second = 0.0
    if per_second <= 0 or parts.scheme not in ("http", "udp") or not parts.hostname:
        raise argparse.ArgumentTypeError(f"{text!r} is not http://HOST[:PORT]/=RATE or udp://…")
    return Target(parts.scheme, parts.hostname, port, per_second)


async def keep_requesting(to: Target, phase: float) -> None:
    """Send requests to a target until cancelled, at most MAX_OPEN at a time."""
    loop = asyncio.get_running_loop()
    free = asyncio.Semaphore(MAX_OPEN)
    async with asyncio.TaskGroup() as requests:
        while True:
            if not free.locked():
                await free.acquire()
                requests.create_task(request(to)).add_done_callback(lambda _: free.release())
            pause_s = to.pause_s(loop.time(), phase)
            await asyncio.sleep(pause_s)  # noqa: TID251 - the rate is in seconds


async def request(to: Target) -> None:
    """Send one request and read its answer; ignore errors and timeouts."""
    with contextlib.suppress(OSError):
        async with asyncio.timeout(TIMEOUT_S):
            await (_get(to) if to.protocol == "http" else _ask(to))


async def _get(to: Target) -> None:
    reader, writer = await asyncio.open_connection(to.host, to.port)
    try:
        writer.write(f"GET / HTTP/1.1\r\nHost: {to.host}\r\nConnection: close\r\n\r\n".encode())
        await reader.read(_RESPONSE_BYTES)
    finally:
        writer.close()


class _Answer(asyncio.DatagramProtocol):
    """Completes a future at the first datagram or the first error."""

    def __init__(self, arrived: asyncio.Future[None]) -> None:
        self._arrived = arrived

    def datagram_received(self, data: bytes, addr: object) -> None:
        self._finish()

    def error_received(self, exc: Exception) -> None:
        self._finish()

    def _finish(self) -> None:
        if not self._arrived.done():
            self._arrived.set_result(None)


async def _ask(to: Target) -> None:
    loop = asyncio.get_running_loop()
    arrived: asyncio.Future[None] = loop.create_future()
    transport, _ = await loop.create_datagram_endpoint(
        lambda: _Answer(arrived), remote_addr=(to.host, to.port)
    )
    try:
        transport.sendto(b"hello")
        await arrived
    finally:
        transport.close()


async def request_all(targets: Sequence[Target]) -> None:
    """Send requests to all targets until cancelled."""
    async with asyncio.TaskGroup() as group:
        for number, to in enumerate(targets):
            group.create_task(keep_requesting(to, phase=float(number)))


def main(argv: Sequence[str] | None = None) -> int:
    """Send requests until a signal other than SIGINT ends the process."""
    parser = argparse.ArgumentParser(
        prog="traffic", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("targets", nargs="+", type=target, metavar="TARGET=RATE")
    options = parser.parse_args(argv)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    asyncio.run(request_all(options.targets))
    return 0


if __name__ == "__main__":
    sys.exit(main())
