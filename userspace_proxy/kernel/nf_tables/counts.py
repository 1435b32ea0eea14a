"""Sums of what a table's counters count, which begin at 0 whenever a counter is written anew."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ...model import Frontend


class Counts:
    """The connections to frontends that one table's counters have counted, from readings of them.

    Numbers never shrink: a counter that is lower than before has begun again at 0.
    """

    def __init__(self) -> None:
        self.totals: dict[Frontend, int] = {}
        self._read: dict[Frontend, int] = {}
        """What the counters had at the last reading."""

    def note(self, frontend: Frontend, count: int) -> None:
        """Take a reading of a frontend's counter."""
        before = self._read.get(frontend, 0)
        grown = count - before if count >= before else count
        self.totals[frontend] = self.totals.get(frontend, 0) + grown
        self._read[frontend] = count

    def begin_anew(self, frontends: Iterable[Frontend]) -> None:
        """Note that counters have begun again at 0."""
        for frontend in frontends:
            self._read.pop(frontend, None)

    def forget(self, frontends: Iterable[Frontend]) -> dict[Frontend, int]:
        """Forget frontends whose counters are gone; return their totals."""
        forgotten = {f: self.totals.pop(f) for f in frontends if f in self.totals}
        self.begin_anew(forgotten)
        return forgotten

    def restore(self, totals: Mapping[Frontend, int]) -> None:
        """Continue totals that were forgotten; their counters begin at 0."""
        self.totals |= totals
