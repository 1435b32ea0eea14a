"""Which name is looked up next: the places are shared out by namespaces, and kept for answers.

    waiting, by time ──due──▶ ready, by namespace ──take──▶ under way ──give_back──▶

Rule 1: names without an answer, new ones or those that failed last, have half of the places: each
may take five seconds, and others must not wait for them.
Rule 2: a namespace has half of the places, and one of these only for names that have an answer.
Rule 3: namespaces have turns; in its turn, a namespace's names with an answer are first, then the
order is that of time.
Rule 4: a name that several namespaces want has the first turn of any of them.
"""

from __future__ import annotations

import heapq
import itertools
from collections import Counter
from collections.abc import Collection
from typing import NamedTuple

PLACES = 8
"""Names that are looked up at the same time."""
DOUBTFUL_MAX = PLACES // 2
"""Of these, names without an answer."""
NAMESPACE_MAX = PLACES // 2
"""Of these, names of one namespace."""
NAMESPACE_DOUBTFUL_MAX = NAMESPACE_MAX - 1


class _QueuedHost(NamedTuple):
    """A name that waits; void once the queue has another one of the name."""

    at: float
    number: int
    """In the order in which names were put."""
    host: str
    namespaces: Collection[str]
    is_doubtful: bool


class _UsedPlace(NamedTuple):
    namespace: str
    is_doubtful: bool


_Ready = dict[str, list[_QueuedHost]]
"""Heaps by namespace, which may be void until its turn."""


class HostQueue:
    """The names of one proxy that wait for a lookup, or are being looked up."""

    def __init__(self) -> None:
        self._numbers = itertools.count()
        self._entries: dict[str, _QueuedHost] = {}
        self._waiting: list[_QueuedHost] = []
        self._ready: tuple[_Ready, _Ready] = {}, {}
        """Names that are due, with an answer and doubtful ones, by namespace in order of turns."""
        self._places: dict[str, _UsedPlace] = {}
        """Those that names under way have."""
        self._used: Counter[_UsedPlace] = Counter()
        self._turns: dict[str, int] = {}
        """When those namespaces got their last place, or their first name that was due."""

    def put(self, host: str, at: float, namespaces: Collection[str], *, is_doubtful: bool) -> None:
        """Have a name looked up at a time, and no more at another one.

        A name under way is ready once its place has been given back.
        """
        entry = _QueuedHost(at, next(self._numbers), host, namespaces, is_doubtful)
        self._entries[host] = entry
        if host not in self._places:
            heapq.heappush(self._waiting, entry)

    def remove(self, host: str) -> None:
        """Have a name looked up no more. Idempotent."""
        self._entries.pop(host, None)

    def take(self, now: float) -> str | None:
        """Return a name that is due and has a place, until it is given back; None: none has."""
        while self._waiting and self._waiting[0].at <= now:
            due = heapq.heappop(self._waiting)
            for namespace in due.namespaces if self._is_valid(due) else ():
                heapq.heappush(self._ready[due.is_doubtful].setdefault(namespace, []), due)
                self._turns.setdefault(namespace, next(self._numbers))
        has_room = sum(place.is_doubtful for place in self._places.values()) < DOUBTFUL_MAX
        answered = self._first(is_doubtful=False)
        doubtful = self._first(is_doubtful=True) if has_room else None
        namespaces = [each for each in (answered, doubtful) if each is not None]
        if not namespaces:
            return None
        namespace = min(namespaces, key=self._turns.__getitem__)
        is_doubtful = namespace != answered
        host = heapq.heappop(self._ready[is_doubtful][namespace]).host
        del self._entries[host]
        place = self._places[host] = _UsedPlace(namespace, is_doubtful)
        self._used[place] += 1
        self._turns[namespace] = next(self._numbers)
        for ready in self._ready:
            if namespace in ready:
                ready[namespace] = ready.pop(namespace)
        return host

    def give_back(self, host: str) -> None:
        """Note the end of a lookup. Idempotent."""
        place = self._places.pop(host, None)
        if place is None:
            return
        self._used[place] -= 1
        if not self._used[place]:
            del self._used[place]
        if host in self._entries:
            heapq.heappush(self._waiting, self._entries[host])

    @property
    def has_ready(self) -> bool:
        """Whether a name is due that had no place at the last :meth:`take`, or may have been."""
        return any(self._ready)

    def next_at(self) -> float | None:
        """Return when the next name is due; None: none waits, except for a place."""
        while self._waiting and not self._is_valid(self._waiting[0]):
            heapq.heappop(self._waiting)
        return self._waiting[0].at if self._waiting else None

    def _is_valid(self, entry: _QueuedHost) -> bool:
        return self._entries.get(entry.host) is entry

    def _first(self, *, is_doubtful: bool) -> str | None:
        """Return the namespace whose turn it is and that has room; None: none has."""
        ready, other = self._ready[is_doubtful], self._ready[not is_doubtful]
        empty, found = [], None
        for namespace, heap in ready.items():
            while heap and not self._is_valid(heap[0]):
                heapq.heappop(heap)
            if not heap:
                empty.append(namespace)
            elif self._has_room(namespace, is_doubtful=is_doubtful):
                found = namespace
                break
        for namespace in empty:
            del ready[namespace]
            if namespace not in other:
                del self._turns[namespace]
        return found

    def _has_room(self, namespace: str, *, is_doubtful: bool) -> bool:
        doubtful = self._used[_UsedPlace(namespace, is_doubtful=True)]
        if is_doubtful and doubtful >= NAMESPACE_DOUBTFUL_MAX:
            return False
        return doubtful + self._used[_UsedPlace(namespace, is_doubtful=False)] < NAMESPACE_MAX
