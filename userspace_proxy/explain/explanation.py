"""An explanation of one Service: the steps of a connection's path, in parts; as text and as JSON.

    answer, or plan ──read_subject──▶ Subject: the facts about it

    PathStep ─▶ PathPart ─▶ Explanation ──render_text──▶ lines, a sentence and the next command
                                └───────render_json──▶ the same for programs

Rule 1: steps are made elsewhere (``steps`` and what it asks); this module only places their words.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ..causes.cause import Cause
from ..diagnosis.judge import cause_of, says
from ..facts import IgnoredFacts, Level, PortFacts, RejectedFacts, StatusFacts
from ..facts.encoding import dump_cause
from ..model.quoting import printable
from ..status.text import MARKS
from ..status.wrapping import placed, placed_remedy

_TOPIC_WIDTH = 9


@dataclass(frozen=True, slots=True)
class Subject:
    """One Service as it is served, or would be."""

    service: str
    """``namespace/name``."""
    origin: str
    """Where the facts are from, in words."""
    now: float
    ports: Sequence[PortFacts]
    ignored: Sequence[IgnoredFacts] = ()
    node: StatusFacts | None = None
    """None if no proxy was asked."""
    rejected: Sequence[RejectedFacts] = ()
    """Objects about it that have a mistake, where no port shows it."""
    others_rejected: Sequence[RejectedFacts] = ()
    """Objects with a mistake that aren't about it, as far as is known."""
    on_node: Sequence[PortFacts] = ()
    """The ports as on a node, where they were planned as with the steering ``none``."""


def read_subject(status: StatusFacts, service: str, origin: str, *, is_live: bool) -> Subject:
    """Return the facts about a Service, or one port of it.

    Args:
        status: An answer, which may contain other Services.
        service: ``namespace/name`` or ``namespace/name:port``.
        is_live: It is a running proxy's.
    """
    part, key = status.only(service), service.partition(":")[0]
    causes = [cause for port in part.ports for cause in port.state.causes]
    rejected = status.source.rejected
    shown = {item.line for item in rejected if any(says(one, cause_of(item)) for one in causes)}
    own = status.source.rejected_of(key)
    return Subject(
        service=key,
        origin=origin,
        now=status.now,
        ports=part.ports,
        ignored=[item for item in status.ignored if item.service == key],
        node=status if is_live else None,
        rejected=() if any(item.line in shown for item in own) else own,
        others_rejected=[i for i in rejected if key not in i.services and i.line not in shown],
    )


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
