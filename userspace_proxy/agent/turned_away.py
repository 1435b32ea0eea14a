"""Words why packets of clients were dropped, from what the plane has counted."""

from __future__ import annotations

from dataclasses import replace

from ..model import Cause
from ..plan import PortPlan
from ..plane import Group
from ..plane.denials import DropReason
from ..policy import causes
from .rounds.wall_clock import WallClock


def turned_away(plan: PortPlan, group: Group, clock: WallClock) -> tuple[Cause, ...]:
    """Return the causes of drops at a Service port, with their counts; empty if none drops now."""
    admits = plan.serving.admits
    if admits is None:
        return ()
    denials, policy = group.denials, plan.cause if plan.is_dropping else None
    ranges = admits if policy is None else denials.ranges or ()
    words = [
        (DropReason.RANGES, causes.source_denied(ranges)),
        (DropReason.POLICY, policy or causes.none_was_local()),
        (DropReason.FORMER_RANGES, causes.source_was_denied()),
    ]
    return tuple(
        replace(cause, count=count, first_at=clock.unix(first_at), last_at=clock.unix(last_at))
        for reason, cause in words
        for count, first_at, last_at in (denials.by[reason],)
        if count
    )
