"""When endpoints are probed for the choice of the path: which ones are due, within a budget.

Rule 1: however many endpoints there are, no more probes a second begin than the budget allows: the
interval of each endpoint grows instead.
Rule 2: an endpoint that has failed keeps the short interval, so that its recovery is seen soon.
Rule 3: nothing here reads a clock or draws a random number: both are passed in.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable

from ..model import SocketAddress

EVERY_S = 1.5
"""Seconds between two probes of an endpoint, on average."""
PER_SECOND = 2_000
"""At most so many probes begin in a second; one takes some 60 µs of a core."""
# Intervals are drawn between 2/3 and 4/3 of the average, so that nodes don't probe together.
_LEAST, _SPREAD = 2 / 3, 2 / 3
# Probes that are due begin together, so that a timer serves several.
GAP_S = 0.01
# After a pause no more probes begin at once.
_BURST_S = 0.05


class ProbeSchedule:
    """The endpoints that are probed, each with the time of its next probe.

    Args:
        jitter: Returns a number from 0 up to 1.
        every_s: As ``EVERY_S``.
        per_second: As ``PER_SECOND``.
    """

    def __init__(
        self,
        jitter: Callable[[], float],
        *,
        every_s: float = EVERY_S,
        per_second: int = PER_SECOND,
    ) -> None:
        self.per_second = per_second
        self._jitter = jitter
        self._every_s = every_s
        self._due: dict[SocketAddress, float | None] = {}
        """None while a probe is under way."""
        self._heap: list[tuple[float, SocketAddress]] = []
        """May contain former times."""
        self._burst = max(1.0, per_second * _BURST_S)
        self._left = self._burst
        """Probes that may begin now."""
        self._then = 0.0

    def __len__(self) -> int:
        return len(self._due)

    @property
    def interval_s(self) -> float:
        """Average seconds between two probes of an endpoint that answers."""
        return max(self._every_s, len(self._due) / self.per_second)

    def add(self, endpoint: SocketAddress, now: float) -> None:
        """Probe an endpoint from now on, for the first time at once."""
        self._put(endpoint, now)

    def discard(self, endpoint: SocketAddress) -> None:
        """Don't probe an endpoint any more. Idempotent."""
        self._due.pop(endpoint, None)

    def take(self, now: float, room: int) -> list[SocketAddress]:
        """Return the endpoints whose probes are to begin now, those that are overdue first.

        Each gets its next time by :meth:`finished`.

        Args:
            room: At most so many.
        """
        earned = max(0.0, now - self._then) * self.per_second
        self._left = min(self._burst, self._left + earned)
        self._then = now
        found: list[SocketAddress] = []
        while self._heap and self._heap[0][0] <= now and len(found) < min(room, int(self._left)):
            due, endpoint = heapq.heappop(self._heap)
            if self._due.get(endpoint) == due:
                self._due[endpoint] = None
                found.append(endpoint)
        self._left -= len(found)
        return found

    def finished(self, endpoint: SocketAddress, now: float, *, has_failed: bool) -> None:
        """Set the time of an endpoint's next probe; nothing if it isn't probed any more."""
        if endpoint in self._due:
            interval_s = self._every_s if has_failed else self.interval_s
            self._put(endpoint, now + interval_s * (_LEAST + _SPREAD * self._jitter()))

    def next_at(self, now: float) -> float | None:
        """Return when to call :meth:`take` again; None: no endpoint waits for a probe."""
        return max(self._heap[0][0], now + GAP_S) if self._heap else None

    def _put(self, endpoint: SocketAddress, at: float) -> None:
        self._due[endpoint] = at
        heapq.heappush(self._heap, (at, endpoint))
