"""Counts changes that have arrived or are applied, like kube-proxy's ``…_changes_total``.

snapshot ─▶ add ─▶ begin, with the changes in turn ─ a round ─▶ end ─▶ announce
                           settled, in_force_after, round_after ◀┘
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from ...clocks import Clocks
from ...cluster import ServiceState, Snapshot, differing_keys, differing_slices
from ...model import ServiceKey
from .change_turns import ChangeTurns


class ChangeCounts(NamedTuple):
    """The numbers of objects that were added, changed or removed."""

    services: int = 0
    endpoints: int = 0
    """The number of EndpointSlices."""

    def plus(self, more: ChangeCounts) -> ChangeCounts:
        return ChangeCounts(self.services + more.services, self.endpoints + more.endpoints)

    def minus(self, fewer: ChangeCounts) -> ChangeCounts:
        return ChangeCounts(self.services - fewer.services, self.endpoints - fewer.endpoints)


# The maximum number of stored trigger times, which accumulate while the kernel refuses changes.
_TRIGGERS_MAX = 10_000
NO_CHANGES = ChangeCounts()


@dataclass(slots=True)
class SyncCounters:
    """The counters of the sync rounds."""

    rounds: int = 0
    failures: int = 0
    partial_failures: int = 0
    """The number of failed rounds that would have written only changes."""
    repairs: int = 0
    repaired_at: tuple[float, ...] = ()
    """Monotonic seconds of the last 60 repairs, which include all repairs of the last minute."""
    last_s: float = 0.0
    last_queued: float = 0.0
    last_done: float = 0.0
    waiting_since: float = 0.0
    """When the oldest unapplied change arrived or, for a change of the node, when its first round
    began; 0 without such a change. Like ``last_queued`` and ``last_done``, this is a time in
    monotonic seconds, because the system's clock may be set."""
    changes: ChangeCounts = NO_CHANGES
    """The number of changes that have arrived since startup."""
    in_force: ChangeCounts = NO_CHANGES
    """The number of applied changes."""


class Batch(NamedTuple):
    """The changes that one round applies."""

    snapshot: Snapshot
    newest: Snapshot
    """The snapshot with all changes, including those waiting for their turn."""
    arrived: ChangeCounts
    """The number of changes that had arrived when the round began."""
    triggers: int
    """The number of trigger times to take from :class:`Triggers`."""
    began: float
    """When the round began, in seconds of ``time.perf_counter``."""


class Progress:
    """The newest and the applied snapshot of one proxy.

    Args:
        turns: Decides which changes wait; None to create it.
    """

    def __init__(self, counters: SyncCounters, turns: ChangeTurns | None = None) -> None:
        self.latest: Snapshot | None = None
        """The newest snapshot, which may not be applied yet; None before the first one."""
        self.in_force: Snapshot | None = None
        """The applied snapshot; None before the first one."""
        self.is_expecting: Callable[[], bool] = lambda: False
        """Returns whether a newer snapshot is being derived, which ends in :meth:`announce`."""
        self._counters = counters
        self._turns = turns if turns is not None else ChangeTurns()
        self._taken: Snapshot | None = None
        self._seen: Snapshot | None = None
        """The newest snapshot when the last successful round began."""
        self._arrived = 0.0
        """Monotonic seconds when the first snapshot arrived since the last round began; 0: none."""
        self._triggers = Triggers(Clocks.time())
        self._done = asyncio.Condition()

    @property
    def taken(self) -> Snapshot | None:
        """The snapshot of the last round; before the first round, the newest snapshot or None."""
        return self._taken or self.latest

    @property
    def is_synced(self) -> bool:
        return self.in_force is not None

    @property
    def is_behind(self) -> bool:
        """Whether the newest snapshot isn't applied yet, except changes waiting for their turn."""
        return self._seen is not self.latest

    @property
    def next_turn_in_s(self) -> float:
        """Seconds until the next turn of a waiting change; infinite if none waits."""
        return self._turns.next_in_s

    @property
    def node_is_being_deleted(self) -> bool:
        node = self.latest.node if self.latest else None
        return node is not None and node.is_being_deleted

    def add(self, snapshot: Snapshot) -> bool:
        """Store the newest snapshot; return whether it differs from the previous one."""
        if snapshot is self.latest:
            return False
        counters = self._counters
        counters.changes = counters.changes.plus(count_changes(self.latest, snapshot))
        self._triggers.note(self.latest, snapshot)
        counters.last_queued = Clocks.monotonic()
        counters.waiting_since = counters.waiting_since or counters.last_queued
        self._arrived = self._arrived or counters.last_queued
        self.latest = snapshot
        return True

    def begin(self) -> Batch | None:
        """Begin a round, which ends with :meth:`end` or fails; return None without a snapshot."""
        if self.latest is None:
            return None
        self._arrived = 0.0
        arrived, triggers = self._counters.changes, len(self._triggers)
        newest = self.latest
        self._taken = self._turns.take(self._taken, newest)
        # Without a waiting change, the round is for a change of the node, which waits from now on.
        counters = self._counters
        counters.waiting_since = counters.waiting_since or Clocks.monotonic()
        return Batch(self._taken, newest, arrived, triggers, time.perf_counter())

    def end(self, batch: Batch) -> list[float]:
        """Record that a round has completed; call :meth:`announce` next.

        Returns:
            Seconds from trigger to application, for each slice that this round applied and whose
            trigger time was recorded.
        """
        self.in_force, self._seen = batch.snapshot, batch.newest
        counters = self._counters
        counters.rounds += 1
        counters.last_s = time.perf_counter() - batch.began
        counters.last_done = Clocks.monotonic()
        counters.waiting_since = self._arrived
        counters.in_force = batch.arrived.minus(count_changes(batch.snapshot, batch.newest))
        return self._triggers.take(batch.triggers, Clocks.time(), self._turns.waiting)

    async def announce(self) -> None:
        """Wake the tasks waiting for a snapshot to be applied."""
        async with self._done:
            self._done.notify_all()

    async def caught_up(self) -> None:
        """Wait as :meth:`settled` does, but not for changes that wait for their turn."""
        async with self._done:
            await self._done.wait_for(
                lambda: self.is_synced and not (self.is_behind or self.is_expecting())
            )

    async def settled(self) -> None:
        """Wait until the newest snapshot is fully applied, and no newer one is being derived."""
        async with self._done:
            await self._done.wait_for(
                lambda: self.in_force is self.latest is not None and not self.is_expecting()
            )

    async def in_force_after(self, earlier: Snapshot | None) -> Snapshot:
        """Wait until a snapshot other than ``earlier`` (None: any) is applied; return it."""
        async with self._done:
            while self.in_force is None or self.in_force is earlier:
                await self._done.wait()
            return self.in_force

    async def round_after(self, rounds: int) -> int:
        """Wait until more than ``rounds`` rounds have succeeded, and return their number."""
        async with self._done:
            await self._done.wait_for(lambda: self._counters.rounds > rounds)
        return self._counters.rounds


def count_changes(have: Snapshot | None, want: Snapshot) -> ChangeCounts:
    """Count the objects that differ between two snapshots, each once; None has no objects."""
    services = endpoints = 0
    for old, new in _differing(have, want):
        services += (old and old.service) != (new and new.service)
        # Compare slices by identity: a store keeps the object of an unchanged slice.
        endpoints += sum(1 for _ in differing_slices(old, new))
    return ChangeCounts(services, endpoints)


class Triggers:
    """The trigger times (changes of pods and Services) of slices that aren't applied yet.

    Args:
        started: Unix time when this process started; earlier triggers aren't recorded.

    Source: kube-proxy, EndpointsChangeTracker (pkg/proxy/endpointschangetracker.go of 1.36).
    """

    def __init__(self, started: float) -> None:
        self._started = started
        self._times: list[tuple[float, ServiceKey]] = []

    def __len__(self) -> int:
        return len(self._times)

    def note(self, have: Snapshot | None, want: Snapshot) -> None:
        """Record trigger times since startup of new and changed slices, up to ``_TRIGGERS_MAX``."""
        for old, new in _differing(have, want):
            self._times += [
                (item.triggered_at, item.service)
                for _, item in differing_slices(old, new)
                if item is not None and item.triggered_at > self._started
            ]
        del self._times[_TRIGGERS_MAX:]

    def take(
        self, count: int, now: float, waiting: Container[ServiceKey] = frozenset()
    ) -> list[float]:
        """Remove the times of changes that are now applied; return their delays in seconds.

        Args:
            count: The number of times, oldest first, that were recorded before the round began.
            now: Unix time.
            waiting: Services whose changes aren't applied yet.
        """
        first, rest = self._times[:count], self._times[count:]
        self._times = [one for one in first if one[1] in waiting] + rest
        return [max(0.0, now - at) for at, service in first if service not in waiting]


def _differing(
    have: Snapshot | None, want: Snapshot
) -> Iterator[tuple[ServiceState | None, ServiceState | None]]:
    earlier = have.services if have is not None else {}
    for key in differing_keys(earlier, want.services):
        yield earlier.get(key), want.services.get(key)
