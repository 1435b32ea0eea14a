"""Resets one side of a connection after it has received the bytes before the other side's reset.

    one side's RST ──▶ bytes that the proxy has acknowledged are sent to the other side
                        ├─▶ the other side has acknowledged all of them ──▶ RST
                        └─▶ nothing moved for wait_s, or LIMIT_S in all ──▶ RST

    both FINs, and the answer was late (``endings``) ──▶ likewise, without a RST

A close with a RST makes the kernel drop what it hasn't delivered, so the socket stays open until
SIOCOUTQ is 0. Until then the connection and its descriptors count as open.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from ..kernel.tcp_state import is_connected, unacknowledged_bytes
from ..model.connection_ends import EndedBy, EndReason
from . import reactor as epoll
from .endings import has_arrived
from .reactor import Handler
from .relay import Direction
from .tcp import TcpConnection

LIMIT_S = 60.0
# Seconds between two checks, because no event reports that the last byte was acknowledged.
_LOOK_S = 0.05


@dataclass(slots=True)
class _Waiting:
    direction: Direction
    began: float
    moved_at: float
    progress: tuple[int, int]
    """Bytes sent to the sink, and bytes left: reads may add as many as are delivered."""


class LateResets:
    """The connections waiting to be reset, for at most ``wait_s`` without progress."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, clock: Callable[[], float], wait_s: float
    ) -> None:
        self._loop = loop
        self._clock = clock
        self._wait_s = wait_s
        self._waiting: dict[TcpConnection, _Waiting] = {}
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, connection: TcpConnection) -> bool:
        """Wait for bytes to the side that is still connected; return False if there are none.

        If nothing was reset, both sides have ended, the client first: the client gets the FIN.
        """
        up, down, is_aborting = connection.up, connection.down, connection.is_aborting
        if not is_aborting:
            connection.reactor.calls.shut_down(connection.client_fd)
        for direction in (up, down) if is_aborting else (down,):
            # An endpoint stays connected after its FIN until it acknowledges the client's FIN.
            if direction is None or (is_aborting and is_connected(direction.source)):
                continue
            left = _undelivered(direction)
            if left:
                now = self._clock()
                self._waiting[connection] = _Waiting(
                    direction, now, now, _progress(direction, left)
                )
                self._watch(connection, direction)
                return True
        return False

    def forget(self, connection: TcpConnection) -> None:
        """Stop waiting for a connection. Idempotent."""
        self._waiting.pop(connection, None)

    def close(self) -> None:
        self._waiting.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _watch(self, connection: TcpConnection, direction: Direction) -> None:
        reactor = connection.reactor
        reactor.set_handler(direction.sink_fd, _Flush(direction))
        reactor.calls.change_watch(direction.sink_fd, epoll.OUT | epoll.ET)
        if not connection.is_aborting:
            # The source has sent its FIN: its later events don't change what the client gets.
            reactor.set_handler(direction.source_fd, _IGNORE)
        if self._timer is None:
            self._timer = self._loop.call_later(_LOOK_S, self._look)

    def _look(self) -> None:
        self._timer = None
        now = self._clock()
        for connection, waiting in list(self._waiting.items()):
            left = _undelivered(waiting.direction)
            progress = _progress(waiting.direction, left)
            if progress != waiting.progress:
                waiting.progress, waiting.moved_at = progress, now
            is_over = now - waiting.moved_at >= self._wait_s or now - waiting.began >= LIMIT_S
            # A late answer is awaited only until its first byte is acknowledged.
            is_known = left and not connection.is_aborting and has_arrived(waiting.direction)
            if not left or is_over or is_known:
                self.forget(connection)
                if connection.is_aborting:
                    connection.close()
                else:
                    connection.finish(EndReason.COMPLETE, as_reset=False, by=EndedBy.CLIENT)
        if self._waiting and self._timer is None:
            self._timer = self._loop.call_later(_LOOK_S, self._look)


class _Flush(Handler):
    """Flushes a direction when its sink has room."""

    __slots__ = ("_direction",)

    def __init__(self, direction: Direction) -> None:
        self._direction = direction

    def on(self, _fd: int, events: int) -> None:
        if events & epoll.OUT:
            self._direction.flush()


class _Ignore(Handler):
    """Handles no event."""

    __slots__ = ()

    def on(self, _fd: int, _events: int) -> None:
        """Ignore it."""


_IGNORE = _Ignore()


def _progress(direction: Direction, left_bytes: int) -> tuple[int, int]:
    return direction.bytes_moved, left_bytes


def _undelivered(direction: Direction) -> int:
    """Return the bytes that the sink hasn't acknowledged; 0 if it has gone, 1 for unread bytes."""
    if not is_connected(direction.sink):
        return 0
    unread = direction.is_stuck or direction.is_waiting_turn
    return direction.waiting_bytes + unacknowledged_bytes(direction.sink) + unread
