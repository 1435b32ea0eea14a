"""Counts durations in histograms: loop iterations, dials, and waits for a first byte.

Durations are counted on the traffic path, so counting creates no objects, and a short duration
costs two additions. An iteration is one callback of the data plane: a dispatch of events, or of
control messages.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable

ITERATION_BOUNDS_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
"""The bounds for loop iterations; an iteration counts at the first bound that it doesn't exceed."""

# The bounds of the buckets in seconds; 1 s and 3 s are the default limits of one and of all dials.
TIMES_BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 3.0, 10.0)
"""The bounds for clients' waits. A wait that is shorter than a loop iteration counts as 0."""


class Durations:
    """A histogram of durations since it was created.

    Args:
        bounds: Seconds, ascending.
    """

    __slots__ = ("_slow", "bounds", "count", "seconds")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.count = 0
        self.seconds = 0.0
        """The sum of all durations, in seconds."""
        self._slow: list[int] | None = None
        """The counts by bound, except the first, which is ``count`` minus these; None if all are
        0."""

    def add(self, seconds: float) -> None:
        self.count += 1
        self.seconds += seconds
        if seconds > self.bounds[0]:
            self._add_slow(bisect_left(self.bounds, seconds), 1)

    def counts(self) -> list[int]:
        """Return the counts by bound; the last number counts longer durations."""
        if self._slow is None:
            return [self.count, *[0] * len(self.bounds)]
        return [self.count - sum(self._slow), *self._slow[1:]]

    def merge(self, counts: Iterable[int], seconds: float) -> None:
        """Add the counts of another process, which have the same bounds."""
        for index, count in enumerate(counts):
            self.count += count
            # Skip zeros, because most counts are 0.
            if index and count:
                self._add_slow(index, count)
        self.seconds += seconds

    def _add_slow(self, index: int, count: int) -> None:
        if self._slow is None:
            self._slow = [0] * (len(self.bounds) + 1)
        self._slow[index] += count
