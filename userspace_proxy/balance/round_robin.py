"""Round robin over the usable endpoints of one Service port."""

from __future__ import annotations

from collections.abc import Container, Sequence

from ..model import SocketAddress


class RoundRobin:
    """Picks endpoints in turn.

    The turn is a position and is kept across updates, so a rolling update does
    not send every new connection to the first endpoint.
    """

    def __init__(self, start: int = 0) -> None:
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
        count = len(endpoints)
        if skip is None and count:
            # The usual case; it is worth its lines because every connection takes this path.
            index = self._next % count
            self._next = index + 1
            return endpoints[index]
        for step in range(count):
            index = (self._next + step) % count
            if skip is None or endpoints[index] not in skip:
                self._next = index + 1
                return endpoints[index]
        return None
