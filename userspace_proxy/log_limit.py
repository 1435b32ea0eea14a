"""Limits how often a lasting condition is logged."""

from __future__ import annotations

EVERY_S = 60.0
"""Seconds between two lines: often enough for a reader, and a small file after a day of it."""


class LogLimit:
    """At most one line a minute about one condition; the first one is never held back."""

    def __init__(self) -> None:
        self._taken_at: float | None = None

    def take(self, now: float) -> bool:
        """Return whether a line may be written; if so, the minute begins anew.

        Args:
            now: Monotonic seconds.
        """
        if self._taken_at is not None and now - self._taken_at < EVERY_S:
            return False
        self._taken_at = now
        return True

    def forget(self) -> None:
        """Let the next line through: the condition has ended, and a new one is news."""
        self._taken_at = None
