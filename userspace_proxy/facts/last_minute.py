"""The clients of a Service port in the last minute, and those that got no answer.

    reports ──▶ parts of 5 s ──▶ sums of the last 12

Counters since the start hide what happens now: of a million connections, ten failed. And what is so
now hides what was so a moment ago: an endpoint that ends again and again answers in between.

Rule 1: a part ends as a whole, so sums change slowly.
Rule 2: memory has a bound: nothing is kept for a Service port without clients.
Rule 3: clients that leave count only if others left in another part: those of a program that is
stopped leave at once, whatever the endpoint does.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

_PART_S = 5.0
# Of a minute, the present one included.
_PARTS = 12
# In which clients have left, for these to count.
_PARTS_LEFT = 2


class Lately(NamedTuple):
    """What was counted in the last minute, or a part of it, as in ``PortFigures``."""

    connections: int = 0
    refused: int = 0
    unanswered: int = 0
    """As in ``EndpointCounters``, as the next one."""
    left: int = 0

    @property
    def failed(self) -> int:
        """Clients that got no answer, without those that left."""
        return self.refused + self.unanswered


_NOTHING = Lately()


class LastMinute:
    """The last minute of one Service port."""

    __slots__ = ("_failed_at", "_parts")

    def __init__(self) -> None:
        self._parts: dict[int, Lately] = {}
        """By number, the oldest first."""
        self._failed_at = -math.inf

    def add(self, new: Lately, now: float) -> None:
        """Add what was counted until now, monotonic seconds, since the last call."""
        if not any(new):
            return
        if new.failed or new.left:
            self._failed_at = now
        number = int(now // _PART_S)
        before = self._parts.pop(number, _NOTHING)
        if len(self._parts) >= _PARTS:
            self._parts = {n: part for n, part in self._parts.items() if n > number - _PARTS}
        self._parts[number] = _sum((before, new))

    def failing(self, now: float) -> Lately:
        """Return the sums of the last minute if a client failed in it, or else nothing."""
        if now - self._failed_at >= _PARTS * _PART_S:
            return _NOTHING
        oldest = int(now // _PART_S) - _PARTS
        parts = [part for number, part in self._parts.items() if number > oldest]
        sums = _sum(parts)
        if sum(part.left > 0 for part in parts) < _PARTS_LEFT:
            sums = sums._replace(left=0)
        return sums if sums.failed or sums.left else _NOTHING


def _sum(parts: Iterable[Lately]) -> Lately:
    return Lately(*map(sum, zip(_NOTHING, *parts, strict=True)))
