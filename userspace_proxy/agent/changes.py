"""Counts rounds, and changes between snapshots, as kube-proxy's ``…_changes_total`` do."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from ..cluster import ServiceState, Snapshot, differing_keys
from ..model import EndpointSlice, SliceKey


class ChangeCounts(NamedTuple):
    """How many objects were added, changed or removed."""

    services: int = 0
    endpoints: int = 0
    """EndpointSlices."""

    def plus(self, more: ChangeCounts) -> ChangeCounts:
        """Return the sum."""
        return ChangeCounts(self.services + more.services, self.endpoints + more.endpoints)


# While the kernel refuses, changes pile up.
_TRIGGERS_MAX = 10_000
NO_CHANGES = ChangeCounts()


@dataclass(slots=True)
class SyncCounters:
    """What the rounds did."""

    rounds: int = 0
    failures: int = 0
    partial_failures: int = 0
    """Of these, those in which only what changed was to be written."""
    repairs: int = 0
    last_s: float = 0.0
    last_queued: float = 0.0
    last_done: float = 0.0
    waiting_since: float = 0.0
    """Unix time at which the oldest change that isn't in force arrived; 0: none waits."""
    changes: ChangeCounts = NO_CHANGES
    """Those that arrived since the start."""
    in_force: ChangeCounts = NO_CHANGES
    """Those of them that are in force."""


def count_changes(have: Snapshot | None, want: Snapshot) -> ChangeCounts:
    """Count the objects in which two snapshots differ: several changes of one object are one."""
    services = endpoints = 0
    for old, new in _differing(have, want):
        services += (old and old.service) != (new and new.service)
        before, after = _slices(old), _slices(new)
        # A store keeps a slice's object unless the slice changes.
        endpoints += sum(before.get(k) is not after.get(k) for k in before.keys() | after.keys())
    return ChangeCounts(services, endpoints)


class Triggers:
    """When pods and Services changed, of the slices that aren't in force yet.

    Args:
        started: Unix time; what changed before it says nothing about this process.

    Source: kube-proxy, EndpointsChangeTracker (pkg/proxy/endpointschangetracker.go of 1.36).
    """

    def __init__(self, started: float) -> None:
        self._started = started
        self._times: list[float] = []

    def __len__(self) -> int:
        return len(self._times)

    def note(self, have: Snapshot | None, want: Snapshot) -> None:
        """Note the slices that only the second snapshot has."""
        for old, new in _differing(have, want):
            before = _slices(old)
            self._times += [
                item.triggered_at
                for key, item in _slices(new).items()
                if item.triggered_at > self._started and before.get(key) is not item
            ]
        del self._times[_TRIGGERS_MAX:]

    def take(self, count: int, now: float) -> list[float]:
        """Forget the first ones, which are in force now; return how long each took, in seconds."""
        taken, self._times = self._times[:count], self._times[count:]
        return [max(0.0, now - at) for at in taken]


def _differing(
    have: Snapshot | None, want: Snapshot
) -> Iterator[tuple[ServiceState | None, ServiceState | None]]:
    earlier = have.services if have is not None else {}
    for key in differing_keys(earlier, want.services):
        yield earlier.get(key), want.services.get(key)


def _slices(state: ServiceState | None) -> dict[SliceKey, EndpointSlice]:
    return {item.key: item for item in state.slices} if state else {}
