"""The data plane of a node agent: worker processes carry the traffic, this one commands.

    WorkerPool ──OpenGroup, OpenListener + its socket, ChangeGroup …──▶ worker 0
               ──▶ worker 1 …
               ◀── Counted, Logged

Rule 1: the sockets are made, kept and put to listening or refusing here, at once; what workers
receive afterwards is which endpoints to dial. So a listener accepts when ``listen`` returns, and a
worker that hasn't received it yet, or has died, costs its clients a wait, not a refusal.
Rule 2: a worker that dies is replaced, and gets everything anew; so all messages to workers are
derived from what is kept here.
Rule 3: a worker that doesn't answer for STUCK_S counts as dead.
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
from dataclasses import asdict, dataclass, field, replace

from ...model import Protocol, SocketAddress
from ...policy.places import Networks
from ..base import PlaneState, WorkerState
from ..pipes import MAX_PIPES
from ..serving import Serving
from ..tuning import Tuning
from ..turns import TURN_BOUNDS_S
from .forwarding import current_levels, write_record
from .messages import (
    CloseGroup,
    Counted,
    Drain,
    Drained,
    Ejected,
    GroupReport,
    ListenerClosed,
    Logged,
    Message,
    Preserve,
    Report,
    Returned,
    Running,
    Start,
)
from .process import LAST_TURN_S, WorkerProcess
from .shared_group import SharedGroup
from .shared_listeners import SharedListener, SharedListeners

_log = logging.getLogger("userspace_proxy.dataplane")

# Counters that a dying worker takes along are no older than this.
REPORT_S = 5.0
# Longer than any pause of a busy machine.
STUCK_S = 30.0
# Two in a row that die sooner than this die of their start; then the next one waits as long.
_SHORT_LIFE_S = 5.0
# A reader of counters doesn't wait for a busy worker for longer than this.
_REFRESH_S = 1.0
# For a worker to say that it has drained, beyond the time that it was given.
_LAST_WORDS_S = 2.0
# Unless more are asked for. The other half of the cores is for clients and endpoints on the
# node: on two cores a second worker doubles p99 and wins nothing (docs/benchmarks.md).
_MOST_WORKERS = 4

_NOTHING = Counted(0, (), 0, 0, 0, 0, True)


def default_workers() -> int:
    """Return how many workers this machine is good for: one for two cores, 1 to 4."""
    return min(max(1, len(os.sched_getaffinity(0)) // 2), _MOST_WORKERS)


@dataclass(slots=True)
class _Worker:
    """One place among the workers, and the process that has it now."""

    index: int
    process: WorkerProcess | None = None
    is_running: bool = False
    """It has spoken since it was started."""
    restarts: int = 0
    began: float = 0.0
    has_died_early: bool = False
    """The one before lived for a short time only, too: no hurry with the next."""
    asked: dict[int, float] = field(default_factory=dict)
    """Reports that it owes: number → when it was asked."""
    last: Counted = _NOTHING
    reset: int | None = None
    """How many connections it has reset at the end of a drain."""
    problem: str = ""


class WorkerPool:
    """The workers of one proxy. Part of Plane.

    Args:
        loop: Of the control process.
        count: How many workers.
        tuning: Figures for each of them; pipes and ephemeral ports are shared out.
        clock: Monotonic seconds.
        keeps_net_raw: They will dial at their clients' addresses, and keep the capability
            that this takes.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        count: int,
        tuning: Tuning | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        keeps_net_raw: bool = False,
    ) -> None:
        tuning = tuning or Tuning()
        self._loop = loop
        self._clock = clock
        self._keeps_net_raw = keeps_net_raw
        self._networks: Networks | None = None
        """Where networks are; None while endpoints see this node's address."""
        # The kernel's limit is the user's, and all workers are the same one.
        pipes = -(-min(tuning.max_pipes, MAX_PIPES) // count)
        self._tuning = replace(tuning, max_pipes=pipes, processes=count)
        self._workers = [_Worker(index) for index in range(count)]
        self._groups: dict[int, SharedGroup] = {}
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self._listeners = SharedListeners(count, limit, self._send_to)
        self._numbers = 0
        self._reports = 0
        self._refreshing: dict[int, asyncio.Future[None]] = {}
        """Report number → done when its worker has answered."""
        self._timers: set[asyncio.TimerHandle] = set()
        self._drained: asyncio.Event | None = None
        self._is_closed = False

    def start(self) -> None:
        """Start the workers; returns before they run, and what is opened meanwhile waits."""
        for worker in self._workers:
            self._start_worker(worker)
        self._call_later(REPORT_S, self._look)

    # -- Plane ---------------------------------------------------------------

    def open_group(self, label: str, serving: Serving) -> SharedGroup:
        """Part of Plane."""
        self._numbers += 1
        group = SharedGroup(self._numbers, label, serving)
        self._groups[group.number] = group
        for worker in self._workers:
            self._send(worker, group.opening())
        return group

    def close_group(self, group: SharedGroup) -> None:
        """Part of Plane."""
        if self._groups.pop(group.number, None) is not None:
            for worker in self._workers:
                self._send(worker, CloseGroup(group.number))

    def listen(
        self,
        group: SharedGroup,
        protocol: Protocol,
        at: SocketAddress,
        *,
        freebind: bool = False,
        transparent: bool = False,
    ) -> SharedListener:
        """Part of Plane."""
        return self._listeners.open(group, protocol, at, freebind=freebind, transparent=transparent)

    def hand_over(self, port: SharedListener, group: SharedGroup) -> None:
        """Part of Plane."""
        self._listeners.hand_over(port, group)

    def update(self, group: SharedGroup, serving: Serving) -> None:
        """Part of Plane."""
        listeners = self._listeners
        if serving.is_refusing:
            # First: a worker that has no endpoint must not accept.
            listeners.refuse(group)
        elif group.serving.admits is None or not serving.endpoints:
            # Likewise: a client that is to be dropped must not be reset.
            listeners.admit(group, serving.admits)
        change = group.change(serving)
        if change is not None:
            for worker in self._workers:
                self._send(worker, change)
        error = None if serving.is_refusing else listeners.serve(group)
        if error is not None:
            raise error

    def preserve(self, networks: Networks | None) -> None:
        """Part of Plane."""
        old, self._networks = self._networks or {}, networks
        new = networks or {}
        removed = [text for text in old if text not in new]
        added = {text: place for text, place in new.items() if old.get(text) != place}
        for worker in self._workers:
            self._send(worker, Preserve(networks is not None, removed, added))

    def settle(self) -> None:
        """Part of Plane; nothing here: what workers have counted must be asked for."""

    async def refresh(self) -> None:
        """Part of Plane."""
        owed = [self._ask(worker) for worker in self._workers if worker.is_running]
        if owed:
            await asyncio.wait(owed, timeout=_REFRESH_S)

    def state(self) -> PlaneState:
        """Part of Plane."""
        last = [worker.last for worker in self._workers if worker.is_running]
        return PlaneState(
            descriptors=sum(report.descriptors for report in last),
            descriptor_limit=sum(report.descriptor_limit for report in last),
            is_accepting=all(report.is_accepting for report in last),
            is_running=bool(last),
            workers=tuple(
                WorkerState(
                    worker.index,
                    worker.process.pid if worker.process else 0,
                    worker.restarts,
                    worker.last.connections,
                    worker.last.flows,
                    tuple(zip((*TURN_BOUNDS_S, None), worker.last.turns, strict=False)),
                    worker.last.turns_s,
                )
                for worker in self._workers
            ),
            problems=tuple(worker.problem for worker in self._workers if worker.problem),
        )

    async def drain(self, seconds: float) -> int:
        """Part of Plane."""
        self._drained = asyncio.Event()
        for worker in self._workers:
            if worker.process is not None:
                self._send(worker, Drain(seconds))
        self._note_drained()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds + _LAST_WORDS_S):
                await self._drained.wait()
        return sum(worker.reset or 0 for worker in self._workers)

    def close(self) -> None:
        """Part of Plane."""
        if self._is_closed:
            return
        self._is_closed = True
        for timer in self._timers:
            timer.cancel()
        for worker in self._workers:
            if worker.process is not None:
                worker.process.hang_up()
        deadline = time.monotonic() + LAST_TURN_S
        for worker in self._workers:
            if worker.process is not None:
                worker.process.close(deadline - time.monotonic())
                worker.process = None
            self._forgive(worker)
        self._listeners.close_all()

    # -- workers -------------------------------------------------------------

    def _start_worker(self, worker: _Worker) -> None:
        if self._is_closed or self._drained is not None:
            return
        worker.began = self._clock()
        try:
            worker.process = WorkerProcess(
                self._loop,
                receive=lambda message: self._on_message(worker, message),
                ended=lambda how: self._on_ended(worker, how),
            )
        except OSError as exc:
            self._trouble(worker, f"cannot start worker {worker.index}: {exc.strerror}")
            self._call_later(_SHORT_LIFE_S, lambda: self._start_worker(worker))
            return
        self._send(
            worker,
            Start(worker.index, asdict(self._tuning), current_levels(), self._keeps_net_raw),
        )
        if self._networks is not None:
            self._send(worker, Preserve(True, (), dict(self._networks)))
        for group in self._groups.values():
            self._send(worker, group.opening())
        self._listeners.tell(worker.index)

    def _send(self, worker: _Worker, message: Message, *socks: socket.socket) -> bool:
        if worker.process is None:
            return False
        worker.process.send(message, *socks)
        return True

    def _send_to(self, index: int, message: Message, *socks: socket.socket) -> bool:
        return self._send(self._workers[index], message, *socks)

    def _on_message(self, worker: _Worker, message: Message) -> None:
        if isinstance(message, Counted):
            self._on_counted(worker, message)
        elif isinstance(message, Ejected | Returned):
            for other in self._workers:
                if other is not worker:
                    self._send(other, message)
        elif isinstance(message, Logged):
            write_record(message)
        elif isinstance(message, ListenerClosed):
            self._listeners.closed_by(worker.index, message.listener)
        elif isinstance(message, Running):
            self._on_running(worker, message)
        elif isinstance(message, Drained):
            worker.reset = message.reset
            self._note_drained()

    def _on_running(self, worker: _Worker, message: Running) -> None:
        worker.is_running = True
        worker.problem = ""
        _log.info(
            "worker runs",
            extra={"worker": worker.index, "pid": message.pid, "user": message.user},
        )

    def _on_counted(self, worker: _Worker, message: Counted) -> None:
        now = self._clock()
        for item in message.groups:
            report = GroupReport(*item)
            group = self._groups.get(report.group)
            if group is not None:
                group.add(worker.index, report, now)
        worker.last = message._replace(groups=())
        worker.asked.pop(message.number, None)
        waiting = self._refreshing.pop(message.number, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(None)

    def _on_ended(self, worker: _Worker, how: str) -> None:
        worker.process = None
        worker.is_running = False
        worker.last = _NOTHING
        self._forgive(worker)
        for group in self._groups.values():
            group.worker_ended(worker.index)
        self._listeners.worker_ended(worker.index)
        self._note_drained()
        if self._drained is not None or self._is_closed:
            return
        worker.restarts += 1
        self._trouble(worker, f"worker {worker.index} ended by {how} and is started again")
        had_died_early = worker.has_died_early
        worker.has_died_early = self._clock() - worker.began < _SHORT_LIFE_S
        if had_died_early and worker.has_died_early:
            self._call_later(_SHORT_LIFE_S, lambda: self._start_worker(worker))
        else:
            self._start_worker(worker)

    def _trouble(self, worker: _Worker, problem: str) -> None:
        worker.problem = problem
        _log.error("a worker is missing", extra={"worker": worker.index, "cause": problem})

    def _note_drained(self) -> None:
        if self._drained is not None and all(
            worker.process is None or worker.reset is not None for worker in self._workers
        ):
            self._drained.set()

    # -- reports -------------------------------------------------------------

    def _look(self) -> None:
        """Ask each worker for a report; one that owes one for too long is killed and replaced."""
        now = self._clock()
        for worker in self._workers:
            oldest = min(worker.asked.values(), default=now if worker.is_running else worker.began)
            if worker.process is not None and now - oldest >= STUCK_S:
                _log.error("a worker is stuck", extra={"worker": worker.index})
                worker.process.kill()
            elif worker.is_running and not worker.asked:
                self._ask(worker)
        self._call_later(REPORT_S, self._look)

    def _ask(self, worker: _Worker) -> asyncio.Future[None]:
        self._reports += 1
        future: asyncio.Future[None] = self._loop.create_future()
        self._refreshing[self._reports] = future
        worker.asked[self._reports] = self._clock()
        self._send(worker, Report(self._reports))
        return future

    def _forgive(self, worker: _Worker) -> None:
        """Wait for nothing from a worker that is gone."""
        for number in worker.asked:
            waiting = self._refreshing.pop(number, None)
            if waiting is not None and not waiting.done():
                waiting.set_result(None)
        worker.asked.clear()

    def _call_later(self, seconds: float, callback: Callable[[], None]) -> None:
        def fire() -> None:
            self._timers.discard(timer)
            callback()

        timer = self._loop.call_later(seconds, fire)
        self._timers.add(timer)
