"""Records when, and by which source ranges or policy, packets of clients were dropped.

    ranges A ──▶ ranges B: new drops count for A ──10 s──▶ for B
    ranges A ──▶ no endpoint on this node, policy Local: for A ──10 s──▶ for the policy

Rule 1: drops reported after a change may be older than the change, so they are attributed to the
previous state until each worker has had time to report: twice REPORT_S, because a report may be
requested late, and a busy worker takes a while to answer.
Rule 2: a traffic policy doesn't change the source ranges, so while it drops packets, earlier drops
stay attributed to the current ranges.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from ..model.serving import Serving
from .messages import REPORT_S


class DropReason(enum.Enum):
    """Why packets were dropped."""

    RANGES = "ranges"
    """The client is outside the current source ranges."""
    FORMER_RANGES = "former ranges"
    """The client was outside source ranges that have since been replaced."""
    POLICY = "policy"
    """Only other nodes had an endpoint, and the traffic policy was Local."""


class Dropped(NamedTuple):
    """Dropped packets, and monotonic seconds of their first and last report (-1 without drops)."""

    packets: int
    first_at: float
    last_at: float

    def grown(self, count: int, now: float) -> Dropped:
        """Return these drops with ``count`` more packets, reported at ``now``."""
        first_at = self.first_at if self.packets else now
        return Dropped(self.packets + count, first_at, now)


NONE = Dropped(0, -1.0, -1.0)
_NONE_BY: Mapping[DropReason, Dropped] = MappingProxyType(dict.fromkeys(DropReason, NONE))
_NEVER = -math.inf
_REPORTED_S = 2 * REPORT_S


class Denials:
    """The dropped packets of one Service port."""

    __slots__ = "_before", "_changed_at", "_reason", "by", "ranges"

    def __init__(self) -> None:
        # Cost: nearly all Service ports have no drops, and share this mapping.
        self.by = _NONE_BY
        """The drops by reason."""
        self.ranges: Sequence[str] | None = None
        """The latest source ranges; None if there were none so far."""
        self._reason: DropReason | None = None
        """The reason for current drops; None until a ``Serving`` drops packets."""
        self._before = DropReason.RANGES
        """The reason before the last change."""
        self._changed_at = _NEVER

    def change(self, serving: Serving, now: float) -> None:
        """Apply a new ``Serving``, unless it admits all clients."""
        if serving.admits is None:
            return
        before = self._reason
        self._reason = DropReason.POLICY if serving.is_dropping else DropReason.RANGES
        has_changed = self._reason is not before
        if self._reason is DropReason.RANGES and serving.admits != self.ranges:
            has_changed, self.ranges = True, serving.admits
            self._make_former()
            if before is DropReason.RANGES:
                before = DropReason.FORMER_RANGES
        if has_changed and before is not None:
            self._before, self._changed_at = before, now

    def add(self, count: int, now: float) -> None:
        """Add packets that a worker has just reported."""
        is_late = now - self._changed_at < _REPORTED_S
        reason = self._before if is_late else self._reason or DropReason.RANGES
        self.by = {**self.by, reason: self.by[reason].grown(count, now)}

    def _make_former(self) -> None:
        present, former = self.by[DropReason.RANGES], self.by[DropReason.FORMER_RANGES]
        if present.packets:
            first = former if former.packets else present
            count = former.packets + present.packets
            former = Dropped(count, first.first_at, present.last_at)
            changed = {DropReason.FORMER_RANGES: former, DropReason.RANGES: NONE}
            self.by = {**self.by, **changed}
