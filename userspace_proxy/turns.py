"""Turns for what waits: the party whose last turn is the longest ago is next.

    what waits, by party ──order──▶ the first of each party, then the second of each, …

So a party's first one waits for at most one of each other party, however much these ask for.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import Generic, TypeVar

K = TypeVar("K")
T = TypeVar("T")

PARTIES_MAX = 10_000
"""Parties whose last turn is remembered; the next ones count as new, which are first."""


class Turns(Generic[K]):
    """The turns of the parties of one queue, such as namespaces."""

    def __init__(self) -> None:
        self._last: dict[K, int] = {}
        """The number of each party's last turn, the latest last."""
        self._number = 0

    def order(self, waiting: Mapping[K, Iterable[T]]) -> Iterator[T]:
        """Yield what waits, each party's in its own order; what is yielded has had its turn."""
        parties = sorted(waiting, key=lambda party: self._last.get(party, 0))
        left = deque((party, iter(waiting[party])) for party in parties)
        while left:
            party, own = left.popleft()
            for one in own:
                self._take(party)
                left.append((party, own))
                yield one
                break

    def _take(self, party: K) -> None:
        self._number += 1
        self._last.pop(party, None)
        self._last[party] = self._number
        if len(self._last) > PARTIES_MAX:
            del self._last[next(iter(self._last))]
