"""A steady load of new connections, or of datagrams, from a namespace of the sandbox.

client process ── every 1/rate s: connect, one request, read until FIN ──▶ Service
               ── or: one datagram from a new port, one answer ──▶
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import NamedTuple

from tests.cluster.waiting import wait_for
from userspace_proxy.sandbox import Host

_GENERATOR = """\
import asyncio, collections, json, socket, sys, time

protocol, ip, port, rate, patience = sys.argv[1], sys.argv[2], *map(float, sys.argv[3:])
loop = asyncio.new_event_loop()
outcomes, slowest, open_tasks = collections.Counter(), 0.0, set()
kind = socket.SOCK_STREAM if protocol == "TCP" else socket.SOCK_DGRAM
family = socket.AF_INET6 if ":" in ip else socket.AF_INET

async def exchange(sock):
    await loop.sock_connect(sock, (ip, int(port)))
    if protocol == "UDP":
        await loop.sock_sendall(sock, b"hello")
        return bool(await loop.sock_recv(sock, 999))
    await loop.sock_sendall(sock, b"GET / HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n")
    answer = b""
    while chunk := await loop.sock_recv(sock, 65536):
        answer += chunk
    return answer.startswith(b"HTTP/1.1 200")

async def one():
    global slowest
    began = time.monotonic()
    try:
        with socket.socket(family, kind | socket.SOCK_NONBLOCK) as sock:
            async with asyncio.timeout(patience):
                outcome = "answered" if await exchange(sock) else "cut short"
    except TimeoutError:
        outcome = "timed out"
    except OSError as exc:
        outcome = type(exc).__name__
    outcomes[outcome] += 1
    slowest = max(slowest, time.monotonic() - began)

async def main():
    stop = asyncio.Event()
    loop.add_reader(0, stop.set)
    began, sent = time.monotonic(), 0
    while not stop.is_set():
        while sent < (time.monotonic() - began) * rate:
            task = loop.create_task(one())
            open_tasks.add(task)
            task.add_done_callback(open_tasks.discard)
            sent += 1
            if sent == 1:
                print("begun", flush=True)
        await asyncio.sleep(0.5 / rate)
    await asyncio.gather(*open_tasks)
    print(json.dumps([outcomes, slowest, time.monotonic() - began]), flush=True)

loop.run_until_complete(main())
"""


class Report(NamedTuple):
    """What became of the requests."""

    outcomes: dict[str, int]
    """``answered``, ``timed out``, ``cut short``, or the name of an error: how many."""
    slowest_s: float
    seconds: float

    @property
    def lost(self) -> dict[str, int]:
        """Those that weren't answered."""
        return {name: count for name, count in self.outcomes.items() if name != "answered"}


class Load:
    """Begins at once; :meth:`stop` returns the report.

    Args:
        host: Where the client is.
        address: The Service's.
        protocol: ``TCP`` or ``UDP``.
        rate: Requests a second.
        patience_s: A request takes no longer.
    """

    def __init__(
        self,
        host: Host,
        address: tuple[str, int],
        protocol: str = "TCP",
        *,
        rate: float = 200.0,
        patience_s: float = 30.0,
    ) -> None:
        words = [protocol, address[0], address[1], rate, patience_s]
        self._process = host.popen(
            [sys.executable, "-IS", "-c", _GENERATOR, *map(str, words)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        stdout = self._process.stdout
        assert stdout is not None
        wait_for("the first request", lambda: stdout.readline() == "begun\n")

    def stop(self) -> Report:
        """End it, and wait for requests that are on their way."""
        out, _ = self._process.communicate("\n")
        return Report(*json.loads(out))
