"""Judges a Service port whose addresses clients don't reach, and what would fail if they did."""

from __future__ import annotations

from collections.abc import Sequence

from ..facts import FrontendFacts, Level, PortFacts, PortState
from ..model import FrontendKind
from ..policy.causes import not_listening
from .waits import Judgement


def judge_not_served(port: PortFacts) -> Judgement:
    """Return level, word, sentence, and the cause that decides them."""
    missed = [frontend for frontend in port.frontends if not frontend.is_reached]
    is_partly = 0 < len(missed) < len(port.frontends)
    word = PortState.PARTLY_SERVED if is_partly else PortState.NOT_SERVED
    place = _place(missed) if is_partly else ""
    where = f", not at {place}" if place and place not in port.problem else ""
    problem = port.problem.removesuffix(f" ({port.way_out})")
    cause = not_listening(problem, port.way_out, port.taken_by)
    return Level.TROUBLE, word, f"{word.capitalize()}{where}: {cause}{besides(port)}", (cause,)


def _place(frontends: Sequence[FrontendFacts]) -> str:
    """Return the first address, or the node port if it is one, and how many more there are."""
    first = frontends[0]
    if first.kind != FrontendKind.NODE_PORT:
        more = f" and {len(frontends) - 1:,} more" if len(frontends) > 1 else ""
        return f"{first.address}{more}"
    return f"node port {first.address.rpartition(':')[2]}"


def besides(port: PortFacts) -> str:
    """Return why clients that reached its addresses would fail, as the end of a sentence; or empty.

    A Service port whose clients would wait, or are dropped by design, is as it should be.
    """
    is_by_design = port.is_holding or (port.is_dropping and port.admits != ())
    if not port.problem or port.cause is None or is_by_design:
        return ""
    return f"; besides, {port.cause}"
