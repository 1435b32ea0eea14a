"""Connects to an address again and again, and prints how each connection went.

    start (Unix time)   seconds   ok | what went wrong

Runs in a pod, whose command line holds this text: it imports nothing of ours.
A connection is a new one each time, asks by HTTP and wants the whole answer. The next one starts
when it is due, whether or not those before it are over. After SIGTERM no more start, and the
process ends with the last of those that are open.
"""

from __future__ import annotations

import asyncio
import signal
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


async def probe(host: str, port: int) -> None:
    """Connect once and print how it went."""
    start, began = time.time(), time.monotonic()
    try:
        await asyncio.wait_for(connect(host, port), TIMEOUT_S)
        outcome = "ok"
    except OSError as error:
        outcome = type(error).__name__
    print(f"{start:.3f} {time.monotonic() - began:.3f} {outcome}", flush=True)  # noqa: T201


async def main(host: str, port: int, rate: float) -> None:
    """Connect at this rate until SIGTERM."""
    probes: set[asyncio.Task[None]] = set()
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    due = time.monotonic()
    while not stopped.is_set():
        task = asyncio.create_task(probe(host, port))
        probes.add(task)
        task.add_done_callback(probes.discard)
        due += 1 / rate
        await asyncio.sleep(max(0.0, due - time.monotonic()))  # noqa: TID251 - the rate
    if probes:
        await asyncio.wait(probes)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3])))
