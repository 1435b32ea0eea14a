"""Accepts connections to the status servers, even when the process is out of descriptors.

    listening socket ──▶ Accepting ──▶ LimitedServer
                            └─ Reserve: spare descriptors, closed when a connection needs one

Rule 1: probes are answered even without a free descriptor, so that the kubelet doesn't kill a
node's proxy because of a shortage that a restart wouldn't end.
Rule 2: once more than half of the reserve is in use, each new connection closes an older one, so a
flood is worked off as fast as connections close, and a probe waits only milliseconds.
Rule 3: when a connection closes, the reserve is refilled before new connections are accepted.
"""

from __future__ import annotations

import asyncio
import errno
import os
import select
import socket

from .connections import LimitedServer

# The number of reserved descriptors: enough for several simultaneous probes, because a probe's
# connection lasts only milliseconds.
RESERVED = 8
_ENOUGH = RESERVED // 2
# The retry interval for connections that arrived while the reserve was empty.
_RETRY_S = 0.1
_SHORTAGES = (errno.EMFILE, errno.ENFILE)
_NO_MEMORY = (errno.ENOBUFS, errno.ENOMEM)
# The maximum number of connections that are accepted before other callbacks run. Because the oldest
# connection is closed at the limit, which is at least 32, this must be so small that a connection
# is answered, a few iterations of the loop later, before it becomes the oldest.
_AT_ONCE = 4


class Reserve:
    """Spare descriptors for the connections of one or more servers."""

    def __init__(self, size: int = RESERVED) -> None:
        self._size = size
        self._held: list[int] = []

    def __len__(self) -> int:
        return len(self._held)

    def fill(self) -> None:
        """Open the missing descriptors, as many as are available; idempotent."""
        while len(self._held) < self._size:
            try:
                self._held.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
            except OSError:
                return

    def lend(self) -> bool:
        """Close a spare descriptor, so that accept() can use it; return False if none is left."""
        if not self._held:
            return False
        os.close(self._held.pop())
        return True

    def close(self) -> None:
        """Close all descriptors; idempotent."""
        while self.lend():
            pass


class Accepting:
    """Accepts the connections of one listening socket.

    It replaces the event loops' own servers: without free descriptors, asyncio's server stops
    accepting for a second, and uvloop's server closes the waiting connections.

    Args:
        server: Creates the protocol of each connection; closes connections to make room.
        sock: A listening, non-blocking socket; :meth:`close` closes it.
    """

    def __init__(self, server: LimitedServer, sock: socket.socket, reserve: Reserve) -> None:
        self._server = server
        self._sock = sock
        self._reserve = reserve
        self._loop = asyncio.get_running_loop()
        self._starting: set[asyncio.Task[object]] = set()
        self._retry: asyncio.TimerHandle | None = None
        reserve.fill()
        self._loop.add_reader(sock, self._accept)

    def close(self) -> None:
        """Stop listening; open connections continue. Idempotent."""
        if self._sock.fileno() < 0:
            return
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        self._loop.remove_reader(self._sock)
        self._sock.close()

    def _accept(self) -> None:
        is_lent = False
        for _ in range(_AT_ONCE):
            try:
                sock, _ = self._sock.accept()
            except BlockingIOError:
                return
            except OSError as exc:
                # Without a free descriptor, accept() fails even if no connection is pending, so
                # check whether one is.
                if exc.errno in _SHORTAGES and not _is_readable(self._sock):
                    return
                if exc.errno in _SHORTAGES and self._reserve.lend():
                    is_lent = True
                    continue
                if exc.errno in _SHORTAGES:
                    self._server.make_room()
                if exc.errno in (*_SHORTAGES, *_NO_MEMORY):
                    self._pause()
                    return
                # The client disconnected while waiting.
                continue
            sock.setblocking(False)
            self._start(sock)
            if is_lent and len(self._reserve) < _ENOUGH:
                if self._server.make_room():
                    # The descriptor of a closed connection is free only after a few iterations of
                    # the loop, so pause.
                    self._pause()
                return

    def _start(self, sock: socket.socket) -> None:
        connection = self._server()
        connection.on_end = self._refill_soon
        task = self._loop.create_task(self._loop.connect_accepted_socket(lambda: connection, sock))
        self._starting.add(task)
        task.add_done_callback(self._started)

    def _started(self, task: asyncio.Task[object]) -> None:
        self._starting.discard(task)
        if not task.cancelled():
            # Retrieve the exception, so that asyncio doesn't log it: the client has disconnected.
            task.exception()

    def _refill_soon(self) -> None:
        # The loop closes the descriptor after it has called connection_lost(), so refill in the
        # next iteration.
        self._loop.call_soon(self._refill)

    def _refill(self) -> None:
        self._reserve.fill()
        if self._retry is not None:
            self._retry.cancel()
            self._resume()

    def _pause(self) -> None:
        self._loop.remove_reader(self._sock)
        self._retry = self._loop.call_later(_RETRY_S, self._resume)

    def _resume(self) -> None:
        self._retry = None
        self._loop.add_reader(self._sock, self._accept)


def _is_readable(sock: socket.socket) -> bool:
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))
