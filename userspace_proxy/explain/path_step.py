"""One step of a connection's path: what explain shows in a line."""

from __future__ import annotations

from dataclasses import dataclass

from ..causes.cause import Cause
from ..facts import Level


@dataclass(frozen=True, slots=True)
class PathStep:
    """One step, and whether connections get past it."""

    level: Level | None
    """None: connections don't, by design, or clients show what happens."""
    topic: str
    """One word: ``endpoints``."""
    what: str
    hint: str = ""
    details: tuple[tuple[Level | None, str], ...] = ()
    """Lines below it, each with a level; None: about what isn't used, by design."""
    pod: str = ""
    """The name of the pod that it is about; empty if it is about none, or several."""
    is_by_design: bool = False
    """It needs attention only because it was asked for."""
    causes: tuple[Cause, ...] = ()
    """Those that it states as a whole."""
    brief: str = ""
    """What it says as the sentence below says the rest; empty: the same."""

    @property
    def mark(self) -> Level | None:
        """The level that is shown; None: a neutral mark."""
        return None if self.is_by_design else self.level
