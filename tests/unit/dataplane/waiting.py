"""Waits with a deadline for a condition or a socket; other modules here must not sleep."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

DEADLINE_S = 120.0
_PAUSE_S = 0.001


async def until(condition: Callable[[], object], what: str = "") -> None:
    """Return when the condition holds; fails after the deadline.

    Args:
        condition: Checked repeatedly.
        what: The name of the condition in the error.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + DEADLINE_S
    while not condition():
        assert loop.time() < deadline, f"not so after {DEADLINE_S:g} s: {what or condition}"
        await asyncio.sleep(_PAUSE_S)  # noqa: TID251 - this is the wait that others call


async def turns(count: int) -> None:
    """Return after this many iterations of the loop."""
    loop = asyncio.get_running_loop()
    for _ in range(count):
        turn = loop.create_future()
        loop.call_soon(turn.set_result, None)
        await turn


async def readable(sock: socket.socket) -> None:
    """Return when the socket is readable or has failed."""
    loop = asyncio.get_running_loop()
    await _woken(sock, loop.add_reader, loop.remove_reader)


async def writable(sock: socket.socket) -> None:
    """Return when the socket is writable or has failed."""
    loop = asyncio.get_running_loop()
    await _woken(sock, loop.add_writer, loop.remove_writer)


async def _woken(sock: socket.socket, add: Callable, remove: Callable) -> None:
    ready = asyncio.get_running_loop().create_future()
    add(sock, lambda: ready.done() or ready.set_result(None))
    try:
        async with asyncio.timeout(DEADLINE_S):
            await ready
    finally:
        remove(sock)
