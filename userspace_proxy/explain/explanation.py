"""An explanation of one Service: the steps of a connection's path, in parts; as text and as JSON.

    PathStep ─▶ PathPart ─▶ Explanation ──render_text──▶ lines, a sentence and the next command
                                └───────render_json──▶ the same for programs

Rule 1: steps are made elsewhere (``steps`` and what it asks); this module only places their words.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from dataclasses import dataclass

from ..causes.cause import Cause
from ..facts import Level
from ..facts.encoding import dump_cause
from ..model.quoting import printable
from ..status.text import MARKS
from ..status.wrapping import placed, placed_remedy

_TOPIC_WIDTH = 9


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


@dataclass(frozen=True, slots=True)
class PathPart:
    """The steps of one part of the path."""

    title: str
    """Empty for what concerns the whole Service."""
    steps: tuple[PathStep, ...]


@dataclass(frozen=True, slots=True)
class Explanation:
    """What is right and wrong with one Service."""

    service: str
    origin: str
    level: Level
    sentence: str
    """One sentence without a full stop."""
    next: str
    """The command that shows more, or that repairs it; empty if there is none."""
    parts: tuple[PathPart, ...]


def render_text(explanation: Explanation, *, columns: int = 0) -> str:
    """Return the steps, a sentence and the next command; with 0 columns, lines have any length."""
    return "\n".join([*map(printable, _lines(explanation, columns)), ""])


def render_json(explanation: Explanation) -> str:
    """Return the same as JSON; the fields are those of :class:`Explanation`."""
    return json.dumps(dataclasses.asdict(explanation), indent=2, default=dump_cause) + "\n"


def _lines(explanation: Explanation, columns: int) -> Iterator[str]:
    yield from placed("", f"{explanation.service}, from {explanation.origin}", columns)
    for part in explanation.parts:
        if part.title:
            yield from placed("", part.title, columns)
        for step in part.steps:
            yield from _step(step, columns)
    yield ""
    yield from placed("", f"{explanation.sentence}.", columns)
    if explanation.next:
        yield f"next: {explanation.next}"


def _step(step: PathStep, columns: int) -> Iterator[str]:
    head = f"  {MARKS[step.mark]} {step.topic:<{_TOPIC_WIDTH}}  "
    yield from placed(head, step.brief or step.what, columns)
    indent = " " * len(head)
    for level, text in step.details:
        yield from placed(f"{indent}{MARKS[level]} ", text, columns)
    if step.hint:
        yield from placed_remedy(f"{indent}-> ", step.hint, columns)
