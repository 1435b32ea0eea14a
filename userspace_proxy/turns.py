"""Turns for what waits: the party whose last turn is the longest ago is next.

    what waits, by party ──order──▶ the first of each party, then the second of each, …

So a party's first one waits for at most one of each other party, however much these ask for.

After a turn that took long a party waits: for as long as that took, then twice as long each time
that it has another one soon after.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

K = TypeVar("K")
T = TypeVar("T")

PARTIES_MAX = 10_000
"""Parties whose last turn is remembered; the next ones count as new, which are first."""
# The longest wait, as a multiple of the turn: it leaves a party a ninth of a core.
_MOST_TIMES = 8


class Turns(Generic[K]):
    """The turns of the parties of one queue, such as namespaces."""

    def __init__(self) -> None:
        self._last: dict[K, int] = {}
        """The number of each party's last turn, the latest last."""
        self._number = 0
        self._paces: dict[K, tuple[float, float]] = {}
        """When a party's wait after a turn that took long ends, and how many seconds it takes."""

    def order(self, waiting: Iterable[T], party_of: Callable[[T], K]) -> Iterator[T]:
        """Yield what waits, each party's in its own order; what is yielded has had its turn."""
        own = defaultdict[K, deque[T]](deque)
        for one in waiting:
            own[party_of(one)].append(one)
        left = deque(sorted(own, key=lambda party: self._last.get(party, 0)))
        while left:
            party = left.popleft()
            self._number += 1
            self._last.pop(party, None)
            self._last[party] = self._number
            if len(self._last) > PARTIES_MAX:
                del self._last[next(iter(self._last))]
            yield own[party].popleft()
            if own[party]:
                left.append(party)

    def due(self, party: K, now: float) -> float:
        """Return the monotonic time from which on a party may have another long turn."""
        due, _ = self._paces.get(party, (now, 0.0))
        return max(now, due)

    def took(self, party: K, seconds: float, now: float) -> None:
        """Note a turn that took long, which has just begun."""
        _, before_s = self._paces.get(party, (now, 0.0))
        wait_s = max(seconds, min(2 * before_s, _MOST_TIMES * seconds))
        self._paces[party] = now + seconds + wait_s, wait_s

    def forget(self, now: float) -> None:
        """Let parties begin anew that had no long turn for as long as they waited."""
        paces = self._paces.items()
        self._paces = {one: (due, wait_s) for one, (due, wait_s) in paces if now < due + wait_s}
