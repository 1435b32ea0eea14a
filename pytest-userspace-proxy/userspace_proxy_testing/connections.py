"""The kit's connections: its own dials, and a server's connections, which can be reset together.

asyncio's own servers lose connections that they accepted just before they were closed: such a
client waits forever, or is served by a stopped server.

    accepted ──serve──▶ fresh ──its task begins──▶ opening ──▶ writer ──▶ the server's function
"""

from __future__ import annotations

import _socket
import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable, Iterator

from userspace_proxy.kernel.socket_options import reset, reset_on_close

# Methods of the base class of Python's socket. Plugins that forbid dials in tests, such as
# pytest-recording, replace the methods of the subclass, but this kit's own dials must work.
connect = _socket.socket.connect
connect_ex = _socket.socket.connect_ex

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Connections:
    """One server's connections, each with a task in the running event loop."""

    def __init__(self) -> None:
        self._fresh: dict[asyncio.Task[None], socket.socket] = {}
        """Connections whose task hasn't started, and won't start if it is cancelled."""
        self._opening: dict[asyncio.Task[None], socket.socket] = {}
        """Connections whose sockets the event loop owns, but that have no writer yet."""
        self._served: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()

    def serve(self, client: socket.socket, serve: Serve) -> None:
        """Serve an accepted connection, which is closed when the function ends."""
        client.setblocking(False)
        task = asyncio.get_running_loop().create_task(self._run(client, serve))
        self._fresh[task] = client
        task.add_done_callback(self._forget)

    @contextlib.contextmanager
    def keep(self, writer: asyncio.StreamWriter) -> Iterator[None]:
        """Include another connection in :meth:`reset`, and close it at the end of the block."""
        self._writers.add(writer)
        try:
            yield
        finally:
            self._writers.discard(writer)
            writer.close()

    def reset(self) -> None:
        """Reset all connections and cancel their tasks."""
        for task, client in {**self._fresh, **self._opening}.items():
            reset_on_close(client)
            if task in self._fresh:
                client.close()
            task.cancel()
        for task in self._served:
            task.cancel()
        for writer in self._writers:
            reset(writer)

    async def _run(self, client: socket.socket, serve: Serve) -> None:
        task = asyncio.current_task()
        assert task is not None, "it is one"
        self._opening[task] = self._fresh.pop(task)
        reader, writer = await asyncio.open_connection(sock=client)
        with self.keep(writer):
            del self._opening[task]
            self._served.add(task)
            await serve(reader, writer)

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._fresh.pop(task, None)
        self._opening.pop(task, None)
        self._served.discard(task)
