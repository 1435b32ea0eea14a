"""Picks the endpoint with the fewest connections; ties are broken in turn.

Source: IPVS' lc, and HAProxy's leastconn, which are meant for long-lived connections.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence

from ..model import SocketAddress


class LeastConnections:
    """Looks at all endpoints for each connection: for hundreds of them, not for thousands.

    Args:
        load: Returns how many connections an endpoint has, pending dials included.
        start: Position of the first turn.
    """

    def __init__(self, load: Callable[[SocketAddress], int], start: int = 0) -> None:
        self._load = load
        self._next = start

    def pick(
        self,
        endpoints: Sequence[SocketAddress],
        _client: str = "",
        /,
        *,
        skip: Container[SocketAddress] | None = None,
    ) -> SocketAddress | None:
        """Part of Strategy."""
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
