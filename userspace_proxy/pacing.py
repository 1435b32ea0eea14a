"""Paces repeated work: by a maximum share of the time, or by backoff after failures.

The caller passes the time, in monotonic seconds, and the random jitter.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(slots=True)
class Pacing:
    """The pace of work that may use at most a share of the time of a thread or CPU."""

    share: float
    every_s: float = 0.0
    longest_s: float = math.inf
    """The longest wait between two runs."""
    due: float = 0.0
    """The time from which the work may run again, in monotonic seconds."""

    def wait_s(self, took_s: float) -> float:
        """Return the wait before the next run, given the duration of the last run in seconds."""
        return max(self.every_s, min(took_s / self.share, self.longest_s))

    def note(self, began: float, ended: float) -> None:
        """Schedule the next run, after a run that began and ended at these times."""
        self.due = began + self.wait_s(ended - began)


def backoff_s(failures: int, first_s: float, longest_s: float, *, jitter: float = 0.0) -> float:
    """Return the wait after consecutive failures, which doubles with each; 0 without failures.

    Args:
        jitter: Lengthens the wait by this share, so that a thousand nodes don't retry at once.
    """
    # Bound the exponent: a larger one may overflow.
    wait_s = min(first_s * 2.0 ** min(failures - 1, 100), longest_s) if failures > 0 else 0.0
    return wait_s * (1 + jitter)
