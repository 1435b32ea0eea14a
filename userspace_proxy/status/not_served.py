"""Judges a Service port whose addresses clients don't reach, and what would fail if they did."""

from __future__ import annotations

from ..facts import Level, PortFacts
from ..model import Cause
from ..policy.causes import not_listening


def judge_not_served(port: PortFacts) -> tuple[Level, str, str, tuple[Cause, ...]]:
    """Return level, word, sentence, and the cause that decides them."""
    reached = sum(frontend.is_reached for frontend in port.frontends)
    word = "partly served" if 0 < reached < len(port.frontends) else "not served"
    cause = not_listening(port.problem.removesuffix(f" ({port.way_out})"), port.way_out)
    return Level.TROUBLE, word, f"{word.capitalize()}: {cause}{besides(port)}", (cause,)


def besides(port: PortFacts) -> str:
    """Return why clients that reached its addresses would fail, as the end of a sentence; or empty.

    A Service port whose clients would wait, or are dropped by design, is as it should be.
    """
    is_by_design = port.is_holding or (port.is_dropping and port.admits != ())
    if not port.problem or port.cause is None or is_by_design:
        return ""
    return f"; besides, {port.cause}"
