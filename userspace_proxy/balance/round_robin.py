"""Picks the usable endpoints of one Service port by round robin, with or without weights.

Weighted turns are spread evenly: weights 5 and 1 give a a a b a a, not a a a a a b.

    turns of a, weight 5:  0.1  0.3  0.5  0.7  0.9  1.1 …     one turn every 1/5
    turns of b, weight 1:            0.5                …     one turn every 1/1

The earliest turn is next. An endpoint's first turn is half a stride away, so that after any
number of picks the counts equal Webster's method of apportionment.

Source: stride scheduling (C. Waldspurger, 1995). A heap finds the next turn in O(log n); nginx's
smooth weighted round robin takes O(n).
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence

from ..model import SocketAddress
from .strategy import Skip
from .weights import Weights

_Turn = tuple[float, int, SocketAddress, float]
"""Virtual time, position of the endpoint (breaks ties), endpoint, weight."""


class RoundRobin:
    """A strategy that picks endpoints in turn.

    Updates of the endpoints keep the position, so a rolling update doesn't send every new
    connection to the first endpoint.
    """

    __slots__ = ("_next",)

    def __init__(self, start: int = 0) -> None:
        self._next = start

    def pick(
        self, endpoints: Sequence[SocketAddress], _client: str = "", /, *, skip: Skip = None
    ) -> SocketAddress | None:
        count = len(endpoints)
        if skip is None and count:
            # A fast path for the usual case, which every connection takes.
            index = self._next % count
            self._next = index + 1
            return endpoints[index]
        for step in range(count):
            index = (self._next + step) % count
            if skip is None or endpoints[index] not in skip:
                self._next = index + 1
                return endpoints[index]
        return None


class WeightedRoundRobin:
    """A strategy that picks endpoints in turn, in proportion to their weights.

    Turns are kept across updates of endpoints and weights.

    Args:
        start: The number of past turns.
    """

    def __init__(self, weights: Weights, start: int = 0) -> None:
        self._weights = weights
        self._start = start
        self._endpoints: Sequence[SocketAddress] = ()
        self._version = weights.version
        self._turns: list[_Turn] = []
        """A heap of the planned turns."""
        self._time = 0.0
        """The virtual time of the last turn."""

    def pick(
        self, endpoints: Sequence[SocketAddress], _client: str = "", /, *, skip: Skip = None
    ) -> SocketAddress | None:
        if not endpoints:
            # Keep the turns: the endpoints may return.
            return None
        if endpoints is not self._endpoints or self._version != self._weights.version:
            self._arrange(endpoints)
        turns = self._turns
        skipped: list[_Turn] = []
        picked = None
        while turns:
            at, position, endpoint, weight = turns[0]
            if skip is None or endpoint not in skip:
                # An endpoint that was skipped for a while doesn't catch up on missed turns.
                self._time = max(self._time, at)
                following = (self._time + 1 / weight, position, endpoint, weight)
                heapq.heapreplace(turns, following)
                picked = endpoint
                break
            skipped.append(heapq.heappop(turns))
        for turn in skipped:
            heapq.heappush(turns, turn)
        return picked

    def _arrange(self, endpoints: Sequence[SocketAddress]) -> None:
        """Plan turns for new endpoints or weights; keep the elapsed share of each stride."""
        known = {endpoint: (at, weight) for at, _, endpoint, weight in self._turns}
        self._endpoints, self._version = endpoints, self._weights.version
        self._turns = []
        for position, endpoint in enumerate(endpoints):
            weight = self._weights.of(endpoint)
            at, before = known.get(endpoint, (self._time + 0.5 / weight, weight))
            left = max(0.0, at - self._time) * before / weight
            self._turns.append((self._time + left, position, endpoint, weight))
        heapq.heapify(self._turns)
        start, self._start = self._start, 0
        for _ in range(start % len(endpoints)):
            self.pick(endpoints)
