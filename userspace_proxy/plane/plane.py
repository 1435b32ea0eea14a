"""Owns a proxy's sockets, Service ports and workers, and sends the workers their commands.

    Plane ──OpenGroup, OpenListener + its socket, ChangeGroup …──▶ worker 0
          ──▶ worker 1 …
          ◀── Counted, ListenerClosed, Ejected …

A worker is a process (node agent), or runs in the caller's loop (embedding, demo, tests).

Rule 1: this process opens the sockets, and makes them listen or refuse, before workers learn which
endpoints to dial. A listener therefore accepts once :meth:`Plane.serve` returns, and clients of a
slow or dead worker wait instead of being refused.
Rule 2: only ``refresh``, ``serves``, ``idle`` and ``drain`` are coroutines.
"""

from __future__ import annotations

import asyncio
import resource
import socket
from collections.abc import Awaitable, Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ..clocks import Clocks
from ..dataplane import Dialer, MemoryState, Tuning
from ..dataplane.tuning import MAX_PIPES
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
from .workers import PlaneState, WorkerSlot

if TYPE_CHECKING:
    from ..model import PortKey, Protocol, SocketAddress
    from .adoption import PreviousWorkers

# How long :meth:`Plane.refresh` waits for the reports of busy workers.
_REFRESH_S = 1.0
# The interval between two checks for open connections.
_LOOK_S = 0.1
# The extra time, after the drain timeout, in which workers report that they have drained.
_DRAINED_S = 2.0
# How long workers may take to exit once their channel is closed. Resetting connections takes a few
# milliseconds, but a worker that is still starting completes its startup first.
_CLOSE_S = 1.0
# The number of listeners that may always be opened in the caller's loop, whatever the limit.
_FEW_LISTENERS = 32


OnEjection = Callable[[Group, "SocketAddress", bool], None]
"""Called with an endpoint, and True if a worker has ejected it, or False if the ejection ends."""
OnWaits = Callable[[Group], None]
"""Called with a group when the first client in a worker's queue finds no endpoint."""
OnObserved = Callable[[Observed | Called], None]
"""Called with a worker's observations, or with the calls of its clients."""


class Plane:
    """The listeners, Service ports and workers of one proxy.

    Args:
        workers: The number of worker processes; None if the caller's loop carries the traffic.
        tuning: Applies to each worker, but pipes and ephemeral ports are divided among workers.
        keeps_net_raw: Whether worker processes keep the capability to dial from client addresses.
        label: The label by which the next proxy finds the workers, which continue to serve if this
            process dies; None if they exit with it.
        previous_workers: The previous control process's workers, which the caller drains.
        dialer: Replaces ``connect`` for TCP, in the caller's loop only.
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
        previous_workers: PreviousWorkers | None = None,
        dialer: Dialer | None = None,
    ) -> None:
        self.on_ejection: list[OnEjection] = []
        self.on_waits: OnWaits = lambda _group: None
        self.on_observed: OnObserved = lambda _message: None
        self._loop = loop
        self._clock = clock
        self._totals = Totals()
        self._groups: dict[int, Group] = {}
        self._numbers = 0
        self._networks: Networks | None = None
        """The networks whose clients keep their address; see :meth:`preserve`."""
        self._timer: asyncio.TimerHandle | None = None
        """The timer for the next check of the worker processes."""
        tuning, count = tuning or Tuning(), workers or 1
        if workers is not None:
            # The kernel limits pipes per user, and all workers run as the same user: divide the
            # limit among them.
            pipes = -(-min(tuning.max_pipes, MAX_PIPES) // count)
            tuning = replace(tuning, max_pipes=pipes, processes=count)
        self._workers = [
            WorkerSlot(index, self, loop, clock, tuning, keeps_net_raw=keeps_net_raw, label=label)
            for index in range(count)
        ]
        self._local: LocalLink | None = None
        """The link to the worker in the caller's loop; None if workers are processes."""
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        if workers is None:
            (worker,) = self._workers
            self._local = worker.link = LocalLink(
                loop, tuning, clock=clock, receive=worker.receive, dialer=dialer
            )
            worker.is_running = True
            limit = max(2 * _FEW_LISTENERS, self._local.status().descriptor_limit)
        self._listeners = Listeners(count, limit, self._send, previous_workers)
        self._previous_workers = previous_workers
        if previous_workers is not None:
            previous_workers.on_entries = self._send_all
            previous_workers.on_drain = self._listeners.previous_workers_drain
        self._kept: dict[str, socket.socket] = {}
        """The sockets that workers keep for the next control process, by name."""

    def start(self) -> None:
        """Start the worker processes, unless the caller's loop carries the traffic.

        Returns before the processes run; until they do, clients of open listeners wait.
        """
        if self._local is None:
            for worker in self._workers:
                worker.start()
            self._timer = self._loop.call_later(LOOK_S, self._watch)

    def open_group(self, key: PortKey) -> Group:
        """Return a new group for a Service port; :meth:`serve` sends the group to workers."""
        self._numbers += 1
        return Group(self._numbers, key)

    def serve(self, group: Group, serving: Serving, wanted: Mapping[Hashable, Wanted]) -> Answer:
        """Apply a ``Serving`` to a Service port, and open its wanted listeners.

        Listeners serve, refuse or drop immediately; open listeners stay open. The caller chooses
        the keys, which are unique in the plane: reusing the key of another group takes over its
        listener, unnoticed by clients unless that group refused them. Open TCP connections then
        stay with their group, UDP flows end, and the new group serves the clients in the accept
        queue. A listener whose key is no longer wanted stays open until :meth:`close_unwanted`.

        Returns the open listeners, and why listeners are closed or refuse; call again to
        retry. A group that is too large for a message to a worker refuses its clients.
        """
        if why := group.too_large_reason(serving):
            serving = Serving()
        self._listeners.prepare(group, serving, wanted)
        if group.number not in self._groups:
            self._groups[group.number] = group
            group.change(serving, self._clock())
            self._update_all(group.opening())
            if self._previous_workers is not None:
                # Send the entries to all workers: a client may now reach a different worker.
                for entries in self._previous_workers.take_entries(group.label):
                    self._send_all(entries)
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
        """Queue clients on addresses of an earlier run whose listeners aren't known yet.

        A listener that :meth:`serve` opens on such an address serves the queued clients. Call
        :meth:`close_recovered` once all listeners are open and no rule steers clients to the rest.

        Args:
            transparent: See ``Wanted``.
        """
        self._listeners.recover(wanted, transparent=transparent)

    @property
    def has_recovered(self) -> bool:
        """Whether clients may be queued on addresses without a known listener."""
        return bool(self._listeners.recovered)

    def close_recovered(self) -> None:
        """Close addresses without a listener: reset queued clients, refuse new ones. Idempotent."""
        self._listeners.recovered.close()

    def prefer(self, group: Group, endpoint: SocketAddress) -> None:
        """Make a group's next unpinned client use an endpoint; requires a single worker."""
        self._send_all(Prefer(group.number, endpoint))

    def close_unwanted(self) -> list[Listener]:
        """Close and return the listeners that no group wants."""
        return self._listeners.close_unwanted()

    def close_group(self, group: Group) -> list[Listener]:
        """Remove a group; close and return its listeners. Idempotent.

        Open TCP connections continue, UDP flows end. Afterwards, the group has no endpoints.
        """
        closed = self._listeners.close_group(group)
        if self._groups.pop(group.number, None) is not None:
            group.change(Serving(), self._clock())
            self._send_all(CloseGroup(group.number))
        return closed

    def preserve(self, networks: Networks | None) -> None:
        """Preserve client addresses where endpoints' replies return through this node.

        If ``networks`` is None, endpoints see this node's address.
        """
        old, self._networks = self._networks or {}, networks
        new = networks or {}
        removed = [text for text in old if text not in new]
        added = {text: place for text, place in new.items() if old.get(text) != place}
        self._send_all(Preserve(networks is not None, removed, added))

    def keep(self, name: str, sock: socket.socket) -> None:
        """Store a copy of a socket in worker processes for the next control process.

        That process finds the copy in ``PreviousWorkers.kept``. The caller leaves the socket open
        for replacements of workers. A worker in the caller's loop keeps no copy.
        """
        if self._local is not None:
            return
        self._kept[name] = sock
        self._send_all(Keep(name), sock)

    def observe(self, filters: Sequence[ConnectionFilter]) -> None:
        """Request workers' observations, and apply new filters.

        :attr:`on_observed` is called with the observations. An empty list stops observation.
        """
        self._send_all(Observe(list(filters)))

    def settle(self) -> None:
        """Update the counters as far as possible without waiting."""
        if self._local is not None:
            self._workers[0].ask()

    async def refresh(self) -> None:
        """Update all counters, waiting a second at most; call it before reading them."""
        asked = [worker.ask() for worker in self._workers if worker.is_running]
        owed = [waiting for waiting in asked if not waiting.done()]
        if owed:
            await asyncio.wait(owed, timeout=_REFRESH_S)

    def state(self) -> PlaneState:
        """Return the workers' state; the state of worker processes is as of their last reports."""
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
            workers=tuple(worker.facts() for worker in self._workers),
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
        """Wait until all workers are running, then up to 1 s until they have applied all messages.

        Args:
            wait: Awaited between two checks.
        """
        while not self.has_all_workers:
            await wait()
        await self.refresh()

    async def idle(self, within_s: float) -> None:
        """Wait up to ``within_s`` until no TCP connection is open; keep serving clients."""
        until, was_idle = self._clock() + within_s, False
        while (left := until - self._clock()) > 0:
            await self.refresh()
            is_idle = not self.state().connections
            if is_idle and was_idle:
                return
            # Require two idle checks: a worker may be about to accept a connection.
            was_idle = is_idle
            await asyncio.wait([self._loop.create_future()], timeout=min(left, _LOOK_S))

    async def drain(self, seconds: float) -> int:
        """Wait up to ``seconds`` for connections to end; reset the rest, and return their number.

        The caller closes the groups first.
        """
        draining = [worker.drain(seconds) for worker in self._workers]
        done, _ = await asyncio.wait(draining, timeout=seconds + _DRAINED_S)
        return sum(reset.result() for reset in done)

    def hang_up(self) -> None:
        """Make the worker processes exit; :meth:`close` or exit next, or they are replaced."""
        for worker in self._workers:
            worker.hang_up()

    def close(self) -> None:
        """Reset connections, wait up to 1 s for workers to exit, close all sockets. Idempotent."""
        if self._timer is not None:
            self._timer.cancel()
        self.hang_up()
        deadline = Clocks.monotonic() + _CLOSE_S
        for worker in self._workers:
            worker.close(deadline - Clocks.monotonic())
        self._listeners.close_all()

    def stalled(self) -> Iterator[tuple[Group, SocketAddress]]:
        """Yield the endpoints that leave open connections unanswered; costs nothing without any."""
        # An exited worker's stalled connections remain in the sum.
        for group in self._groups.values() if self._totals.endpoints.stalled else ():
            yield from ((group, endpoint) for endpoint in group.stalled)

    def receive(self, worker: int, message: FromWorker) -> None:
        """Handle a worker's message about its groups, listeners, observations or log."""
        if isinstance(message, Counted):
            # The worker has applied all earlier messages, so it serves its own listeners.
            self._listeners.end_substitute(worker)
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
        """Send the plane's whole state to a worker process that was just started."""
        for name, sock in self._kept.items():
            self._send(worker, Keep(name), sock)
        if self._networks is not None:
            self._send(worker, Preserve(True, [], dict(self._networks)))
        for group in self._groups.values():
            self._workers[worker].update(group.opening())
        self._listeners.send_all(worker)

    def worker_runs(self, worker: int) -> None:
        """Request a worker's first report, which ends its substitution; update substitutes."""
        self._workers[worker].ask()
        self._find_substitutes()

    def worker_ended(self, worker: int) -> None:
        for group in self._groups.values():
            group.worker_ended(worker)
        self._listeners.worker_ended(worker)
        self._find_substitutes()

    def _find_substitutes(self) -> None:
        """Assign running workers as substitutes for missing workers."""
        running = [worker.index for worker in self._workers if worker.is_running]
        for worker in self._workers:
            if worker.problem:
                self._listeners.substitute(worker.index, running)

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
