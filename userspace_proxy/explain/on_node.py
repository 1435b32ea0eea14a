"""What differs on a node, for a plan as with the steering ``none``, which has fewer limits."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ..facts import PortFacts
from .mistakes import NOTE
from .path_step import PathStep
from .reading import Subject

_WHERE = "on a node (--steering other than none)"


def node_notes(port: PortFacts, subject: Subject) -> Iterator[PathStep]:
    """Yield how clients of one Service port would be served on a node, where that differs."""
    there = _there(port, subject)
    if there is not None:
        usable = {endpoint.address for endpoint in port.endpoints if endpoint.is_usable}
        lost = (e for e in there.endpoints if e.address in usable and not e.is_usable)
        details = tuple((None, f"{one.address}: {one.state}") for one in lost)
        yield PathStep(None, NOTE, f"{_WHERE} {there.planned}", there.state.hint, details)


def node_clause(ports: Iterable[PortFacts], subject: Subject) -> str:
    """Return the same for the end of the sentence, of the first such port; or empty."""
    found = filter(None, (_there(port, subject) for port in ports))
    first = next(found, None)
    return "" if first is None else f"; {_WHERE} {first.planned}"


def _there(port: PortFacts, subject: Subject) -> PortFacts | None:
    """Return the facts about a Service port on a node; None if it has the same endpoints there."""
    same = (one for one in subject.on_node if _key(one) == _key(port))
    return next((one for one in same if one.usable != port.usable), None)


def _key(port: PortFacts) -> tuple[str, str, str]:
    return port.title, port.family, port.side
