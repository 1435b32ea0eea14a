"""The steps about a Service's own objects: what is wrong with them, and what isn't served of it."""

from __future__ import annotations

from collections.abc import Iterator

from ..causes.say import remedy, say
from ..diagnosis.judge import cause_of
from ..facts import Level
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
        cause = cause_of(item)
        yield PathStep(Level.TROUBLE, _SERVICE, say(cause), remedy(cause))


def _ignored(subject: Subject) -> Iterator[PathStep]:
    for item in subject.ignored:
        which = f"Port {item.port} is" if item.port else "It is"
        yield PathStep(
            Level.TROUBLE if item.is_conflict else Level.ATTENTION,
            _SERVICE,
            f"{which} not served: {say(item.cause)}",
            remedy(item.cause),
            is_by_design=not item.is_conflict,
        )
