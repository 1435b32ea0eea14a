"""Judges how a Service port is served whose clients are turned away because of what they send."""

from __future__ import annotations

from ..facts import Level, PortFacts, PortState
from ..model import CauseCode
from .waits import Judgement


def judge_mistakes(port: PortFacts) -> Judgement:
    """Return level, word, sentence and causes of a Service port that has such clients."""
    causes = tuple(port.client_mistakes)
    if port.connections:
        return (
            Level.ATTENTION,
            PortState.PARTLY_SERVED,
            f"Not all clients are served: {causes[0]}",
            causes,
        )
    word = PortState.DROPPED if causes[0].code is CauseCode.HOP_LIMIT else PortState.REFUSED
    return Level.ATTENTION, word, f"No client has been served: {causes[0]}", causes
