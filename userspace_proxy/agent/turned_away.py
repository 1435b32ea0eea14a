"""Words why clients were turned away, from what the plane has counted."""

from __future__ import annotations

from ..causes.cause import Cause
from ..causes.services import (
    hop_limit_reached,
    no_proxy_header,
    none_was_local,
    source_denied,
    source_was_denied,
)
from ..diagnosis.failures import seen
from ..facts import LAST_MINUTE_S, ClientMistake
from ..plan import PortPlan
from ..plane import Group
from ..plane.denials import DropReason
from .rounds.wall_clock import WallClock

_MISTAKES = {
    ClientMistake.NO_PROXY_HEADER: no_proxy_header,
    ClientMistake.HOP_LIMIT: hop_limit_reached,
}


def client_mistakes(group: Group, clock: WallClock, *, has_served: bool) -> tuple[Cause, ...]:
    """Return why clients were turned away because of what they sent: lately, or all of them.

    Args:
        has_served: Some client was served.
    """
    return tuple(
        seen(_MISTAKES[mistake](streak.client), streak, clock)
        for mistake, streak in group.client_mistakes.items()
        if not has_served or clock.now - streak.last_at < LAST_MINUTE_S
    )


def turned_away(plan: PortPlan, group: Group, clock: WallClock) -> tuple[Cause, ...]:
    """Return the causes of drops at a Service port, with their counts; empty if none drops now."""
    admits = plan.serving.admits
    if admits is None:
        return ()
    denials, policy = group.denials, plan.cause if plan.is_dropping else None
    ranges = admits if policy is None else denials.ranges or ()
    words = [
        (DropReason.RANGES, source_denied(tuple(ranges))),
        (DropReason.POLICY, policy or none_was_local()),
        (DropReason.FORMER_RANGES, source_was_denied()),
    ]
    return tuple(
        cause.replace(count=count, first_at=clock.unix(first_at), last_at=clock.unix(last_at))
        for reason, cause in words
        for count, first_at, last_at in (denials.by[reason],)
        if count
    )
