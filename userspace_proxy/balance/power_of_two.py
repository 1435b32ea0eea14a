"""Picks the endpoint with fewer connections out of two random ones.

Source: M. Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing" (2001): nearly
as even as comparing all, at a cost that doesn't grow with their number.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from typing import Protocol

from ..model import SocketAddress

# Draws until the endpoints that may be picked are listed, which costs a look at all of them.
DRAWS = 16


class RandomNumbers(Protocol):
    """The part of ``random.Random`` that is used here."""

    def randrange(self, stop: int, /) -> int:
        """Return a uniformly distributed number below ``stop``."""


def draw(
    endpoints: Sequence[SocketAddress], rng: RandomNumbers, *skips: Container[SocketAddress]
) -> SocketAddress | None:
    """Return a random endpoint; None if that many draws met only those that are to be skipped."""
    for _ in range(DRAWS):
        endpoint = endpoints[rng.randrange(len(endpoints))]
        if not any(endpoint in skip for skip in skips):
            return endpoint
    return None


class PowerOfTwoChoices:
    """Compares two random endpoints for each connection.

    Args:
        load: Returns how many connections an endpoint has, pending dials included.
    """

    def __init__(self, load: Callable[[SocketAddress], int], rng: RandomNumbers) -> None:
        self._load = load
        self._rng = rng

    def pick(
        self,
        endpoints: Sequence[SocketAddress],
        _client: str = "",
        /,
        *,
        skip: Container[SocketAddress] | None = None,
    ) -> SocketAddress | None:
        """Part of Strategy."""
        if skip is not None and len(endpoints) > DRAWS:
            one = draw(endpoints, self._rng, skip)
            other = None if one is None else draw(endpoints, self._rng, skip, {one})
            if one is not None and other is not None:
                return other if self._load(other) < self._load(one) else one
        candidates = endpoints if skip is None else [e for e in endpoints if e not in skip]
        count = len(candidates)
        if count < 2:
            return candidates[0] if count else None
        first = self._rng.randrange(count)
        second = self._rng.randrange(count - 1)
        one, other = candidates[first], candidates[second + (second >= first)]
        return other if self._load(other) < self._load(one) else one
