"""Orders waiting items fairly: the party whose last turn was longest ago is next.

    waiting items, by party ──order──▶ the first of each party, then the second of each, …

A party's first item waits for at most one item of each other party, however many are waiting. After
a long turn a party must wait as long as the turn took; the wait doubles with each long turn that
follows soon.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

K = TypeVar("K")
T = TypeVar("T")

PARTIES_MAX = 10_000
"""The number of parties whose last turn is remembered; other parties count as new and are first."""
# The maximum wait as a multiple of the turn, which leaves a party a ninth of a core.
_MOST_TIMES = 8


class Turns(Generic[K]):
    """The turns of the parties of one queue, such as namespaces."""

    def __init__(self) -> None:
        self._last: dict[K, int] = {}
        """The sequence number of each party's last turn, in ascending order."""
        self._number = 0
        self._paces: dict[K, tuple[float, float]] = {}
        """By party: when its wait after a long turn ends, and the wait's length in seconds."""

    def order(self, waiting: Iterable[T], party_of: Callable[[T], K]) -> Iterator[T]:
        """Yield items round-robin over parties, in order within a party; each yield uses a turn."""
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
        """Return the monotonic time from which a party may have another long turn."""
        due, _ = self._paces.get(party, (now, 0.0))
        return max(now, due)

    def took(self, party: K, seconds: float, now: float) -> None:
        """Record a long turn that begins now and takes ``seconds``."""
        _, before_s = self._paces.get(party, (now, 0.0))
        wait_s = max(seconds, min(2 * before_s, _MOST_TIMES * seconds))
        self._paces[party] = now + seconds + wait_s, wait_s

    def forget(self, now: float) -> None:
        """Forget parties whose wait ended longer ago than it lasted."""
        paces = self._paces.items()
        self._paces = {one: (due, wait_s) for one, (due, wait_s) in paces if now < due + wait_s}
