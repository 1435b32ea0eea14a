"""Starts one worker process, and detects its exit."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable

from ..child import end_child, start_child
from ..log_fields import FieldLogger
from .channel import Channel
from .messages import Beat, End, FromWorker, ToWorker
from .out_of_memory import OUT_OF_MEMORY
from .watchdog import Watchdog

_log = FieldLogger("userspace_proxy.dataplane")

_ENTRY = "userspace_proxy.plane.worker_main:run_worker"
# How long a worker may take to exit once its channel is closed, even with 10,000 listeners.
END_WITHIN_S = 2.0


class WorkerProcess:
    """The link to a child process that runs :mod:`.worker_main`.

    Args:
        ended: Called once when the process has exited, unless :meth:`close` was called, with a text
            such as ``exit status 1``, ``signal 9`` or ``exit status 12 (out of memory)``.
        entry: The function that the process calls with the channel's descriptor.

    Raises:
        OSError: The process can't be started.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        receive: Callable[[FromWorker], None],
        ended: Callable[[str], None],
        entry: str = _ENTRY,
    ) -> None:
        self._loop = loop
        self._receive = receive
        self._ended = ended
        with contextlib.ExitStack() as until_started:
            self._watchdog = Watchdog()
            until_started.callback(self._watchdog.close)
            self._process, connection = start_child(entry)
            until_started.callback(connection.close)
            self._pidfd = os.pidfd_open(self._process.pid)
            until_started.pop_all()
        self.pid = self._process.pid
        self._deadline: asyncio.TimerHandle | None = None
        """The timer that kills a process that has closed the channel but doesn't exit."""
        self._channel = Channel[FromWorker, ToWorker](
            loop, connection, reads=FromWorker, receive=self._on_message, lost=self._on_lost
        )
        self._channel.send(Beat(), self._watchdog)
        loop.add_reader(self._pidfd, self._on_end)

    def send(self, message: ToWorker, *socks: socket.socket) -> None:
        self._channel.send(message, *socks)

    def send_later(self, make: Callable[[], ToWorker]) -> None:
        self._channel.send_later(make)

    def look(self) -> float:
        return self._watchdog.look(self.pid)

    def kill(self) -> None:
        """Kill the process; ``ended`` is called later."""
        self._process.kill()

    def hang_up(self) -> None:
        """Order the process to reset its connections and exit; killing it wouldn't reset them."""
        self._channel.send(End())
        self._channel.close()

    def close(self, within_s: float) -> None:
        if self._pidfd >= 0:
            self.hang_up()
            end_child(self._process, within_s)
            self._forget()

    def _on_message(self, message: FromWorker, descriptors: list[int]) -> None:
        # Workers send no descriptors to their control process, so close unexpected ones.
        for descriptor in descriptors:
            os.close(descriptor)
        self._receive(message)

    def _on_lost(self, malformed: str) -> None:
        if malformed:
            _log.error(
                "worker sent a malformed message, killing it: %(cause)s",
                extra={"pid": self.pid, "cause": malformed},
            )
        elif self._channel.is_stalled:
            _log.error("worker does not read its messages, killing it", extra={"pid": self.pid})
        else:
            # Killing the process immediately would hide its exit status, which names the cause.
            self._deadline = self._loop.call_later(END_WITHIN_S, self.kill)
            return
        self.kill()

    def _on_end(self) -> None:
        status = self._process.wait()
        # The process's last messages may be unread, so read them before the channel is closed.
        self._channel.read()
        self._forget()
        self._ended(_describe(status))

    def _forget(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        self._pidfd = -1
        self._channel.close()
        self._watchdog.close()


def _describe(status: int) -> str:
    if status < 0:
        return f"signal {-status}"
    return f"exit status {status}" + " (out of memory)" * (status == OUT_OF_MEMORY)
