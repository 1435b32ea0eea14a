"""Which kinds may still be shown as before history went back, and whether a source can know it."""

from __future__ import annotations

from collections.abc import Mapping

from ..api_exchange import Exchange
from .follower import Follower
from .requests import is_check


class Restores:
    """Those of one cluster."""

    def __init__(self) -> None:
        self.last_at: float | None = None
        self.pending: set[str] = set()
        """Kinds that weren't listed since history went back."""
        self._positions: dict[str, int] = {}
        """What each kind had seen when history went back."""
        self._detectable: set[str] = set()
        """Kinds that have asked before history went on from there."""

    @property
    def blind(self) -> set[str]:
        """Kinds of which a source can't know that history went back, and on from there."""
        return self.pending - self._detectable

    def begin(self, now: float, followers: Mapping[str, Follower]) -> None:
        """Note that history goes back, before it does."""
        self.last_at = now
        self._detectable.clear()
        self._positions = {kind: follower.newest for kind, follower in followers.items()}

    def complete(self, revision: int, followers: Mapping[str, Follower]) -> None:
        """Note that history has gone back to a revision."""
        # What was seen by then is part of both histories.
        self.pending |= {
            kind
            for kind, follower in followers.items()
            if follower.request is not None
            and (self._positions[kind] > revision or not follower.is_quiet)
        }

    def note_answer(self, follower: Follower, exchange: Exchange, revision: int) -> None:
        """Note whether a source learns from an answer that history went back, or has to.

        Args:
            revision: The newest one.
        """
        kind = follower.kind
        if kind not in self.pending or revision >= self._positions[kind]:
            return
        if is_check(exchange):
            if exchange.code == 504:
                self._detectable.add(kind)
        elif exchange.code == 200 and follower.must_ask_at is None and self._is_since(exchange):
            # It was asked before, or is known.
            self._detectable.add(kind)

    def _is_since(self, exchange: Exchange) -> bool:
        """Return whether a server answers a request after history went back, not just before."""
        return self.last_at is not None and exchange.began >= self.last_at

    def end(self, follower: Follower) -> bool:
        """Note that a list is complete; return whether the newest history is shown from now on."""
        is_newer = self.last_at is not None and follower.list_began >= self.last_at
        if not is_newer or follower.kind not in self.pending:
            return False
        self.pending.discard(follower.kind)
        return True
