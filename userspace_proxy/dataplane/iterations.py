"""Measures how long the iterations of an event loop take.

An iteration is one callback of this package: a dispatch of events, or of control messages. Counting
is on the traffic path: it creates no objects, and a quick iteration costs two sums.
"""

from __future__ import annotations

from bisect import bisect_left

ITERATION_BOUNDS_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
"""An iteration is counted under the first of these that it doesn't exceed."""


class LoopIterations:
    """The iterations since the start."""

    __slots__ = ("count", "seconds", "slow")

    def __init__(self) -> None:
        self.count = 0
        self.seconds = 0.0
        """Sum of their durations."""
        self.slow = [0] * (len(ITERATION_BOUNDS_S) + 1)
        """How many by bound, but 0 for the first: it has the rest of :attr:`count`."""

    def add(self, seconds: float) -> None:
        """Count one."""
        self.count += 1
        self.seconds += seconds
        if seconds > ITERATION_BOUNDS_S[0]:
            self.slow[bisect_left(ITERATION_BOUNDS_S, seconds)] += 1

    def counts(self) -> list[int]:
        """Return how many iterations there were by bound; the last number is of longer ones."""
        return [self.count - sum(self.slow), *self.slow[1:]]
