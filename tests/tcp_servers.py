"""Runs TCP servers for the duration of a block.

Rule 1: leaving the block closes the server and its connections and ends its handlers, even after
an exception. ``async with await asyncio.start_server(…)`` waits for open connections from Python
3.12 on, so that a failing test would hang.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from userspace_proxy.loops import close_server
from userspace_proxy.model import SocketAddress

Handle = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[object]]


@contextlib.asynccontextmanager
async def serving(
    handle: Handle, ip: str = "127.0.0.1", port: int = 0, **options: Any
) -> AsyncIterator[SocketAddress]:
    """Serve each connection with a handler, and yield the server's address.

    Args:
        handle: Called with a connection's reader and writer; when it returns, the connection is
            closed.
        ip: The address to listen on.
        port: The port to listen on; 0 for any free port.
        options: Passed to ``asyncio.start_server``.
    """
    handlers: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    async def run(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        handlers[task] = writer
        try:
            # Suppress the exception of a cancelled handler, because Python 3.11 would log it.
            with contextlib.suppress(asyncio.CancelledError):
                await handle(reader, writer)
        finally:
            writer.close()

    server = await asyncio.start_server(run, ip, port, **options)
    try:
        yield SocketAddress(*server.sockets[0].getsockname()[:2])
    finally:
        await close_server(server)
        for task, writer in handlers.items():
            writer.transport.abort()
            task.cancel()
        await asyncio.gather(*handlers, return_exceptions=True)
