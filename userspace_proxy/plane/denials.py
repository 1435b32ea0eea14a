"""When packets of clients that aren't admitted were dropped, by the present networks or others.

    admits A ──drops──▶ admits B: those were not dropped by B ──10 s──▶ drops are those of B

Rule 1: what workers count after a change may have been dropped before it: until each has reported,
drops are taken for older ones, so the present networks aren't blamed for them. The next report is
asked for REPORT_S after the last one or somewhat later, and a busy worker takes a while to answer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from .messages import REPORT_S


class Dropped(NamedTuple):
    """Packets, and monotonic seconds of the first and the last report of them."""

    packets: int
    first_at: float
    last_at: float

    def grown(self, count: int, now: float) -> Dropped:
        """Return them with what was just reported."""
        first_at = self.first_at if self.packets else now
        return Dropped(self.packets + count, first_at, now)


NONE = Dropped(0, -1.0, -1.0)
_REPORTED_S = 2 * REPORT_S


class Denials:
    """The drops of one Service port."""

    def __init__(self) -> None:
        self.present = NONE
        """Those of the networks that are admitted now."""
        self.former = NONE
        """Those before the networks changed."""
        self._admits: Sequence[str] | None = None
        """The last networks; None before the first ones."""
        self._changed_at = -math.inf

    def change(self, admits: Sequence[str] | None, now: float) -> None:
        """Take the networks that are admitted from now on; None: all clients are."""
        if admits is None or admits == self._admits:
            return
        if self._admits is not None:
            self._changed_at = now
        if self.present.packets:
            first = self.former if self.former.packets else self.present
            count = self.former.packets + self.present.packets
            self.former = Dropped(count, first.first_at, self.present.last_at)
            self.present = NONE
        self._admits = admits

    def add(self, count: int, now: float) -> None:
        """Add packets that a worker has just reported."""
        if now - self._changed_at < _REPORTED_S:
            self.former = self.former.grown(count, now)
        else:
            self.present = self.present.grown(count, now)
