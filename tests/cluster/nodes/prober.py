"""Connects to an address again and again, and prints how each connection went.

    start (Unix time)   seconds   ok | what went wrong

    prober.py HOST PORT RATE [PROTOCOL [TIMEOUT_S]]

Runs in a pod, whose command line holds this text: it imports nothing of ours.
A connection is a new one each time, asks by HTTP and wants the whole answer; with UDP it is a
datagram from a new port, which wants an answer. The next one starts when it is due, whether or not
those before it are over. After SIGTERM no more start, and the process ends with the last of those
that are open.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
import time

TIMEOUT_S = 5.0


async def connect(host: str, port: int) -> None:
    """Connect, ask, read the answer to its end."""
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(b"GET /hostname HTTP/1.0\r\n\r\n")
        answer = await reader.read()
        if b" 200 " not in answer:
            raise ConnectionError(f"{len(answer)} bytes of an answer")
    finally:
        writer.close()


async def ask(host: str, port: int) -> None:
    """Send a datagram, receive one."""
    loop = asyncio.get_running_loop()
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
        await loop.sock_connect(sock, (host, port))
        await loop.sock_sendall(sock, b"hello")
        await loop.sock_recv(sock, 65535)


async def probe(host: str, port: int, protocol: str, timeout_s: float) -> None:
    """Connect once and print how it went."""
    start, began = time.time(), time.monotonic()
    try:
        await asyncio.wait_for((ask if protocol == "UDP" else connect)(host, port), timeout_s)
        outcome = "ok"
    except OSError as error:
        outcome = type(error).__name__
    print(f"{start:.3f} {time.monotonic() - began:.3f} {outcome}", flush=True)  # noqa: T201


async def main(host: str, port: int, rate: float, protocol: str, timeout_s: float) -> None:
    """Connect at this rate until SIGTERM."""
    probes: set[asyncio.Task[None]] = set()
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    due = time.monotonic()
    while not stopped.is_set():
        task = asyncio.create_task(probe(host, port, protocol, timeout_s))
        probes.add(task)
        task.add_done_callback(probes.discard)
        due += 1 / rate
        await asyncio.sleep(max(0.0, due - time.monotonic()))  # noqa: TID251 - the rate
    if probes:
        await asyncio.wait(probes)


if __name__ == "__main__":
    _, host, port, rate, *more = sys.argv
    protocol = more[0] if more else "TCP"
    timeout_s = float(more[1]) if len(more) > 1 else TIMEOUT_S
    asyncio.run(main(host, int(port), float(rate), protocol, timeout_s))
