"""Picks the endpoint with fewer connections out of two random ones.

Source: M. Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing" (2001): nearly
as even as looking at all, at a cost that doesn't grow with their number.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from typing import Protocol

from ..model import SocketAddress


class Lots(Protocol):
    """What lots are drawn from: a ``random.Random``."""

    def randrange(self, stop: int, /) -> int:
        """Return a number below ``stop``, each as likely."""


class PowerOfTwoChoices:
    """Draws two.

    Args:
        load: How many connections an endpoint has now, those that are being dialled included.
        rng: Where lots come from.
    """

    def __init__(self, load: Callable[[SocketAddress], int], rng: Lots) -> None:
        self._load = load
        self._rng = rng

    def pick(
        self, endpoints: Sequence[SocketAddress], *, skip: Container[SocketAddress] | None = None
    ) -> SocketAddress | None:
        """Return the less loaded of two endpoints, or None if all are to be skipped.

        Args:
            endpoints: Usable endpoints in plan order; may be empty.
            skip: Endpoints already tried for this connection, or ejected; None for none.
        """
        candidates = endpoints if skip is None else [e for e in endpoints if e not in skip]
        count = len(candidates)
        if count < 2:
            return candidates[0] if count else None
        first = self._rng.randrange(count)
        second = self._rng.randrange(count - 1)
        one, other = candidates[first], candidates[second + (second >= first)]
        return other if self._load(other) < self._load(one) else one
