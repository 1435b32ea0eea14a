"""Picks the endpoint with the fewest connections for its weight; ties are broken in turn.

Source: nginx's least_conn, which compares connections divided by weights.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence

from ..model import SocketAddress
from .weighted_round_robin import WeightedRoundRobin
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
        self._turns = WeightedRoundRobin(weights, start)

    def pick(
        self, endpoints: Sequence[SocketAddress], *, skip: Container[SocketAddress] | None = None
    ) -> SocketAddress | None:
        """Part of Strategy."""
        loads = {
            endpoint: self._load(endpoint) / self._weights.of(endpoint)
            for endpoint in endpoints
            if skip is None or endpoint not in skip
        }
        if not loads:
            return None
        least = min(loads.values())
        if len(loads) == len(endpoints) and least == max(loads.values()):
            return self._turns.pick(endpoints)
        others = {endpoint for endpoint in endpoints if loads.get(endpoint) != least}
        return self._turns.pick(endpoints, skip=others)
