"""Picks the endpoint with the fewest connections; ties are broken in turn.

Source: IPVS' lc, and HAProxy's leastconn: for connections that live long.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence

from ..model import SocketAddress


class LeastConnections:
    """Looks at all endpoints for each connection: for hundreds of them, not for thousands.

    Args:
        load: How many connections an endpoint has now, those that are being dialled included.
        start: Position of the first turn.
    """

    def __init__(self, load: Callable[[SocketAddress], int], start: int = 0) -> None:
        self._load = load
        self._next = start

    def pick(
        self, endpoints: Sequence[SocketAddress], *, skip: Container[SocketAddress] | None = None
    ) -> SocketAddress | None:
        """Return the least loaded endpoint, or None if all are to be skipped.

        Args:
            endpoints: Usable endpoints in plan order; may be empty.
            skip: Endpoints already tried for this connection, or ejected; None for none.
        """
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
