"""Starts, watches and replaces the workers of a plane, and requests their reports.

Rule 1: a worker process that dies is replaced, and the replacement receives the whole state, so
every message to a worker must be derivable from the plane's state.
Rule 2: a process that hangs is killed (``watchdog``) and replaced.
Rule 3: changes to a group that wait for a slow worker are merged (``pending_changes``), so the
number of groups limits the queue.
Rule 4: a worker in the caller's loop isn't watched, so it needs no timer.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from ..dataplane import MemoryState, Tuning
from ..facts import ITERATION_BOUNDS_S, WorkerFacts
from ..log_fields import FieldLogger
from ..pacing import backoff_s
from .group import GroupUpdate, Totals
from .link import Link
from .log_sender import current_levels
from .messages import (
    REPORT_S,
    Counted,
    Drain,
    Drained,
    FromWorker,
    Report,
    Running,
    Start,
    Status,
    ToWorker,
)
from .pending_changes import Merging
from .watchdog import HUNG_IN_START_S, HUNG_S

if TYPE_CHECKING:
    from ..kernel.abstract_sockets import ProvenSocket

_log = FieldLogger("userspace_proxy.dataplane")

# A worker process that exits sooner than this, or before it reports that it runs, has failed to
# start. The second consecutive failure causes a pause, which each further failure doubles.
_SOUND_S = 0.5
_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 5.0
# The default maximum number of workers. Half of the cores are for clients and endpoints on the
# node: on two cores, a second worker doubles the p99 latency for no gain (docs/benchmarks.md).
_MAX_DEFAULT_WORKERS = 4


def default_workers() -> int:
    """Return the default number of workers for this machine: one per two cores, 1 to 4."""
    return min(max(1, len(os.sched_getaffinity(0)) // 2), _MAX_DEFAULT_WORKERS)


@dataclass(frozen=True, slots=True)
class PlaneState:
    """The state of a plane, summed over its workers."""

    descriptors: int
    """The number of descriptors that traffic uses."""
    descriptor_limit: int
    is_accepting: bool
    """Whether workers accept clients; False at the limit of descriptors or memory."""
    is_running: bool = True
    """Whether any worker is running."""
    connections: int = 0
    """The number of open TCP connections."""
    workers: tuple[WorkerFacts, ...] = ()
    """Facts about worker processes; empty if the caller's loop carries the traffic."""
    problems: tuple[str, ...] = ()
    """The current problems, one line each."""
    memory: MemoryState = field(default_factory=MemoryState)
    """The memory of the worker that is nearest to its limit; short if any worker's memory is."""
    totals: Totals = field(default_factory=Totals)
    """The plane's own totals, not a copy."""


class _SlotOwner(Protocol):
    """The methods of ``Plane`` that a worker slot uses."""

    def receive(self, worker: int, message: FromWorker) -> None: ...
    def worker_began(self, worker: int) -> None: ...
    def worker_runs(self, worker: int) -> None: ...
    def worker_ended(self, worker: int) -> None: ...


class WorkerSlot:
    """One worker of a plane: its local link, or the links of its successive processes."""

    def __init__(
        self,
        index: int,
        owner: _SlotOwner,
        loop: asyncio.AbstractEventLoop,
        clock: Callable[[], float],
        tuning: Tuning,
        *,
        keeps_net_raw: bool,
        label: str | None = None,
    ) -> None:
        self.index = index
        self.tuning = tuning
        self.link: Link | None = None
        """The link to the worker; None while no process is running."""
        self.is_running = False
        """Whether the worker carries traffic: its process has reported that it runs."""
        self.restarts = 0
        self.hung = 0
        """How many processes hung and were replaced."""
        self.status = Status()
        """The status as of the last report."""
        self.problem = ""
        self.asked: dict[int, asyncio.Future[None]] = {}
        """The futures of requested reports, by the numbers of the reports."""
        self.drained: asyncio.Future[int] | None = None
        """Resolves to the number of connections that a drain had to reset."""
        self._merging = Merging()
        self._owner = owner
        self._loop = loop
        self._clock = clock
        self._keeps_net_raw = keeps_net_raw
        self._label = label
        self._worker_socket: ProvenSocket | None = None
        """The socket on which an orphaned process waits for the next control process."""
        self._reports = 0
        self._next_report = 0.0
        self._is_hung = False
        self._began = 0.0
        self._early_deaths = 0
        """How many processes in a row failed to start."""
        self._timer: asyncio.TimerHandle | None = None
        """The timer for the next start."""

    def start(self) -> None:
        """Start a process, or retry after a pause; its messages wait until it is running."""
        # Import the module only here: embedding starts no process.
        from .worker_process import WorkerProcess

        self._began = self._clock()
        try:
            # Open the socket first: after a later failure, a process would wait for a message.
            found_at = self._open_worker_socket()
            self.link = WorkerProcess(self._loop, receive=self.receive, ended=self._on_ended)
        except OSError as exc:
            self._close_worker_socket()
            self._note_failure("cannot start worker %(worker)s: %(cause)s", cause=str(exc.strerror))
            self._early_deaths = max(2, self._early_deaths + 1)
            self._start_again()
            return
        self._is_hung = False
        self._merging = Merging()
        start = Start(self.index, self.tuning, current_levels(), self._keeps_net_raw)
        self.send(start, *found_at)
        self._owner.worker_began(self.index)

    def _open_worker_socket(self) -> tuple[socket.socket, ...]:
        from .worker_sockets import open_worker_socket

        self._close_worker_socket()
        if self._label is None:
            return ()
        self._worker_socket = open_worker_socket(self._label)
        return (self._worker_socket, *self._worker_socket.name_proofs)

    def _close_worker_socket(self) -> None:
        if self._worker_socket is not None:
            self._worker_socket.close()
            self._worker_socket = None

    def send(self, message: ToWorker, *socks: socket.socket) -> bool:
        """Send a message; return False if no worker is running."""
        if self.link is None:
            return False
        self._merging.note(message)
        self.link.send(message, *socks)
        return True

    def update(self, update: GroupUpdate) -> None:
        """Send a change to a group; no effect if no worker is running."""
        if self.link is None:
            return
        if (make := self._merging.add(update)) is not None:
            self.link.send_later(make)

    def ask(self) -> asyncio.Future[None]:
        """Request a report; the future is done once the report has arrived, or can't arrive."""
        self._reports += 1
        self._next_report = self._clock() + REPORT_S
        waiting: asyncio.Future[None] = self._loop.create_future()
        self.asked[self._reports] = waiting
        if not self.send(Report(self._reports)):
            self._drop_pending_reports()
        return waiting

    def watch(self) -> None:
        """Kill a process that hangs; request a report if one is due. Call it every LOOK_S."""
        if self.link is None:
            return
        is_hung = self.link.look() >= (HUNG_S if self.is_running else HUNG_IN_START_S)
        if is_hung and not self._is_hung:
            self._is_hung = True
            self._note_failure("worker %(worker)s hung, restarting it")
            self.link.kill()
        elif self.is_running and not self.asked and self._clock() >= self._next_report:
            self.ask()

    def drain(self, seconds: float) -> asyncio.Future[int]:
        """Drain the worker: wait up to ``seconds`` for connections to end, then reset the rest.

        The future resolves to the number of reset connections, or to 0 if no process is running, or
        the process dies while it drains. No replacement is started.
        """
        self._stop_timer()
        self.drained = self._loop.create_future()
        if not self.send(Drain(seconds)):
            self.drained.set_result(0)
        return self.drained

    def hang_up(self) -> None:
        """Make the worker exit; :meth:`close` or exit next, or a replacement starts."""
        self._stop_timer()
        if self.link is not None:
            self.link.hang_up()

    def close(self, within_s: float) -> None:
        """Terminate the worker, and wait up to ``within_s`` until it has exited. Idempotent."""
        if self.link is not None:
            self.link.close(within_s)
            self.link = None
        self._close_worker_socket()
        self.is_running = False
        self._drop_pending_reports()

    def receive(self, message: FromWorker) -> None:
        if isinstance(message, Running):
            self.is_running, self.problem = True, ""
            extra = {"worker": self.index, "pid": message.pid, "user": message.user}
            _log.info("worker started", extra=extra)
            self._owner.worker_runs(self.index)
        elif isinstance(message, Drained):
            self._note_drained(message.reset)
        else:
            self._owner.receive(self.index, message)
            if isinstance(message, Counted):
                self.status = message.status
                self._note_answer(message.number)

    def facts(self) -> WorkerFacts:
        """Return the facts about the worker's process, as of the last report."""
        status = self.status
        return WorkerFacts(
            self.index,
            self.link.pid if self.link else 0,
            self.restarts,
            status.connections,
            status.flows,
            tuple(zip((*ITERATION_BOUNDS_S, None), status.iterations, strict=False)),
            status.iterations_s,
            self.hung,
        )

    def _on_ended(self, how: str) -> None:
        is_sound = self.is_running and self._clock() - self._began >= _SOUND_S
        self.link = None
        self.is_running = False
        self.status = Status()
        self._drop_pending_reports()
        if self.drained is not None:
            self._owner.worker_ended(self.index)
            self._note_drained(0)
            return
        self.restarts += 1
        self.hung += self._is_hung
        if not self._is_hung:
            self._note_failure("worker %(worker)s exited (%(cause)s), restarting it", cause=how)
        # Notify the owner before the restart, which takes a moment: a substitute serves the
        # worker's clients until then.
        self._owner.worker_ended(self.index)
        self._early_deaths = 0 if is_sound else self._early_deaths + 1
        self._start_again()

    def _start_again(self) -> None:
        pause_s = backoff_s(self._early_deaths - 1, _FIRST_PAUSE_S, _LONGEST_PAUSE_S)
        if pause_s:
            self._timer = self._loop.call_later(pause_s, self.start)
        else:
            self.start()

    def _note_failure(self, text: str, **cause: str) -> None:
        fields = {"worker": self.index, **cause}
        self.problem = text % fields
        _log.error(text, extra=fields)

    def _note_drained(self, reset: int) -> None:
        if self.drained is not None and not self.drained.done():
            self.drained.set_result(reset)

    def _note_answer(self, number: int) -> None:
        """Record the answer to a report and to all earlier reports; ignore unrequested answers."""
        while number in self.asked:
            waiting = self.asked.pop(next(iter(self.asked)))
            if not waiting.done():
                waiting.set_result(None)

    def _drop_pending_reports(self) -> None:
        for waiting in self.asked.values():
            if not waiting.done():
                waiting.set_result(None)
        self.asked.clear()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
