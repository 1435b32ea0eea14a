"""The workers of a plane: started, watched, replaced, asked for reports.

Rule 1: a worker process that dies is replaced, and gets everything anew; so all messages to
workers are derived from what the plane keeps.
Rule 2: one that doesn't answer for STUCK_S counts as dead.
Rule 3: a worker in the caller's loop has nothing to be watched for: there is no timer.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import resource
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Protocol

from ..dataplane import Tuning
from ..dataplane.pipes import MAX_PIPES
from .forwarding import current_levels, write_record
from .link import Link, LocalLink
from .messages import (
    Counted,
    Drain,
    Drained,
    Ejected,
    FromWorker,
    GroupReport,
    ListenerClosed,
    Logged,
    Report,
    Returned,
    Running,
    Start,
    Status,
    ToWorker,
)

_log = logging.getLogger("userspace_proxy.dataplane")

# Counters that a dying worker takes along are no older than this.
REPORT_S = 5.0
# Longer than any pause of a busy machine.
STUCK_S = 30.0
# Two in a row that die sooner than this die of their start; then the next one waits as long.
_SHORT_LIFE_S = 5.0
# A reader of counters doesn't wait for a busy worker for longer than this.
_REFRESH_S = 1.0
# For a worker to report that it has drained, beyond the time that it was given.
_DRAINED_S = 2.0
# For workers whose channel is closed to reset their connections: some milliseconds, or a start.
_CLOSE_S = 1.0
# Unless more are asked for. The other half of the cores is for clients and endpoints on the
# node: on two cores a second worker doubles p99 and wins nothing (docs/benchmarks.md).
_MOST_WORKERS = 4
# So many listeners in the caller's loop are never too many.
_FEW_LISTENERS = 32


def default_workers() -> int:
    """Return how many workers this machine is good for: one for two cores, 1 to 4."""
    return min(max(1, len(os.sched_getaffinity(0)) // 2), _MOST_WORKERS)


@dataclass(frozen=True, slots=True)
class WorkerState:
    """One process that carries traffic."""

    index: int
    pid: int
    """0 while it isn't running."""
    restarts: int
    status: Status
    """At its last report."""


@dataclass(frozen=True, slots=True)
class PlaneState:
    """How a plane is doing."""

    descriptors: int
    """In use for traffic, in all workers."""
    descriptor_limit: int
    is_accepting: bool
    """False while accepting is paused at the descriptor limit."""
    is_running: bool = True
    """False while no worker runs."""
    workers: tuple[WorkerState, ...] = ()
    """Worker processes; empty where the caller's loop carries the traffic."""
    problems: tuple[str, ...] = ()
    """What is wrong at this moment, one line each."""


class _Owner(Protocol):
    """What workers need of their plane: see ``Plane``."""

    def tell(self, worker: int) -> None: ...
    def add(self, worker: int, report: GroupReport) -> None: ...
    def closed_by(self, worker: int, listener: int) -> None: ...
    def worker_ended(self, worker: int) -> None: ...


@dataclass(slots=True)
class _Worker:
    """One place among the workers, and the link to the one that has it now."""

    index: int
    link: Link | None = None
    is_running: bool = False
    """It is a process, and has sent a message since it was started."""
    restarts: int = 0
    began: float = 0.0
    has_died_early: bool = False
    """The one before lived for a short time only, too: no hurry with the next."""
    asked: dict[int, tuple[float, asyncio.Future[None]]] = field(default_factory=dict)
    """Reports that it owes: number → when it was asked, and what waits for the answer."""
    status: Status = field(default_factory=Status)
    """As of its last report."""
    reset: int | None = None
    """How many connections it has reset at the end of a drain."""
    problem: str = ""


class Workers:
    """The workers of one plane.

    Args:
        owner: The plane.
        loop: Of the control half.
        count: How many processes; None for one worker in the loop itself.
        tuning: Figures for each of them; pipes and ephemeral ports are shared out.
        clock: Monotonic seconds.
        keeps_net_raw: They will dial at their clients' addresses, and keep the capability
            that this takes.
    """

    def __init__(
        self,
        owner: _Owner,
        loop: asyncio.AbstractEventLoop,
        count: int | None,
        tuning: Tuning,
        *,
        clock: Callable[[], float],
        keeps_net_raw: bool,
    ) -> None:
        self._owner = owner
        self._loop = loop
        self._clock = clock
        self._keeps_net_raw = keeps_net_raw
        self._workers = [_Worker(index) for index in range(count or 1)]
        self._reports = 0
        self._timers: set[asyncio.TimerHandle] = set()
        self._drained: asyncio.Event | None = None
        self._is_closed = False
        self.local: LocalLink | None = None
        """To the worker in this loop; None where they are processes."""
        if count is None:
            (worker,) = self._workers
            self.local = worker.link = LocalLink(
                loop, tuning, clock=clock, receive=lambda message: self._on_message(worker, message)
            )
        else:
            # The kernel's limit is the user's, and all workers are the same one.
            pipes = -(-min(tuning.max_pipes, MAX_PIPES) // count)
            self._tuning = replace(tuning, max_pipes=pipes, processes=count)

    def __len__(self) -> int:
        return len(self._workers)

    @property
    def descriptor_limit(self) -> int:
        """How many descriptors a worker may have, and this process."""
        if self.local is not None:
            return max(2 * _FEW_LISTENERS, self.local.status().descriptor_limit)
        return resource.getrlimit(resource.RLIMIT_NOFILE)[0]

    def start(self) -> None:
        """Start the processes; returns before they run, and what is opened meanwhile waits."""
        if self.local is None:
            for worker in self._workers:
                self._start_worker(worker)
            self._call_later(REPORT_S, self._look)

    def send(self, index: int, message: ToWorker, *socks: socket.socket) -> bool:
        """Send a message to a worker; False while there is none."""
        link = self._workers[index].link
        if link is None:
            return False
        link.send(message, *socks)
        return True

    def send_all(self, message: ToWorker, *, but: int = -1) -> None:
        """Send a message to every worker but one."""
        for worker in self._workers:
            if worker.index != but:
                self.send(worker.index, message)

    def settle(self) -> None:
        """Part of Plane."""
        if self.local is not None:
            self.local.send(Report(0))

    async def refresh(self) -> None:
        """Part of Plane."""
        self.settle()
        owed = [self._ask(worker) for worker in self._workers if worker.is_running]
        if owed:
            await asyncio.wait(owed, timeout=_REFRESH_S)

    def state(self) -> PlaneState:
        """Return how they are doing."""
        if self.local is not None:
            status = self.local.status()
            return PlaneState(status.descriptors, status.descriptor_limit, status.is_accepting)
        running = [worker.status for worker in self._workers if worker.is_running]
        return PlaneState(
            descriptors=sum(status.descriptors for status in running),
            descriptor_limit=sum(status.descriptor_limit for status in running),
            is_accepting=all(status.is_accepting for status in running),
            is_running=bool(running),
            workers=tuple(
                WorkerState(w.index, w.link.pid if w.link else 0, w.restarts, w.status)
                for w in self._workers
            ),
            problems=tuple(worker.problem for worker in self._workers if worker.problem),
        )

    async def drain(self, seconds: float) -> int:
        """Wait until the open connections have ended, then reset what is left; returns how many."""
        self._drained = drained = asyncio.Event()
        for worker in self._workers:
            worker.reset = None
            self.send(worker.index, Drain(seconds))
        self._note_drained()
        if not drained.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(drained.wait(), seconds + _DRAINED_S)
        return sum(worker.reset or 0 for worker in self._workers)

    def close(self) -> None:
        """End all of them. Idempotent."""
        if self._is_closed:
            return
        self._is_closed = True
        for timer in self._timers:
            timer.cancel()
        for worker in self._workers:
            if worker.link is not None:
                worker.link.hang_up()
        deadline = time.monotonic() + _CLOSE_S
        for worker in self._workers:
            if worker.link is not None:
                worker.link.close(deadline - time.monotonic())
                worker.link = None
            self._drop_pending_reports(worker)

    # -- processes -----------------------------------------------------------

    def _start_worker(self, worker: _Worker) -> None:
        if self._is_closed or self._drained is not None:
            return
        # Embedding starts no process, and imports nothing for it.
        from .process import WorkerProcess

        worker.began = self._clock()
        try:
            worker.link = WorkerProcess(
                self._loop,
                receive=lambda message: self._on_message(worker, message),
                ended=lambda how: self._on_ended(worker, how),
            )
        except OSError as exc:
            self._note_failure(worker, f"cannot start worker {worker.index}: {exc.strerror}")
            self._call_later(_SHORT_LIFE_S, lambda: self._start_worker(worker))
            return
        worker.link.send(Start(worker.index, self._tuning, current_levels(), self._keeps_net_raw))
        self._owner.tell(worker.index)

    def _on_message(self, worker: _Worker, message: FromWorker) -> None:
        if isinstance(message, Counted):
            self._on_counted(worker, message)
        elif isinstance(message, Ejected | Returned):
            self.send_all(message, but=worker.index)
        elif isinstance(message, Logged):
            write_record(message)
        elif isinstance(message, ListenerClosed):
            self._owner.closed_by(worker.index, message.listener)
        elif isinstance(message, Running):
            worker.is_running, worker.problem = True, ""
            extra = {"worker": worker.index, "pid": message.pid, "user": message.user}
            _log.info("worker runs", extra=extra)
        elif isinstance(message, Drained):
            worker.reset = message.reset
            self._note_drained()

    def _on_counted(self, worker: _Worker, message: Counted) -> None:
        for report in message.groups:
            self._owner.add(worker.index, report)
        worker.status = message.status
        _, waiting = worker.asked.pop(message.number, (0.0, None))
        if waiting is not None and not waiting.done():
            waiting.set_result(None)

    def _on_ended(self, worker: _Worker, how: str) -> None:
        worker.link = None
        worker.is_running = False
        worker.status = Status()
        self._drop_pending_reports(worker)
        self._owner.worker_ended(worker.index)
        self._note_drained()
        if self._drained is not None or self._is_closed:
            return
        worker.restarts += 1
        self._note_failure(worker, f"worker {worker.index} ended by {how} and is started again")
        had_died_early = worker.has_died_early
        worker.has_died_early = self._clock() - worker.began < _SHORT_LIFE_S
        if had_died_early and worker.has_died_early:
            self._call_later(_SHORT_LIFE_S, lambda: self._start_worker(worker))
        else:
            self._start_worker(worker)

    def _note_failure(self, worker: _Worker, problem: str) -> None:
        worker.problem = problem
        _log.error("a worker is missing", extra={"worker": worker.index, "cause": problem})

    def _note_drained(self) -> None:
        if self._drained is not None and all(
            worker.link is None or worker.reset is not None for worker in self._workers
        ):
            self._drained.set()

    # -- reports -------------------------------------------------------------

    def _look(self) -> None:
        """Ask each worker for a report; one that owes one for too long is killed and replaced."""
        now = self._clock()
        for worker in self._workers:
            since = [at for at, _ in worker.asked.values()]
            since.append(now if worker.is_running else worker.began)
            if worker.link is not None and now - min(since) >= STUCK_S:
                _log.error("a worker is stuck", extra={"worker": worker.index})
                worker.link.kill()
            elif worker.is_running and not worker.asked:
                self._ask(worker)
        self._call_later(REPORT_S, self._look)

    def _ask(self, worker: _Worker) -> asyncio.Future[None]:
        self._reports += 1
        waiting: asyncio.Future[None] = self._loop.create_future()
        worker.asked[self._reports] = self._clock(), waiting
        self.send(worker.index, Report(self._reports))
        return waiting

    def _drop_pending_reports(self, worker: _Worker) -> None:
        """Wait for nothing from a worker that is gone."""
        for _, waiting in worker.asked.values():
            if not waiting.done():
                waiting.set_result(None)
        worker.asked.clear()

    def _call_later(self, seconds: float, callback: Callable[[], None]) -> None:
        def fire() -> None:
            self._timers.discard(timer)
            callback()

        timer = self._loop.call_later(seconds, fire)
        self._timers.add(timer)
