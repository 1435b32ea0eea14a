"""Limits how often a lasting condition is logged."""

from __future__ import annotations

EVERY_S = 60.0
"""Seconds between two lines: frequent enough for a reader, yet a small log file after a day."""
SERVICE_LINES = 20
"""The limit of lines per minute about Services, thousands of which may change in a round."""


class LogLimit:
    """A limit of lines per minute about one condition; callers omit further lines."""

    __slots__ = "_began_at", "_lines", "left"

    def __init__(self, lines: int = 1) -> None:
        self._lines = lines
        self._began_at: float | None = None
        self.left = lines
        """The number of lines that may still be written in this minute."""

    def take(self, now: float) -> bool:
        """Return whether a line may be written, and count it; a minute begins with a line.

        Args:
            now: Monotonic seconds.
        """
        if self._began_at is None or now - self._began_at >= EVERY_S:
            self._began_at, self.left = now, self._lines
        if not self.left:
            return False
        self.left -= 1
        return True

    def forget(self) -> None:
        """Allow the next line, because the condition has ended."""
        self._began_at = None
