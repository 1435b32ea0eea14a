"""Picks the endpoint with the fewest connections for its weight; ties are broken in turn.

Turns are in proportion to the weights, too, as in ``weighted_round_robin``.

Source: nginx's least_conn, which compares connections divided by weights.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence

from ..model import SocketAddress
from .weights import Weights


class WeightedLeastConnections:
    """Looks at all endpoints for each connection: for hundreds of them, not for thousands.

    Args:
        load: Returns how many connections an endpoint has, pending dials included.
        start: How many turns among equally loaded endpoints are over.
    """

    def __init__(
        self, load: Callable[[SocketAddress], int], weights: Weights, start: int = 0
    ) -> None:
        self._load = load
        self._weights = weights
        self._start = start
        self._endpoints: Sequence[SocketAddress] = ()
        self._turns: dict[SocketAddress, float] = {}
        """When each endpoint has its next turn."""
        self._time = 0.0
        """That of the last turn."""

    def pick(
        self,
        endpoints: Sequence[SocketAddress],
        _client: str = "",
        /,
        *,
        skip: Container[SocketAddress] | None = None,
    ) -> SocketAddress | None:
        """Part of Strategy."""
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
        # One that was busier for a while doesn't catch up on its turns.
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
