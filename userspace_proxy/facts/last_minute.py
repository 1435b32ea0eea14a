"""The clients of a Service port in the last minute, and those that no endpoint answered.

    reports ──▶ parts of 5 s ──▶ sums of the last 12

Counters since the start hide what happens now: of a million connections, ten failed. And what is so
now hides what was so a moment ago: an endpoint that ends again and again answers in between.

Rule 1: a part ends as a whole, so sums change slowly.
Rule 2: memory has a bound: nothing is kept for a Service port without clients.
"""

from __future__ import annotations

import math
from typing import NamedTuple

_PART_S = 5.0
# Of a minute, the present one included.
_PARTS = 12


class Lately(NamedTuple):
    """What was counted in the last minute, as in ``PortFigures``."""

    connections: int = 0
    refused: int = 0


_NOTHING = Lately()


class LastMinute:
    """The last minute of one Service port."""

    __slots__ = ("_parts", "_refused_at")

    def __init__(self) -> None:
        self._parts: dict[int, Lately] = {}
        """By number, the oldest first."""
        self._refused_at = -math.inf

    def add(self, connections: int, refused: int, now: float) -> None:
        """Add what was counted until now, monotonic seconds, since the last call."""
        if not (connections or refused):
            return
        if refused:
            self._refused_at = now
        number = int(now // _PART_S)
        before = self._parts.pop(number, _NOTHING)
        if len(self._parts) >= _PARTS:
            self._parts = {n: part for n, part in self._parts.items() if n > number - _PARTS}
        self._parts[number] = Lately(before.connections + connections, before.refused + refused)

    def failing(self, now: float) -> Lately:
        """Return the sums of the last minute if a client was refused in it, or else nothing."""
        if now - self._refused_at >= _PARTS * _PART_S:
            return _NOTHING
        oldest = int(now // _PART_S) - _PARTS
        parts = [part for number, part in self._parts.items() if number > oldest]
        refused = sum(part.refused for part in parts)
        return Lately(sum(p.connections for p in parts), refused) if refused else _NOTHING
