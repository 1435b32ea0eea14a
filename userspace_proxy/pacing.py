"""When something is done again: after a share of what it takes, or later each time that it fails.

The caller passes the time, in monotonic seconds, and what is random.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(slots=True)
class Pacing:
    """The pace of work that uses a share of the time at most, of a thread or of a processor."""

    share: float
    every_s: float = 0.0
    longest_s: float = math.inf
    """The longest wait for its share."""
    due: float = 0.0
    """When the work may begin again."""

    def wait_s(self, took_s: float) -> float:
        """Return after how many seconds to do again what took some."""
        return max(self.every_s, min(took_s / self.share, self.longest_s))

    def note(self, began: float, ended: float) -> None:
        """Set when work that has ended is due again."""
        self.due = began + self.wait_s(ended - began)


def backoff_s(failures: int, first_s: float, longest_s: float, *, jitter: float = 0.0) -> float:
    """Return the wait after failures in a row, which doubles with each; 0 if there are none.

    Args:
        jitter: Makes it longer by such a share, so that a thousand nodes don't return at once.
    """
    # A power with a larger exponent may overflow.
    wait_s = min(first_s * 2.0 ** min(failures - 1, 100), longest_s) if failures > 0 else 0.0
    return wait_s * (1 + jitter)
