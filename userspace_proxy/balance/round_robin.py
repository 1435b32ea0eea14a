"""Round robin over the usable endpoints of one Service port."""

from __future__ import annotations

from collections.abc import Container, Sequence

from ..model import SocketAddress


class RoundRobin:
    """Hands out endpoints in turn, skipping those that it is told to.

    The turn is a position and is kept across updates, so a rolling update does
    not send every new connection to the first endpoint.
    """

    def __init__(self, start: int = 0) -> None:
        self._next = start

    def pick(
        self, endpoints: Sequence[SocketAddress], *, skip: Container[SocketAddress] | None = None
    ) -> SocketAddress | None:
        """Return the endpoint whose turn it is, or None if all are to be skipped.

        Args:
            endpoints: Usable endpoints in plan order; may be empty.
            skip: Endpoints already tried for this connection, or ejected; None for none.
        """
        count = len(endpoints)
        if skip is None and count:
            # Nearly always; for each connection, so it adds up.
            index = self._next % count
            self._next = index + 1
            return endpoints[index]
        for step in range(count):
            index = (self._next + step) % count
            if skip is None or endpoints[index] not in skip:
                self._next = index + 1
                return endpoints[index]
        return None
