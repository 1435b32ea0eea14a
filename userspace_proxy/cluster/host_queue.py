"""Decides which name to look up next: namespaces share slots, some of which are reserved.

    waiting, by time ──due──▶ ready, by namespace ──take──▶ under way ──give_back──▶

Rule 1: names without an answer (new names, and names whose last lookup failed) use at most half of
the slots: each lookup may take five seconds, and other names mustn't wait for them.
Rule 2: a namespace uses at most half of the slots, one of them only for names with an answer.
Rule 3: namespaces take turns; within a namespace, names with an answer come first, then names that
have been due for longer.
Rule 4: a name that several namespaces use is looked up in the first turn of any such namespace.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Collection
from typing import NamedTuple

SLOTS = 8
"""The maximum number of names that are looked up at the same time."""
DOUBTFUL_MAX = SLOTS // 2
"""The maximum number of ``SLOTS`` slots for names without an answer."""
NAMESPACE_MAX = SLOTS // 2
"""The maximum number of ``SLOTS`` slots for the names of one namespace."""
NAMESPACE_DOUBTFUL_MAX = NAMESPACE_MAX - 1


class _QueuedHost(NamedTuple):
    """A name that waits; invalid once the name is taken, removed or put again."""

    is_doubtful: bool
    at: float
    number: int
    """The entry's position in the order of :meth:`HostQueue.put`."""
    host: str
    namespaces: Collection[str]


class _UsedSlot(NamedTuple):
    namespace: str
    is_doubtful: bool


class HostQueue:
    """The host names of one proxy that wait for a lookup, or are being looked up."""

    def __init__(self) -> None:
        self._numbers = itertools.count()
        self._entries: dict[str, _QueuedHost] = {}
        self._waiting: list[tuple[float, _QueuedHost]] = []
        """A heap of waiting entries, earliest due first."""
        self._ready: dict[str, list[_QueuedHost]] = {}
        """Heaps of due names, by namespace; namespaces are in the order of their turns."""
        self._slots: dict[str, _UsedSlot] = {}
        """The slots used by names that are being looked up."""

    def put(self, host: str, at: float, namespaces: Collection[str], *, is_doubtful: bool) -> None:
        """Schedule a name's next lookup at ``at``, monotonic seconds; replace any earlier schedule.

        A name that is being looked up isn't taken again before its slot is given back.
        """
        entry = _QueuedHost(is_doubtful, at, next(self._numbers), host, namespaces)
        self._entries[host] = entry
        if host not in self._slots:
            heapq.heappush(self._waiting, (at, entry))

    def remove(self, host: str) -> None:
        """Remove a name from the queue. Idempotent."""
        self._entries.pop(host, None)

    def take(self, now: float) -> str | None:
        """Return a due name, or None; the name occupies a slot until :meth:`give_back`."""
        while self._waiting and self._waiting[0][0] <= now:
            _, due = heapq.heappop(self._waiting)
            for each in due.namespaces if self._is_valid(due) else ():
                heapq.heappush(self._ready.setdefault(each, []), due)
        namespace = self._first()
        if namespace is None:
            return None
        heap = self._ready[namespace] = self._ready.pop(namespace)
        entry = heapq.heappop(heap)
        del self._entries[entry.host]
        self._slots[entry.host] = _UsedSlot(namespace, entry.is_doubtful)
        return entry.host

    def give_back(self, host: str) -> None:
        """Free the slot of a finished lookup. Idempotent."""
        if self._slots.pop(host, None) and host in self._entries:
            entry = self._entries[host]
            heapq.heappush(self._waiting, (entry.at, entry))

    @property
    def has_ready(self) -> bool:
        """Whether the last :meth:`take` may have left a due name without a slot."""
        return bool(self._ready)

    def next_at(self) -> float | None:
        """Return the monotonic seconds when the next name is due; None if no name is waiting."""
        while self._waiting and not self._is_valid(self._waiting[0][1]):
            heapq.heappop(self._waiting)
        return self._waiting[0][0] if self._waiting else None

    def _is_valid(self, entry: _QueuedHost) -> bool:
        return self._entries.get(entry.host) is entry

    def _first(self) -> str | None:
        """Return the next namespace with a free slot for its first name, or None."""
        for namespace, heap in list(self._ready.items()):
            while heap and not self._is_valid(heap[0]):
                heapq.heappop(heap)
            if not heap:
                del self._ready[namespace]
            elif self._has_room(namespace, is_doubtful=heap[0].is_doubtful):
                return namespace
        return None

    def _has_room(self, namespace: str, *, is_doubtful: bool) -> bool:
        used = self._slots.values()
        own = [slot.is_doubtful for slot in used if slot.namespace == namespace]
        if is_doubtful and (
            sum(own) >= NAMESPACE_DOUBTFUL_MAX
            or sum(slot.is_doubtful for slot in used) >= DOUBTFUL_MAX
        ):
            return False
        return len(own) < NAMESPACE_MAX
