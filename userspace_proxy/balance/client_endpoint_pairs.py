"""Counts the connections of each client to each endpoint, and remembers such pairs for a minute."""

from __future__ import annotations

from ..model import SocketAddress

PAIR_S = 60.0
"""The seconds for which a pair is kept: as long as TIME_WAIT, in which a connection's ports aren't
free (TCP_TIMEWAIT_LEN)."""
MAX_PAIRS = 4096


class PairCounts:
    """The number of connections, or flows, of each pair."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, SocketAddress], int] = {}

    def add(self, client: str, endpoint: SocketAddress) -> None:
        pair = client, endpoint
        self._counts[pair] = self._counts.get(pair, 0) + 1

    def remove(self, client: str, endpoint: SocketAddress) -> None:
        """Stop counting a connection, or flow, that :meth:`add` has counted."""
        pair = client, endpoint
        left = self._counts[pair] - 1
        if left:
            self._counts[pair] = left
        else:
            del self._counts[pair]

    def has(self, client: str, endpoint: SocketAddress) -> bool:
        return (client, endpoint) in self._counts


class Pairs:
    """Pairs recorded within the last minute; at most the latest 4,096."""

    def __init__(self) -> None:
        self.until: dict[tuple[str, SocketAddress], float] = {}
        """Monotonic seconds when each pair is forgotten; usually empty, which saves look-ups."""

    def note(self, client: str, endpoint: SocketAddress, now: float) -> None:
        """Remember a pair for a minute."""
        until = self.until
        # Removing the pair first moves it to the end.
        until.pop((client, endpoint), None)
        if len(until) >= MAX_PAIRS:
            del until[next(iter(until))]
        until[client, endpoint] = now + PAIR_S

    def has(self, client: str, endpoint: SocketAddress, now: float) -> bool:
        """Return whether a pair was recorded within the last minute; forget it if not."""
        until = self.until.get((client, endpoint))
        if until is None:
            return False
        if now < until:
            return True
        del self.until[client, endpoint]
        return False
