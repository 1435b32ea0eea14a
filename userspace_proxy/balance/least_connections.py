"""Picks the endpoint with the fewest connections, in total or per weight; breaks ties in turn.

Both strategies compare all endpoints for each connection: fast for hundreds, not for thousands.

Source: IPVS' lc and HAProxy's leastconn, both meant for long-lived connections; nginx's
    least_conn, which compares connections divided by weight.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..model import SocketAddress
from .strategy import Skip
from .weights import Weights


class LeastConnections:
    """A strategy that picks the endpoint with the fewest connections, ignoring weights.

    Args:
        load: Returns how many connections an endpoint has, including pending dials.
        start: The position of the first turn.
    """

    def __init__(self, load: Callable[[SocketAddress], int], start: int = 0) -> None:
        self._load = load
        self._next = start

    def pick(
        self, endpoints: Sequence[SocketAddress], _client: str = "", /, *, skip: Skip = None
    ) -> SocketAddress | None:
        best, best_load, count = -1, 0, len(endpoints)
        for step in range(count):
            index = (self._next + step) % count
            if skip is not None and endpoints[index] in skip:
                continue
            load = self._load(endpoints[index])
            if best < 0 or load < best_load:
                best, best_load = index, load
                if not load:
                    break
        if best < 0:
            return None
        self._next = best + 1
        return endpoints[best]


class WeightedLeastConnections:
    """A strategy that picks the endpoint with the fewest connections relative to its weight.

    Args:
        load: See :class:`LeastConnections`.
        start: The number of past turns among equally loaded endpoints.
    """

    def __init__(
        self, load: Callable[[SocketAddress], int], weights: Weights, start: int = 0
    ) -> None:
        self._load = load
        self._weights = weights
        self._start = start
        self._endpoints: Sequence[SocketAddress] = ()
        self._turns: dict[SocketAddress, float] = {}
        """The virtual time of each endpoint's next turn, as in ``round_robin``."""
        self._time = 0.0
        """The virtual time of the last turn."""

    def pick(
        self, endpoints: Sequence[SocketAddress], _client: str = "", /, *, skip: Skip = None
    ) -> SocketAddress | None:
        if endpoints is not self._endpoints:
            self._arrange(endpoints)
        weight_of, turns = self._weights.of, self._turns
        best: SocketAddress | None = None
        best_load = best_turn = 0.0
        for endpoint in endpoints:
            if skip is not None and endpoint in skip:
                continue
            load, turn = self._load(endpoint) / weight_of(endpoint), turns[endpoint]
            if best is None or load < best_load or (load == best_load and turn < best_turn):
                best, best_load, best_turn = endpoint, load, turn
        if best is not None:
            self._take(best)
        return best

    def _take(self, endpoint: SocketAddress) -> None:
        # An endpoint that was busier for a while doesn't catch up on missed turns.
        self._time = max(self._time, self._turns[endpoint])
        self._turns[endpoint] = self._time + 1 / self._weights.of(endpoint)

    def _arrange(self, endpoints: Sequence[SocketAddress]) -> None:
        self._endpoints = endpoints
        self._turns = {
            endpoint: self._turns.get(endpoint, self._time + 0.5 / self._weights.of(endpoint))
            for endpoint in endpoints
        }
        start, self._start = self._start, 0
        for _ in range(start % len(endpoints) if endpoints else 0):
            self._take(min(endpoints, key=self._turns.__getitem__))
