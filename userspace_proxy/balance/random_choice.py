"""Picks a random endpoint, or the less loaded of two endpoints, with or without weights.

Source: for one endpoint, kube-proxy's iptables rules (``--mode random``) and nftables rules
    (``numgen random``). For two, M. Mitzenmacher, "The Power of Two Choices in Randomized Load
    Balancing" (2001): nearly as even as comparing all endpoints, at a fixed cost.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Container, Sequence
from itertools import accumulate
from typing import Protocol

from ..model import SocketAddress
from .strategy import Skip
from .weights import Weights

# The number of draws before the pickable endpoints are listed instead, which visits all endpoints.
DRAWS = 16


class RandomNumbers(Protocol):
    """The methods of ``random.Random`` that are used here."""

    def randrange(self, stop: int, /) -> int:
        """Return a uniformly distributed integer in [0, ``stop``)."""


def draw(
    endpoints: Sequence[SocketAddress], rng: RandomNumbers, *skips: Container[SocketAddress]
) -> SocketAddress | None:
    """Return a random endpoint; None if DRAWS draws found only endpoints to skip."""
    for _ in range(DRAWS):
        endpoint = endpoints[rng.randrange(len(endpoints))]
        if not any(endpoint in skip for skip in skips):
            return endpoint
    return None


class RandomChoice:
    """A strategy that picks each endpoint with the same probability, whatever it picked before."""

    def __init__(self, rng: RandomNumbers) -> None:
        self._rng = rng

    def pick(
        self, endpoints: Sequence[SocketAddress], _client: str = "", /, *, skip: Skip = None
    ) -> SocketAddress | None:
        if skip is not None and len(endpoints) > DRAWS:
            endpoint = draw(endpoints, self._rng, skip)
            if endpoint is not None:
                return endpoint
        candidates = endpoints if skip is None else [e for e in endpoints if e not in skip]
        return candidates[self._rng.randrange(len(candidates))] if candidates else None


class PowerOfTwoChoices:
    """A strategy that picks the less loaded of two random endpoints.

    Args:
        load: Returns how many connections an endpoint has, including pending dials.
    """

    def __init__(self, load: Callable[[SocketAddress], int], rng: RandomNumbers) -> None:
        self._load = load
        self._rng = rng

    def pick(
        self, endpoints: Sequence[SocketAddress], _client: str = "", /, *, skip: Skip = None
    ) -> SocketAddress | None:
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


# The factor that makes weights integers, as randrange() needs: slow start yields fractions.
_PARTS = 1000


class _Draw:
    """Weighted draws from a list of endpoints, prepared once until endpoints or weights change."""

    def __init__(self, weights: Weights, rng: RandomNumbers) -> None:
        self._weights = weights
        self._rng = rng
        self._endpoints: Sequence[SocketAddress] = ()
        self._version = -1
        self._ends: list[int] = []
        """The upper end of each endpoint's range of random numbers."""

    def arrange(self, endpoints: Sequence[SocketAddress]) -> None:
        if endpoints is not self._endpoints or self._version != self._weights.version:
            self._endpoints, self._version = endpoints, self._weights.version
            parts = (max(1, round(self._weights.of(e) * _PARTS)) for e in endpoints)
            self._ends = list(accumulate(parts))

    def few(
        self, endpoints: Sequence[SocketAddress], skip: Container[SocketAddress], count: int
    ) -> list[SocketAddress]:
        """Return up to ``count`` endpoints from DRAWS draws; none if there are at most DRAWS."""
        self.arrange(endpoints)
        drawn: list[int] = []
        for _ in range(DRAWS if len(endpoints) > DRAWS else 0):
            index = self.another(drawn[0]) if drawn else self.one()
            if endpoints[index] not in skip:
                drawn.append(index)
                if len(drawn) == count:
                    break
        return [endpoints[index] for index in drawn]

    def one(self) -> int:
        return bisect_right(self._ends, self._rng.randrange(self._ends[-1]))

    def another(self, first: int) -> int:
        """Draw the index of an endpoint other than ``first``; there must be at least two."""
        begin = self._ends[first - 1] if first else 0
        part = self._ends[first] - begin
        number = self._rng.randrange(self._ends[-1] - part)
        return bisect_right(self._ends, number if number < begin else number + part)


class WeightedRandomChoice:
    """A strategy that picks each endpoint with a probability in proportion to its weight."""

    def __init__(self, weights: Weights, rng: RandomNumbers) -> None:
        self._draw = _Draw(weights, rng)

    def pick(
        self, endpoints: Sequence[SocketAddress], _client: str = "", /, *, skip: Skip = None
    ) -> SocketAddress | None:
        if skip is not None:
            drawn = self._draw.few(endpoints, skip, 1)
            if drawn:
                return drawn[0]
        candidates = endpoints if skip is None else [e for e in endpoints if e not in skip]
        if not candidates:
            return None
        self._draw.arrange(candidates)
        return candidates[self._draw.one()]


class WeightedPowerOfTwoChoices:
    """A strategy that draws two endpoints by weight, and picks the one with less load per weight.

    Args:
        load: Returns how many connections an endpoint has, including pending dials.
    """

    def __init__(
        self, load: Callable[[SocketAddress], int], weights: Weights, rng: RandomNumbers
    ) -> None:
        self._load = load
        self._weights = weights
        self._draw = _Draw(weights, rng)

    def pick(
        self, endpoints: Sequence[SocketAddress], _client: str = "", /, *, skip: Skip = None
    ) -> SocketAddress | None:
        drawn = [] if skip is None else self._draw.few(endpoints, skip, 2)
        if len(drawn) < 2:
            candidates = endpoints if skip is None else [e for e in endpoints if e not in skip]
            if len(candidates) < 2:
                return candidates[0] if candidates else None
            self._draw.arrange(candidates)
            first = self._draw.one()
            drawn = [candidates[first], candidates[self._draw.another(first)]]
        one, other = drawn
        weights = self._weights
        is_less = self._load(other) * weights.of(one) < self._load(one) * weights.of(other)
        return other if is_less else one
