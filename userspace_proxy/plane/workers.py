"""The workers of a plane: started, watched, replaced, asked for reports.

Rule 1: a worker process that dies is replaced, and its successor is sent everything; so all
messages to workers are derived from what the plane keeps.
Rule 2: a process that hangs is killed (``watchdog``), and so replaced.
Rule 3: changes of a group that wait for a slow worker are merged (``merging``), so what waits is
bounded by the number of groups.
Rule 4: a worker in the caller's loop isn't watched: it needs no timer.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from ..dataplane import MemoryState, Tuning
from ..log_fields import FieldLogger
from ..pacing import backoff_s
from .group import GroupUpdate, Totals
from .link import Link
from .log_sender import current_levels
from .merging import Merging
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
from .watchdog import HUNG_IN_START_S, HUNG_S

if TYPE_CHECKING:
    from ..kernel.abstract_sockets import VouchedSocket

_log = FieldLogger("userspace_proxy.dataplane")

# A process that ends sooner, or before it runs, dies of its start. After the second one in a row
# there is a pause, which doubles with each.
_SOUND_S = 0.5
_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 5.0
# Unless more are requested. The other half of the cores is for clients and endpoints on the node:
# on two cores a second worker doubles p99 and gains nothing (docs/benchmarks.md).
_MAX_DEFAULT_WORKERS = 4


def default_workers() -> int:
    """Return how many workers suit this machine: one for two cores, 1 to 4."""
    return min(max(1, len(os.sched_getaffinity(0)) // 2), _MAX_DEFAULT_WORKERS)


@dataclass(frozen=True, slots=True)
class WorkerState:
    """One process that carries traffic."""

    index: int
    pid: int
    """0 while it isn't running."""
    restarts: int
    """How often its process was replaced."""
    hung: int
    """In how many of these cases because it hung."""
    status: Status
    """As of its last report."""


@dataclass(frozen=True, slots=True)
class PlaneState:
    """The state of a plane, summed over its workers."""

    descriptors: int
    """In use for traffic."""
    descriptor_limit: int
    is_accepting: bool
    """False while accepting is paused at the limit of descriptors or memory."""
    is_running: bool = True
    """False while no worker runs."""
    connections: int = 0
    """Open TCP connections."""
    workers: tuple[WorkerState, ...] = ()
    """Worker processes; empty if the caller's loop carries the traffic."""
    problems: tuple[str, ...] = ()
    """What is wrong now, one line each."""
    memory: MemoryState = field(default_factory=MemoryState)
    """Of the worker that is nearest to its limit; short if any worker is."""
    totals: Totals = field(default_factory=Totals)
    """Continues to count."""


class _SlotOwner(Protocol):
    """What a worker needs of its owner: see ``Plane``."""

    def receive(self, worker: int, message: FromWorker) -> None: ...
    def worker_began(self, worker: int) -> None: ...
    def worker_runs(self, worker: int) -> None: ...
    def worker_ended(self, worker: int) -> None: ...


class WorkerSlot:
    """One worker of a plane: its link, or those of the processes that have been in its place.

    The tuning and ``keeps_net_raw`` are for its processes.
    """

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
        """None while no process runs."""
        self.is_running = False
        """It carries traffic: a process has sent a message since it was started."""
        self.restarts = 0
        self.hung = 0
        """In how many of these cases the process hung."""
        self.status = Status()
        """As of the last report."""
        self.problem = ""
        self.asked: dict[int, asyncio.Future[None]] = {}
        """Reports that it owes: number → what waits for the answer."""
        self.drained: asyncio.Future[int] | None = None
        """How many connections a drain had to reset."""
        self._merging = Merging()
        self._owner = owner
        self._loop = loop
        self._clock = clock
        self._keeps_net_raw = keeps_net_raw
        self._label = label
        self._rendezvous: VouchedSocket | None = None
        """Where the process, once orphaned, waits for the next control process."""
        self._reports = 0
        self._next_report = 0.0
        self._is_hung = False
        self._began = 0.0
        self._early_deaths = 0
        """How many processes in a row have died of their start, or couldn't be started."""
        self._timer: asyncio.TimerHandle | None = None
        """Of the next start."""

    def start(self) -> None:
        """Start a process; messages to it wait until it runs."""
        # Embedding starts no process, and imports nothing for it.
        from .worker_process import WorkerProcess

        self._began = self._clock()
        try:
            # First: a process without it would wait for its first message.
            rendezvous = self._open_rendezvous()
            self.link = WorkerProcess(self._loop, receive=self.receive, ended=self._on_ended)
        except OSError as exc:
            self._close_rendezvous()
            self._note_failure(f"cannot start worker {self.index}: {exc.strerror}")
            self._early_deaths = max(2, self._early_deaths + 1)
            self._start_again()
            return
        self._is_hung = False
        self._merging = Merging()
        start = Start(self.index, self.tuning, current_levels(), self._keeps_net_raw)
        self.send(start, *rendezvous)
        self._owner.worker_began(self.index)

    def _open_rendezvous(self) -> tuple[socket.socket, ...]:
        from .rendezvous import open_rendezvous

        self._close_rendezvous()
        if self._label is None:
            return ()
        self._rendezvous = open_rendezvous(self._label)
        return (self._rendezvous, *self._rendezvous.vouchers)

    def _close_rendezvous(self) -> None:
        if self._rendezvous is not None:
            self._rendezvous.close()
            self._rendezvous = None

    def send(self, message: ToWorker, *socks: socket.socket) -> bool:
        """Send a message; returns False while no worker runs."""
        if self.link is None:
            return False
        self._merging.note(message)
        self.link.send(message, *socks)
        return True

    def update(self, update: GroupUpdate) -> None:
        """Send what has changed of a group; without effect while no worker runs."""
        if self.link is None:
            return
        if (make := self._merging.add(update)) is not None:
            self.link.send_later(make)

    def ask(self) -> asyncio.Future[None]:
        """Ask for a report; the result is set when it has arrived, or never will."""
        self._reports += 1
        self._next_report = self._clock() + REPORT_S
        waiting: asyncio.Future[None] = self._loop.create_future()
        self.asked[self._reports] = waiting
        if not self.send(Report(self._reports)):
            self._drop_pending_reports()
        return waiting

    def watch(self) -> None:
        """Kill a process that hangs; ask for a report if one is due. Call it every LOOK_S."""
        if self.link is None:
            return
        is_hung = self.link.look() >= (HUNG_S if self.is_running else HUNG_IN_START_S)
        if is_hung and not self._is_hung:
            self._is_hung = True
            self._note_failure(f"worker {self.index} hung and is started again")
            self.link.kill()
        elif self.is_running and not self.asked and self._clock() >= self._next_report:
            self.ask()

    def drain(self, seconds: float) -> asyncio.Future[int]:
        """Wait until its connections have ended, then have the rest reset; no process follows.

        Returns how many had to be reset; 0 for a process that dies meanwhile.
        """
        self._stop_timer()
        self.drained = self._loop.create_future()
        if not self.send(Drain(seconds)):
            self.drained.set_result(0)
        return self.drained

    def hang_up(self) -> None:
        """Have the worker end by itself, and start no other."""
        self._stop_timer()
        if self.link is not None:
            self.link.hang_up()

    def close(self, within_s: float) -> None:
        """End the worker, and wait at most that long for that. Idempotent."""
        if self.link is not None:
            self.link.close(within_s)
            self.link = None
        self._close_rendezvous()
        self.is_running = False
        self._drop_pending_reports()

    def receive(self, message: FromWorker) -> None:
        if isinstance(message, Running):
            self.is_running, self.problem = True, ""
            extra = {"worker": self.index, "pid": message.pid, "user": message.user}
            _log.info("worker runs", extra=extra)
            self._owner.worker_runs(self.index)
        elif isinstance(message, Drained):
            self._note_drained(message.reset)
        else:
            self._owner.receive(self.index, message)
            if isinstance(message, Counted):
                self.status = message.status
                self._note_answer(message.number)

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
            self._note_failure(f"worker {self.index} ended by {how} and is started again")
        # Before the next start, which takes a moment: other workers serve its clients meanwhile.
        self._owner.worker_ended(self.index)
        self._early_deaths = 0 if is_sound else self._early_deaths + 1
        self._start_again()

    def _start_again(self) -> None:
        pause_s = backoff_s(self._early_deaths - 1, _FIRST_PAUSE_S, _LONGEST_PAUSE_S)
        if pause_s:
            self._timer = self._loop.call_later(pause_s, self.start)
        else:
            self.start()

    def _note_failure(self, problem: str) -> None:
        self.problem = problem
        _log.error("a worker is missing: %(cause)s", extra={"worker": self.index, "cause": problem})

    def _note_drained(self, reset: int) -> None:
        if self.drained is not None and not self.drained.done():
            self.drained.set_result(reset)

    def _note_answer(self, number: int) -> None:
        """Note the answer to a report, and so to those before it; to none if it isn't owed."""
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
