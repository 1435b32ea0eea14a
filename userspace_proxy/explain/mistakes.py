"""The steps about a Service's own objects: what is wrong with them, and what isn't served of it."""

from __future__ import annotations

from collections.abc import Iterator

from ..facts import Level
from ..policy.mistake_causes import rejected
from .path_step import PathStep
from .reading import Subject

NOTE = "note"
_SERVICE = "service"


def mistakes(subject: Subject) -> Iterator[PathStep]:
    """Yield what concerns the whole Service, the worst first."""
    yield from _rejected(subject)
    yield from _ignored(subject)


def _rejected(subject: Subject) -> Iterator[PathStep]:
    """Yield the mistakes in objects of a Service whose ports don't show them."""
    for item in subject.rejected:
        cause = rejected(item.object, item.line)
        yield PathStep(Level.TROUBLE, _SERVICE, cause.sentence, cause.hint)


def _ignored(subject: Subject) -> Iterator[PathStep]:
    for item in subject.ignored:
        which = f"Port {item.port} is" if item.port else "It is"
        yield PathStep(
            Level.TROUBLE if item.is_conflict else Level.ATTENTION,
            _SERVICE,
            f"{which} not served: {item.cause.sentence}",
            item.cause.hint,
            is_by_design=not item.is_conflict,
        )
