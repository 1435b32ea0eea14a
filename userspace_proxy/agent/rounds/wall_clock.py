"""Converts monotonic seconds to Unix time.

Rule 1: until the system's clock is set, a moment always converts to the same Unix time, so that
equal facts give equal causes.
"""

from __future__ import annotations

from collections.abc import Callable

from ...clocks import Clocks

NEVER = -1.0
"""The moment of an event that never happened."""
# An adjusted clock is slewed by less than 0.5 ms/s (adjtime(3)), and times are shown rounded.
_TOLERANCE_S = 0.5


class WallClock:
    """The monotonic clock and the Unix clock of a node.

    Args:
        monotonic: Returns seconds that are the same in all processes of a node.
        unix: Returns Unix time.
    """

    def __init__(
        self,
        monotonic: Callable[[], float] = Clocks.monotonic,
        unix: Callable[[], float] = Clocks.time,
    ) -> None:
        self._monotonic = monotonic
        self._unix = unix
        self.now = monotonic()
        """Monotonic seconds at the last :meth:`tick`."""
        self._offset = unix() - self.now

    def tick(self) -> None:
        """Update :attr:`now`, and follow the system's clock if it was set."""
        self.now = self._monotonic()
        offset = self._unix() - self.now
        if abs(offset - self._offset) > _TOLERANCE_S:
            self._offset = offset

    def unix(self, moment: float) -> float:
        """Return the Unix time of a monotonic time in seconds; 0 for a negative time (never)."""
        return round(moment + self._offset, 3) if moment >= 0 else 0.0
