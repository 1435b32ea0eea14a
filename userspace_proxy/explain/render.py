"""Renders an explanation as text and as JSON."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator

from ..facts.causes import dump_cause
from ..model.quoting import printable
from ..status.text import MARKS
from ..status.wrapping import placed, placed_remedy
from .path_step import PathStep
from .steps import Explanation

_TOPIC_WIDTH = 9


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
