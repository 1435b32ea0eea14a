"""Renders an explanation as text and as JSON."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator

from ..status.text import MARKS, printable
from .steps import Explanation, PathStep

_TOPIC_WIDTH = 9


def render_text(explanation: Explanation) -> str:
    """Return the steps, one sentence and the next command."""
    return "\n".join([*map(printable, _lines(explanation)), ""])


def render_json(explanation: Explanation) -> str:
    """Return the same as JSON; the fields are those of :class:`Explanation`."""
    return json.dumps(dataclasses.asdict(explanation), indent=2) + "\n"


def _lines(explanation: Explanation) -> Iterator[str]:
    yield f"{explanation.service}, from {explanation.origin}"
    for part in explanation.parts:
        if part.title:
            yield part.title
        for step in part.steps:
            yield from _step(step)
    yield ""
    yield f"{explanation.sentence}."
    if explanation.next:
        yield f"next: {explanation.next}"


def _step(step: PathStep) -> Iterator[str]:
    yield f"  {MARKS[step.level]} {step.topic:<{_TOPIC_WIDTH}}  {step.what}"
    for level, text in step.details:
        yield f"  {' ' * (_TOPIC_WIDTH + 4)}{MARKS[level]} {text}"
    if step.hint:
        yield f"  {' ' * (_TOPIC_WIDTH + 4)}-> {step.hint}"
