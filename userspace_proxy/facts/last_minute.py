"""The clients of a Service port in the last minute, and those that got no answer.

    reports ──▶ parts of 5 s ──▶ sums of the last 12

Counters since the start hide what happens now: of a million connections, ten failed. And what is so
now hides what was so a moment ago: an endpoint that ends again and again answers in between.

Rule 1: a part ends as a whole, so sums change slowly.
Rule 2: memory has a bound: nothing is kept for a Service port without clients, except that its last
endpoint left.
Rule 3: clients that leave count only if others left at another moment: those of a program that is
stopped leave at once, whatever the endpoint does.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable

from msgspec.structs import replace

from .lately import Lately

LATELY_S = 60.0
"""For how long a failure, or a client's mistake, is news: longer than a probe of an endpoint that
no client dials takes to come (``plane.ejected``)."""
# Of that time, the present one included.
_PARTS = 12
_PART_S = LATELY_S / _PARTS
# Between two moments at which clients leave: workers report one within milliseconds.
_APART_S = 1.0
_NOTHING = Lately()


class LastMinute:
    """The last minute of one Service port."""

    __slots__ = ("_failed_at", "_left_at", "_parts")

    def __init__(self) -> None:
        self._parts: dict[int, Lately] = {}
        """By number, the oldest first."""
        self._failed_at = -math.inf
        self._left_at: deque[float] = deque(maxlen=2)
        """The last moments at which clients left."""

    def add(self, new: Lately, now: float) -> None:
        """Add what was counted until now, monotonic seconds, since the last call."""
        counts = new.counts()
        if not any(counts):
            return
        if any(counts[1:]):
            self._failed_at = now
        if new.client_aborts > 0 and (not self._left_at or now - self._left_at[-1] >= _APART_S):
            self._left_at.append(now)
        number = int(now // _PART_S)
        before = self._parts.pop(number, _NOTHING)
        if len(self._parts) >= _PARTS:
            self._parts = {n: part for n, part in self._parts.items() if n > number - _PARTS}
        self._parts[number] = _sum((before, new))

    def failing(self, now: float) -> Lately:
        """Return the sums of the last minute, or nothing if all clients were answered in time.

        What counts as that is all but the connections.
        """
        if now - self._failed_at >= LATELY_S:
            return _NOTHING
        oldest = int(now // _PART_S) - _PARTS
        sums = _sum(part for number, part in self._parts.items() if number > oldest)
        # What was counted before may have been taken back since.
        sums = Lately(*(max(0, count) for count in sums.counts()))
        if sum(now - at < LATELY_S for at in self._left_at) < 2:
            sums = replace(sums, client_aborts=0)
        return sums if any(sums.counts()[1:]) else _NOTHING


def _sum(parts: Iterable[Lately]) -> Lately:
    counts = (part.counts() for part in (_NOTHING, *parts))
    return Lately(*map(sum, zip(*counts, strict=True)))
