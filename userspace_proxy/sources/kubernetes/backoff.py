"""Decides how long to wait before a retry."""

from __future__ import annotations

import random

# client-go's reflector: 800 ms to 30 s, factor 2, jitter 1.0. The cap is lower here: with 30 s, a
# change after an outage of 30 s took effect 47 s late (measured). A busy server sends Retry-After.
BASE_S = 0.8
CAP_S = 5.0
FACTOR = 2.0
JITTER = 1.0

RETRY_AFTER_MAX_S = 300.0
"""The longest wait, also if the server asks for a longer one."""


class Backoff:
    """Doubling waits with jitter, so that a thousand nodes don't return at once."""

    def __init__(self, rng: random.Random, *, base_s: float = BASE_S, cap_s: float = CAP_S) -> None:
        self._rng = rng
        self._base_s = base_s
        self._cap_s = cap_s
        self._next_s = base_s

    def reset(self) -> None:
        """Begin again with the shortest wait."""
        self._next_s = self._base_s

    def next_s(self, *, at_least_s: float = 0.0) -> float:
        """Return how many seconds to wait now, at least as the server requested."""
        wait_s = self._next_s * (1 + JITTER * self._rng.random())
        self._next_s = min(self._next_s * FACTOR, self._cap_s)
        return max(wait_s, min(at_least_s, RETRY_AFTER_MAX_S))
