"""Counts durations by bounds: those of loop iterations, of dials, of waits for a first byte.

Counting is on the traffic path: it creates no objects, and a quick one costs two sums. An iteration
is one callback of this package: a dispatch of events, or of control messages.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable

ITERATION_BOUNDS_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
"""A loop iteration is counted under the first of these that it doesn't exceed."""

# 1 s and 3 s are the limits of dials by default.
TIMES_BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 3.0, 10.0)
"""The same for what clients wait for. A wait of less than one loop iteration is 0."""


class Durations:
    """Durations since the start.

    Args:
        bounds: Seconds, ascending.
    """

    __slots__ = ("_slow", "bounds", "count", "seconds")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.count = 0
        self.seconds = 0.0
        """Sum of all."""
        self._slow: list[int] | None = None
        """How many by bound, but 0 for the first: it has the rest of :attr:`count`; None: none."""

    def add(self, seconds: float) -> None:
        self.count += 1
        self.seconds += seconds
        if seconds > self.bounds[0]:
            self._add_slow(bisect_left(self.bounds, seconds), 1)

    def counts(self) -> list[int]:
        """Return how many there were by bound; the last number is of longer ones."""
        if self._slow is None:
            return [self.count, *[0] * len(self.bounds)]
        return [self.count - sum(self._slow), *self._slow[1:]]

    def merge(self, counts: Iterable[int], seconds: float) -> None:
        """Add what another process has counted, with the same bounds."""
        for index, count in enumerate(counts):
            self.count += count
            # Most are 0.
            if index and count:
                self._add_slow(index, count)
        self.seconds += seconds

    def _add_slow(self, index: int, count: int) -> None:
        if self._slow is None:
            self._slow = [0] * (len(self.bounds) + 1)
        self._slow[index] += count
