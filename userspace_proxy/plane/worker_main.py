"""Runs a worker process: sets up its channel, privileges and log, and decides when it exits.

    control process ──channel──▶ worker ◀──worker socket── next control process

Rule 1: when the control process dies, the worker continues to serve until the next control process
adopts its sockets and drains it (``plane.adoption``, ``plane.authentication``). A worker without a
socket on which that process can connect exits.
Rule 2: the worker ignores signals meant for the whole service: the control process handles them,
and stops its workers.
"""

from __future__ import annotations

import _socket
import asyncio
import gc
import logging
import os
import signal
import socket
from collections.abc import Callable, Iterator

from ..clocks import Clocks
from ..dataplane import DataPlane, Engine
from ..kernel.memory_limits import find_memory_limits
from ..loops import loop_factory
from ..pacing import Pacing
from .authentication import Reception
from .channel import Channel
from .log_sender import LogSender, take_levels
from .messages import (
    AffinityEntries,
    AffinityEntriesSent,
    Beat,
    Drain,
    Drained,
    End,
    FromWorker,
    HandedOver,
    HandOver,
    Keep,
    Logged,
    OpenGroup,
    Report,
    Running,
    Start,
    ToWorker,
)
from .out_of_memory import be_killed_first, exit_on_memory_error
from .privileges import become_unprivileged
from .watchdog import Heart
from .worker import Worker

# The maximum size of queued log lines; further lines are dropped: the log can't keep up.
_MAX_LOG_WAITING_BYTES = 1024 * 1024
# This many groups opened between two reports count as startup: most of their memory stays in use.
_MANY_GROUPS = 256

# How long a worker serves without a control process. A kubelet waits for up to 5 minutes before it
# restarts a container that keeps failing.
ORPHAN_S = 600.0
# The maximum number of sockets in one message to the next control process; the channel takes 253.
_SOCKETS_A_MESSAGE = 200
# How long affinity entries may be sent after the sockets; an idle worker sends a full table in half
# a second.
PINS_S = 5.0
# The maximum size of entries that the next control process hasn't read.
_MAX_ENTRIES_WAITING_BYTES = 256 * 1024
# The pace of encoding entries: pauses for traffic take three times as long as encoding.
_ENTRIES_PACE = Pacing(1 / 3, 0.001)

_log = logging.getLogger("userspace_proxy.dataplane")


def run_worker(descriptor: int) -> int:
    """Run a worker that is commanded over a channel, until it exits; return the exit status."""
    stop = (signal.SIGINT, signal.SIGTERM)
    for number in (*stop, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(_run(socket.socket(fileno=descriptor)))


async def _run(sock: socket.socket) -> int:
    loop = asyncio.get_running_loop()
    exit_on_memory_error(loop)
    be_killed_first()
    main = WorkerMain(loop, sock)
    try:
        return await main.ended
    finally:
        main.close()


class WorkerMain:
    """The main program of one worker process; owns the socket to the control process.

    Args:
        confine: Drops privileges; called before the first listening socket arrives.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        *,
        confine: Callable[..., None] = become_unprivileged,
    ) -> None:
        self.ended: asyncio.Future[int] = loop.create_future()
        """Resolves to the exit status."""
        self._loop = loop
        self._confine = confine
        self._worker: Worker | None = None
        self._heart: Heart | None = None
        self._index = 0
        self._is_draining = False
        self._opened = 0
        """The number of groups opened since the last report."""
        self._dropped_lines = 0
        """The number of log lines dropped since the last line was sent."""
        self._worker_socket: socket.socket | None = None
        """The socket to which the next control process connects; None if it can't connect."""
        self._name_proofs: list[_socket.socket] = []
        """Sockets that prove that a control process opened the worker socket."""
        self._orphan_timer: asyncio.TimerHandle | None = None
        self._kept: dict[str, _socket.socket] = {}
        """Sockets kept for the next control process, by name."""
        self._reception: Reception | None = None
        """Authenticates the next control process, while no process controls this worker."""
        self._entries_timer: asyncio.TimerHandle | None = None
        """The timer for the next batch of affinity entries."""
        self._channel = self._open_channel(sock)

    def _open_channel(self, sock: socket.socket) -> Channel[ToWorker, FromWorker]:
        return Channel[ToWorker, FromWorker](
            self._loop,
            sock,
            reads=ToWorker,
            receive=self._on_message,
            lost=self._on_lost,
            read_for=self._count_iteration,
        )

    def close(self) -> None:
        """Close everything; connections are reset. Idempotent."""
        self._release_sockets()
        self._channel.close()
        if self._heart is not None:
            self._heart.close()
            self._heart = None
        if self._worker is not None:
            self._worker.close()

    def _count_iteration(self, seconds: float) -> None:
        if self._worker is not None:
            self._worker.count_iteration(seconds)

    def _on_message(self, message: ToWorker, descriptors: list[int]) -> None:
        try:
            self._apply(message, descriptors)
        except MemoryError:
            raise
        except Exception:  # noqa: BLE001 - any error leaves a command unapplied
            # Exit: the control process starts a replacement, and sends it the whole state.
            _log.exception("worker failed to apply a command, exiting")
            self._end(1)

    def _on_lost(self, malformed: str) -> None:
        """Wait for the next control process to connect.

        Exits after a malformed message, or if no process can connect and no drain is running.
        """
        self._stop_entries()
        if self._worker is not None:
            self._worker.stop_reports()
        if malformed or self._worker is None:
            self._end(1)
        elif self._worker_socket is not None:
            self._reception = Reception(self._loop, self._worker_socket, self._on_successor)
            self._orphan_timer = self._loop.call_later(ORPHAN_S, self._end, 1)
        elif not self._is_draining:
            self._end(1)

    def _on_successor(self, sock: socket.socket) -> None:
        # Keep the worker socket: if this process dies during the adoption, another may connect.
        self._stop_waiting()
        self._channel = self._open_channel(sock)
        self._on_message(HandOver(), [])

    def _stop_waiting(self) -> None:
        if self._orphan_timer is not None:
            self._orphan_timer.cancel()
            self._orphan_timer = None
        if self._reception is not None:
            self._reception.close()
            self._reception = None

    def _hand_over(self) -> None:
        """Send copies of all sockets; affinity entries follow later."""
        assert self._worker is not None
        names = list(self._kept)
        parts = [
            (index, socks[first : first + _SOCKETS_A_MESSAGE])
            for index, socks in self._worker.listening()
            # Send one message even without sockets: the last message carries the kept sockets.
            for first in range(0, max(1, len(socks)), _SOCKETS_A_MESSAGE)
        ]
        for left, (index, part) in enumerate(parts, 1 - len(parts)):
            kept = [] if left else names
            message = HandedOver(index, kept, is_last=not left)
            self._channel.send(message, *part, *(self._kept[name] for name in kept))
        self._stop_entries()
        self._send_entries(self._worker.entries(), Clocks.monotonic() + PINS_S)

    def _send_entries(self, parts: Iterator[AffinityEntries], until: float) -> None:
        """Send affinity entries in batches, while the channel has room, until a deadline."""
        began = Clocks.monotonic()
        has_room = self._channel.waiting_bytes < _MAX_ENTRIES_WAITING_BYTES
        part = next(parts, None) if has_room else None
        if began >= until or (has_room and part is None):
            self._channel.send(AffinityEntriesSent())
            return
        if part is not None:
            self._channel.send(part)
        took_s = Clocks.monotonic() - began
        self._count_iteration(took_s)
        pause_s = _ENTRIES_PACE.wait_s(took_s)
        self._entries_timer = self._loop.call_later(pause_s, self._send_entries, parts, until)

    def _stop_entries(self) -> None:
        if self._entries_timer is not None:
            self._entries_timer.cancel()
            self._entries_timer = None

    def _apply(self, message: ToWorker, descriptors: list[int]) -> None:
        if isinstance(message, Beat):
            if self._heart is not None:
                self._heart.close()
            self._heart = Heart(self._loop, descriptors[0])
            return
        sock = _socket.socket(fileno=descriptors[0]) if descriptors else None
        if isinstance(message, Start):
            if sock is not None:
                self._worker_socket = socket.socket(fileno=sock.detach())
                self._name_proofs = [_socket.socket(fileno=each) for each in descriptors[1:]]
            self._worker = self._start(message)
        elif isinstance(message, End):
            self._end(0)
        elif isinstance(message, Keep) and sock is not None:
            self._keep(message.name, sock)
        elif isinstance(message, HandOver):
            self._hand_over()
        else:
            if isinstance(message, Drain):
                self._release_sockets()
            self._carry_out(message, sock)

    def _keep(self, name: str, sock: _socket.socket) -> None:
        if name in self._kept:
            self._kept.pop(name).close()
        self._kept[name] = sock

    def _carry_out(self, message: ToWorker, sock: _socket.socket | None) -> None:
        if self._worker is not None:
            if sock is not None:
                sock.setblocking(False)
            self._worker.apply(message, sock)
        elif isinstance(message, Drain):
            self._send(Drained(0))
        if isinstance(message, OpenGroup):
            self._opened += 1
            if self._opened == _MANY_GROUPS:
                # Otherwise full garbage collections would traverse the groups, and delay clients.
                gc.freeze()
                self._opened = 0
        elif isinstance(message, Report):
            self._opened = 0

    def _start(self, message: Start) -> Worker:
        self._index = message.worker
        take_levels(message.log_levels, LogSender(self._send_log))
        dataplane = DataPlane(Engine(self._loop, message.tuning))
        self._confine(keeps_net_raw=message.keeps_net_raw)
        # Imported objects live as long as the process: exempt them from garbage collection.
        gc.collect()
        gc.freeze()
        dataplane.engine.memory.watch(find_memory_limits)
        self._send(Running(os.getpid(), os.geteuid()))
        return Worker(message.worker, dataplane, self._send, has_process=True)

    def _release_sockets(self) -> None:
        """Close the sockets for the next control process, which can no longer adopt this worker."""
        self._is_draining = True
        self._stop_waiting()
        while self._name_proofs:
            self._name_proofs.pop().close()
        if self._worker_socket is not None:
            self._worker_socket.close()
            self._worker_socket = None
        self._stop_entries()
        while self._kept:
            self._kept.popitem()[1].close()

    def _send(self, message: FromWorker) -> None:
        self._channel.send(message)
        if isinstance(message, Drained):
            self._end(0)

    def _end(self, status: int) -> None:
        if not self.ended.done():
            self.ended.set_result(status)

    def _send_log(self, line: Logged) -> None:
        if self._channel.waiting_bytes >= _MAX_LOG_WAITING_BYTES:
            self._dropped_lines += 1
            return
        if self._dropped_lines:
            count, self._dropped_lines = self._dropped_lines, 0
            text = "log lines of a worker were dropped: the control process did not read them"
            fields = {"worker": self._index, "lines": count}
            self._channel.send(Logged(_log.name, logging.WARNING, line.created, text, fields, ""))
        self._channel.send(line)
