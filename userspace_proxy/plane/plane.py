"""The control half of the traffic: opens, keeps and hands over sockets, and commands workers.

    Plane ──OpenGroup, OpenListener + its socket, ChangeGroup …──▶ worker 0
          ──▶ worker 1 …
          ◀── Counted, ListenerClosed, Ejected …

A worker is a process (the node agent), or lives in the caller's loop (embedding, demo, tests).

Rule 1: sockets are opened, and listen or refuse, here and at once; workers then learn which
endpoints to dial. So a listener accepts when :meth:`Plane.serve` returns, and a worker that is slow
or dead costs its clients a wait, not a refusal.
Rule 2: nothing awaits here but :meth:`Plane.refresh`, :meth:`Plane.idle` and :meth:`Plane.drain`.
"""

from __future__ import annotations

import asyncio
import resource
import socket
from collections.abc import Awaitable, Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ..clocks import Clocks
from ..dataplane import Dialer, MemoryState, Tuning
from ..dataplane.pipes import MAX_PIPES
from ..errors import ListenError
from ..facts.connection import ConnectionFilter
from ..model.serving import Serving
from ..policy.locality import Networks
from .group import Group, GroupUpdate, Totals
from .link import LocalLink
from .listener import Answer, Listener, Wanted
from .listeners import Listeners
from .log_sender import write_record
from .messages import (
    Called,
    CloseGroup,
    Counted,
    Ejected,
    FromWorker,
    Keep,
    ListenerClosed,
    Logged,
    Observe,
    Observed,
    Prefer,
    Preserve,
    Returned,
    Status,
    ToWorker,
    WaitBegan,
)
from .watchdog import LOOK_S
from .workers import PlaneState, WorkerSlot, WorkerState

if TYPE_CHECKING:
    from ..model import PortKey, Protocol, SocketAddress
    from .adoption import Predecessors

# A reader of counters doesn't wait for a busy worker for longer than this.
_REFRESH_S = 1.0
# Between two looks whether connections are open.
_LOOK_S = 0.1
# For a worker to report that it has drained, beyond the time that it was given.
_DRAINED_S = 2.0
# For workers whose channel is closed to reset their connections: some milliseconds, or a start.
_CLOSE_S = 1.0
# So many listeners in the caller's loop are never too many.
_FEW_LISTENERS = 32


OnEjection = Callable[[Group, "SocketAddress", bool], None]
"""Called with an endpoint that a worker has ejected, or, with False, that has answered since."""
OnWaits = Callable[[Group], None]
"""Called when a client begins to wait for an endpoint, and no other waits in its worker."""


OnObserved = Callable[[Observed | Called], None]
"""Called with what a worker has observed, and with the calls of its clients."""


def _ignore_waits(_group: Group) -> None:
    """Do nothing."""


def _ignore_observed(_message: Observed | Called) -> None:
    """Do nothing."""


class Plane:
    """The listeners, Service ports and workers of one proxy.

    Without a number of worker processes the caller's loop carries the traffic. The tuning is for
    each worker, but pipes and ephemeral ports are shared out. With ``keeps_net_raw`` worker
    processes keep the capability that dialling at client addresses takes. With a label they
    continue to serve when this process has died, and the next proxy of this label finds them.
    ``predecessors`` are those of the last one; the caller has them drain. A dialer replaces the
    dials of TCP, in the caller's loop only.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        workers: int | None = None,
        tuning: Tuning | None = None,
        *,
        clock: Callable[[], float] = Clocks.monotonic,
        keeps_net_raw: bool = False,
        label: str | None = None,
        predecessors: Predecessors | None = None,
        dialer: Dialer | None = None,
    ) -> None:
        self.on_ejection: list[OnEjection] = []
        self.on_waits: OnWaits = _ignore_waits
        self.on_observed: OnObserved = _ignore_observed
        self._loop = loop
        self._clock = clock
        self._totals = Totals()
        self._groups: dict[int, Group] = {}
        self._numbers = 0
        self._networks: Networks | None = None
        """See :meth:`preserve`."""
        self._timer: asyncio.TimerHandle | None = None
        """Of the next look at the processes."""
        tuning, count = tuning or Tuning(), workers or 1
        if workers is not None:
            # The kernel limits pipes per user, and all workers are the same user.
            pipes = -(-min(tuning.max_pipes, MAX_PIPES) // count)
            tuning = replace(tuning, max_pipes=pipes, processes=count)
        self._workers = [
            WorkerSlot(index, self, loop, clock, tuning, keeps_net_raw=keeps_net_raw, label=label)
            for index in range(count)
        ]
        self._local: LocalLink | None = None
        """To the worker in the caller's loop; None if workers are processes."""
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        if workers is None:
            (worker,) = self._workers
            self._local = worker.link = LocalLink(
                loop, tuning, clock=clock, receive=worker.receive, dialer=dialer
            )
            worker.is_running = True
            limit = max(2 * _FEW_LISTENERS, self._local.status().descriptor_limit)
        self._listeners = Listeners(count, limit, self._send, predecessors)
        self._predecessors = predecessors
        if predecessors is not None:
            predecessors.on_pins = self._send_all
            predecessors.on_drain = self._listeners.predecessors_drain
        self._kept: dict[str, socket.socket] = {}
        """See :meth:`keep`."""

    def start(self) -> None:
        """Start the worker processes; the caller's own loop needs no start.

        Returns before they run; listeners opened meanwhile accept later.
        """
        if self._local is None:
            for worker in self._workers:
                worker.start()
            self._timer = self._loop.call_later(LOOK_S, self._watch)

    def open_group(self, key: PortKey) -> Group:
        """Return a group for a Service port; workers learn of it by :meth:`serve`."""
        self._numbers += 1
        return Group(self._numbers, key)

    def serve(self, group: Group, serving: Serving, wanted: Mapping[Hashable, Wanted]) -> Answer:
        """Serve a Service port in this way from now on, with these listeners by keys of the caller.

        Listeners serve, refuse or drop at once; those that are open stay as they are. Keys are
        unique in the plane: reusing another group's key takes over its listener, and clients
        notice nothing, unless that group was told to refuse before. Open TCP connections stay with
        their group, UDP flows end, and clients that wait to be accepted are the new group's. A
        listener whose key isn't wanted any more continues until :meth:`close_unwanted`.

        Returns what listens, and why the rest doesn't, or refuses. Call again to try again. What is
        too large for a message to a worker refuses.
        """
        if why := group.why_too_large(serving):
            serving = Serving()
        self._listeners.prepare(group, serving, wanted)
        if group.number not in self._groups:
            self._groups[group.number] = group
            group.change(serving, self._clock())
            self._update_all(group.opening())
            if self._predecessors is not None:
                # Before the listeners, to all workers: a client may reach another one than before.
                for pins in self._predecessors.take_pins(group.label):
                    self._send_all(pins)
        elif (change := group.change(serving, self._clock())) is not None:
            self._update_all(change)
        answer = self._listeners.follow(group, wanted)
        if why:
            error = ListenError(f"cannot serve {group.label}: {why}", hint="divide the Service")
            answer.errors.update(dict.fromkeys(wanted, error))
        return answer

    def recover(
        self, wanted: Iterable[tuple[Protocol, SocketAddress]], *, transparent: bool
    ) -> None:
        """Have clients wait at addresses of an earlier run, whose listeners aren't known yet.

        A listener that :meth:`serve` opens there serves those that wait; call
        :meth:`close_recovered` once all are open, and no client is led to others.

        Args:
            transparent: As in ``Wanted``.
        """
        self._listeners.recover(wanted, transparent=transparent)

    @property
    def has_recovered(self) -> bool:
        """Whether clients wait, or may, where no listener is known yet."""
        return bool(self._listeners.recovered)

    def close_recovered(self) -> None:
        """Refuse clients where no listener is known, and reset those that wait. Idempotent."""
        self._listeners.recovered.close()

    def prefer(self, group: Group, endpoint: SocketAddress) -> None:
        """Have the next connection of a group use an endpoint; for one worker only."""
        self._send_all(Prefer(group.number, endpoint))

    def close_unwanted(self) -> list[Listener]:
        """Close the listeners that no group wants any more; returns them."""
        return self._listeners.close_unwanted()

    def close_group(self, group: Group) -> list[Listener]:
        """Close a group's listeners, and forget it; returns them. Idempotent.

        Open TCP connections continue, UDP flows end. The group has no endpoint afterwards.
        """
        closed = self._listeners.close_group(group)
        if self._groups.pop(group.number, None) is not None:
            group.change(Serving(), self._clock())
            self._send_all(CloseGroup(group.number))
        return closed

    def preserve(self, networks: Networks | None) -> None:
        """Have endpoints see client addresses where replies return through this node.

        Without networks, endpoints see this node's address.
        """
        old, self._networks = self._networks or {}, networks
        new = networks or {}
        removed = [text for text in old if text not in new]
        added = {text: place for text, place in new.items() if old.get(text) != place}
        self._send_all(Preserve(networks is not None, removed, added))

    def keep(self, name: str, sock: socket.socket) -> None:
        """Have worker processes keep a socket for the next control process; it stays the caller's.

        That process finds it in ``Predecessors.kept``. A worker in the caller's loop keeps none: it
        ends with this process.
        """
        if self._local is not None:
            return
        self._kept[name] = sock
        self._send_all(Keep(name), sock)

    def observe(self, filters: Sequence[ConnectionFilter]) -> None:
        """Have workers send what they have observed, and observe what a filter takes from now on.

        :attr:`on_observed` gets it. Without filters nothing is observed any more.
        """
        self._send_all(Observe(list(filters)))

    def settle(self) -> None:
        """Bring counters up to date, as far as that takes no waiting."""
        if self._local is not None:
            self._workers[0].ask()

    async def refresh(self) -> None:
        """Bring all counters up to date; call before reading them."""
        asked = [worker.ask() for worker in self._workers if worker.is_running]
        owed = [waiting for waiting in asked if not waiting.done()]
        if owed:
            await asyncio.wait(owed, timeout=_REFRESH_S)

    def state(self) -> PlaneState:
        """Return the state of the workers, as of their last reports."""
        if self._local is not None:
            status = self._local.status()
            return PlaneState(
                status.descriptors,
                status.descriptor_limit,
                status.is_accepting,
                connections=status.connections,
                totals=self._totals,
            )
        running = [worker.status for worker in self._workers if worker.is_running]
        nearest = max(
            running,
            key=lambda status: status.memory_bytes / max(1, status.memory_limit_bytes),
            default=Status(),
        )
        return PlaneState(
            descriptors=sum(status.descriptors for status in running),
            descriptor_limit=sum(status.descriptor_limit for status in running),
            is_accepting=all(status.is_accepting for status in running),
            is_running=bool(running),
            connections=sum(status.connections for status in running),
            workers=tuple(
                WorkerState(w.index, w.link.pid if w.link else 0, w.restarts, w.hung, w.status)
                for w in self._workers
            ),
            problems=tuple(worker.problem for worker in self._workers if worker.problem),
            memory=MemoryState(
                nearest.memory_bytes,
                nearest.memory_limit_bytes,
                is_short=any(status.is_short_of_memory for status in running),
                was_short=any(status.was_short_of_memory for status in running),
            ),
            totals=self._totals,
        )

    @property
    def has_all_workers(self) -> bool:
        return all(worker.is_running for worker in self._workers)

    async def serves(self, wait: Callable[[], Awaitable[None]]) -> None:
        """Wait until all workers have applied everything that was sent before.

        Args:
            wait: Awaited between two looks.
        """
        while not self.has_all_workers:
            await wait()
        await self.refresh()

    async def idle(self, within_s: float) -> None:
        """Wait until no TCP connection is open, but not for longer; clients are still served."""
        until, was_idle = self._clock() + within_s, False
        while (left := until - self._clock()) > 0:
            await self.refresh()
            is_idle = not self.state().connections
            if is_idle and was_idle:
                return
            # A worker may be about to accept one.
            was_idle = is_idle
            await asyncio.wait([self._loop.create_future()], timeout=min(left, _LOOK_S))

    async def drain(self, seconds: float) -> int:
        """Wait until the open connections have ended, then reset the rest; returns how many.

        Close the groups before.
        """
        draining = [worker.drain(seconds) for worker in self._workers]
        done, _ = await asyncio.wait(draining, timeout=seconds + _DRAINED_S)
        return sum(reset.result() for reset in done)

    def hang_up(self) -> None:
        """Have the worker processes end by themselves, at once."""
        for worker in self._workers:
            worker.hang_up()

    def close(self) -> None:
        """Close every socket at once; open connections are reset. Idempotent."""
        if self._timer is not None:
            self._timer.cancel()
        self.hang_up()
        deadline = Clocks.monotonic() + _CLOSE_S
        for worker in self._workers:
            worker.close(deadline - Clocks.monotonic())
        self._listeners.close_all()

    # -- for the workers -----------------------------------------------------

    def receive(self, worker: int, message: FromWorker) -> None:
        """Take a worker's message about groups and listeners, or for the log."""
        if isinstance(message, Counted):
            # It has all that it was sent before it was asked.
            self._listeners.end_stand_in(worker)
            for report in message.groups:
                self._totals.add(report)
                group = self._groups.get(report.group)
                if group is not None:
                    group.add(worker, report, self._clock())
        elif isinstance(message, Ejected | Returned):
            self._note_ejection(worker, message)
        elif isinstance(message, WaitBegan):
            if (group := self._groups.get(message.group)) is not None:
                self.on_waits(group)
        elif isinstance(message, Logged):
            write_record(message)
        elif isinstance(message, Observed | Called):
            self.on_observed(message)
        elif isinstance(message, ListenerClosed):
            self._listeners.closed_by(worker, message.listener)

    def _note_ejection(self, worker: int, message: Ejected | Returned) -> None:
        self._send_all(message, but=worker)
        group = self._groups.get(message.group)
        if group is None:
            return
        if isinstance(message, Returned):
            group.returned(message.endpoint, self._clock())
        for note in self.on_ejection:
            note(group, message.endpoint, isinstance(message, Ejected))

    def worker_began(self, worker: int) -> None:
        """Send a process that has just been started everything."""
        for name, sock in self._kept.items():
            self._send(worker, Keep(name), sock)
        if self._networks is not None:
            self._send(worker, Preserve(True, [], dict(self._networks)))
        for group in self._groups.values():
            self._workers[worker].update(group.opening())
        self._listeners.send_all(worker)

    def worker_runs(self, worker: int) -> None:
        """Note that a process runs; it hasn't opened its listeners yet."""
        self._workers[worker].ask()
        self._find_stand_ins()

    def worker_ended(self, worker: int) -> None:
        for group in self._groups.values():
            group.worker_ended(worker)
        self._listeners.worker_ended(worker)
        self._find_stand_ins()

    def _find_stand_ins(self) -> None:
        """Have workers that run serve the clients of those that are missing."""
        running = [worker.index for worker in self._workers if worker.is_running]
        for worker in self._workers:
            if worker.problem:
                self._listeners.stand_in(worker.index, running)

    def _send(self, worker: int, message: ToWorker, *socks: socket.socket) -> bool:
        return self._workers[worker].send(message, *socks)

    def _send_all(self, message: ToWorker, *socks: socket.socket, but: int = -1) -> None:
        for worker in self._workers:
            if worker.index != but:
                worker.send(message, *socks)

    def _update_all(self, update: GroupUpdate) -> None:
        for worker in self._workers:
            worker.update(update)

    def _watch(self) -> None:
        for worker in self._workers:
            worker.watch()
        self._timer = self._loop.call_later(LOOK_S, self._watch)
