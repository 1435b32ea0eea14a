"""Judges how a Service port is served whose clients are turned away because of what they send."""

from __future__ import annotations

from ..facts import Level, PortFacts
from ..model import Cause, CauseCode


def judge_mistakes(port: PortFacts) -> tuple[Level, str, str, tuple[Cause, ...]]:
    """Return level, word, sentence and causes of a Service port that has such clients."""
    causes = tuple(port.client_mistakes)
    if port.connections:
        return Level.ATTENTION, "partly served", f"Not all clients are served: {causes[0]}", causes
    word = "dropped" if causes[0].code is CauseCode.HOP_LIMIT else "refused"
    return Level.ATTENTION, word, f"No client has been served: {causes[0]}", causes
