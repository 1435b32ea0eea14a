"""Renders the explanation of one Service, the steps of a connection's path, as text and as JSON.

    answer, or plan ──read_subject──▶ Subject: the facts about it

    PathStep ─▶ PathPart ─▶ Explanation ──render_text──▶ lines, a sentence and the next command
                                └───────render_json──▶ the same for programs

Rule 1: ``steps`` and its helpers produce the steps; this module only arranges their words.
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
from ..model.addresses import TO, at_port
from ..model.quoting import printable
from ..status.text import MARKS
from ..status.wrapping import placed, placed_remedy

_TOPIC_WIDTH = 9


@dataclass(frozen=True, slots=True)
class Subject:
    """The facts about one Service, live or planned."""

    service: str
    """The Service, ``namespace/name``."""
    origin: str
    """The origin of the facts, such as a server's address or a file, as text."""
    now: float
    ports: Sequence[PortFacts]
    ignored: Sequence[IgnoredFacts] = ()
    node: StatusFacts | None = None
    """The proxy's facts; None if no proxy was asked."""
    rejected: Sequence[RejectedFacts] = ()
    """Invalid objects that belong to the Service, if no port shows the mistake."""
    others_rejected: Sequence[RejectedFacts] = ()
    """Invalid objects that aren't known to belong to the Service."""
    on_node: Sequence[PortFacts] = ()
    """The ports as a node would serve them; set only for a plan with ``none`` steering."""
    port: str = ""
    """The name or number of the requested port; empty for all ports."""

    def dialled(self, address: str) -> str:
        """Return the address that ``--probe`` dials; empty for a range without a requested port."""
        return at_port(address, self.port) if TO in address else address


def read_subject(status: StatusFacts, service: str, origin: str, *, is_live: bool) -> Subject:
    """Return the facts about a Service, or one of its ports.

    Args:
        status: An answer, which may contain other Services.
        service: ``namespace/name`` or ``namespace/name:port``.
        is_live: Whether a running proxy sent the answer.
    """
    part, (key, _, port) = status.only(service), service.partition(":")
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
        port=port,
    )


@dataclass(frozen=True, slots=True)
class PathStep:
    """One step of the path, and whether connections pass it."""

    level: Level | None
    """The level; None if the result is unknown, or by design, or if clients' results decide."""
    topic: str
    """The step's subject in one word: ``endpoints``."""
    what: str
    hint: str = ""
    details: tuple[tuple[Level | None, str], ...] = ()
    """The lines below the step and their levels; None for a neutral mark."""
    pod: str = ""
    """The name of the pod concerned; empty without a pod, or for several."""
    is_by_design: bool = False
    """Whether the step is shown only because the user asked; the cluster works as designed."""
    causes: tuple[Cause, ...] = ()
    """The causes that the step states in full."""
    brief: str = ""
    """The text to show instead of ``what`` if the sentence repeats it; empty to show ``what``."""

    @property
    def mark(self) -> Level | None:
        """The level of the displayed mark; None for a neutral mark."""
        return None if self.is_by_design else self.level


@dataclass(frozen=True, slots=True)
class PathPart:
    """The steps of one part of the path."""

    title: str
    """The part's title; empty if it concerns the whole Service."""
    steps: tuple[PathStep, ...]


@dataclass(frozen=True, slots=True)
class Explanation:
    """The steps of connections to one Service, the result, and the next command."""

    service: str
    origin: str
    level: Level
    sentence: str
    """The result, one sentence without a full stop."""
    next: str
    """The command that shows more, or repairs the problem; empty without such a command."""
    parts: tuple[PathPart, ...]


def render_text(explanation: Explanation, *, columns: int = 0) -> str:
    """Return the steps, the sentence and the next command; lines aren't wrapped at 0 columns."""
    return "\n".join([*map(printable, _lines(explanation, columns)), ""])


def render_json(explanation: Explanation) -> str:
    """Return an explanation as JSON, with the fields of :class:`Explanation`."""
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
