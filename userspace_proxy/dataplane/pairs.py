"""Pairs of a client and an endpoint: which are in use, and which of them are known for a minute."""

from __future__ import annotations

from ..model import SocketAddress

_PAIR_S = 60.0
"""As long as TIME_WAIT lasts, for which a connection's ports aren't free (TCP_TIMEWAIT_LEN)."""
MAX_PAIRS = 4096


class PairCounts:
    """How many connections, or flows, of one kind each pair has now."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, SocketAddress], int] = {}

    def add(self, client: str, endpoint: SocketAddress) -> None:
        """Count one more."""
        pair = client, endpoint
        self._counts[pair] = self._counts.get(pair, 0) + 1

    def remove(self, client: str, endpoint: SocketAddress) -> None:
        """Count one fewer; it was counted before."""
        pair = client, endpoint
        left = self._counts[pair] - 1
        if left:
            self._counts[pair] = left
        else:
            del self._counts[pair]

    def has(self, client: str, endpoint: SocketAddress) -> bool:
        """Return whether a pair has any."""
        return (client, endpoint) in self._counts


class Pairs:
    """Those of one kind; beyond 4,096 the ones that were noted longest ago are forgotten."""

    def __init__(self) -> None:
        self._until: dict[tuple[str, SocketAddress], float] = {}

    def note(self, client: str, endpoint: SocketAddress, now: float) -> None:
        """Know of a pair for a minute from now on."""
        until = self._until
        # At the end, as the one that was noted last.
        until.pop((client, endpoint), None)
        if len(until) >= MAX_PAIRS:
            del until[next(iter(until))]
        until[client, endpoint] = now + _PAIR_S

    def knows(self, client: str, endpoint: SocketAddress, now: float) -> bool:
        """Tell whether a pair was noted within the last minute."""
        # As a rule there are none, and each dial asks: so no pair is made for nothing.
        until = self._until.get((client, endpoint)) if self._until else None
        if until is None:
            return False
        if now < until:
            return True
        del self._until[client, endpoint]
        return False
