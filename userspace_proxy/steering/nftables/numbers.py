"""Numbers of 32 bits, which restart without those that are in use.

    in use  ├──────┤         ├───┤  ├──────────┤
    given            ▶▶▶▶▶▶▶▶     ▶             ▶▶▶▶▶▶▶▶ the end, then from the first again

Rule 1: a number that is free again isn't given before all others: packets and pins may name it for
some time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from ...errors import SteeringError

NUMBERS_END = 1 << 32


class Numbers:
    """The numbers of one kind.

    Args:
        first: The lowest.
    """

    def __init__(self, first: int) -> None:
        self._first = self._next = first
        self._gap_end = NUMBERS_END

    def take(self, count: int, in_use: Callable[[], Iterable[range]]) -> int:
        """Return the first of some consecutive numbers.

        Args:
            count: How many.
            in_use: Returns all ranges in use, in any order; called when the gap between two ends.

        Raises:
            SteeringError: There are none.
        """
        if self._next + count > self._gap_end:
            self._next, self._gap_end = self._find_gap(count, in_use())
        number = self._next
        self._next += count
        return number

    def _find_gap(self, count: int, in_use: Iterable[range]) -> tuple[int, int]:
        used = sorted((one.start, one.stop) for one in in_use)
        for begin in (self._next, self._first):
            for start, stop in (*used, (NUMBERS_END, NUMBERS_END)):
                if start - begin >= count:
                    return begin, start
                begin = max(begin, stop)
        raise SteeringError("cannot number endpoints: all numbers are in use")
