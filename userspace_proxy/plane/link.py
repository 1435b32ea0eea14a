"""Links the plane to a worker in the caller's loop; see ``worker_process`` for processes."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Protocol

from ..dataplane import DataPlane, Dialer, Engine, Tuning
from .messages import FromWorker, Status, ToWorker
from .worker import Worker


class Link(Protocol):
    """The control process's connection to a worker."""

    @property
    def pid(self) -> int:
        """The process ID of the worker; 0 for a worker in the caller's loop."""

    def send(self, message: ToWorker, *socks: socket.socket) -> None:
        """Send a command; no effect if the worker has exited."""

    def send_later(self, make: Callable[[], ToWorker]) -> None:
        """Queue a command, which ``make`` creates when it is sent; the order is kept."""

    def hang_up(self) -> None:
        """Make the worker exit, which resets its connections."""

    def look(self) -> float:
        """Return the seconds charged to the worker because its loop didn't iterate.

        Call it every ``watchdog.LOOK_S``. The result is 0 for a worker in the caller's loop.
        """

    def kill(self) -> None:
        """Kill the worker immediately. Idempotent."""

    def close(self, within_s: float) -> None:
        """Stop the worker, wait up to ``within_s``, and call no more callbacks. Idempotent."""


class LocalLink:
    """The link to a worker in the caller's loop: commands and answers are plain calls.

    The worker uses the caller's sockets, and doesn't close them. Messages from the worker may
    arrive during :meth:`send`.
    """

    pid = 0

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        tuning: Tuning,
        *,
        clock: Callable[[], float],
        receive: Callable[[FromWorker], None],
        dialer: Dialer | None = None,
    ) -> None:
        self.dataplane = DataPlane(Engine(loop, tuning, clock=clock, dialer=dialer))
        self._worker = Worker(0, self.dataplane, receive)

    def send(self, message: ToWorker, *socks: socket.socket) -> None:
        """Carry out a command, or raise OSError if the loop can't watch a listener's socket."""
        self._worker.apply(message, *socks)

    def send_later(self, make: Callable[[], ToWorker]) -> None:
        """Carry out the command immediately: no other commands are queued."""
        self._worker.apply(make())

    def status(self) -> Status:
        return self._worker.status()

    def hang_up(self) -> None:
        """Do nothing: :meth:`close` resets the connections."""

    def look(self) -> float:
        return 0.0

    def kill(self) -> None:
        self._worker.close()

    def close(self, within_s: float = 0.0) -> None:
        self._worker.close()
