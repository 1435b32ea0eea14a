"""The steps about a Service's own objects: what is wrong with them, and what isn't served of it."""

from __future__ import annotations

from collections.abc import Iterator

from ..facts import Level
from ..model.reading import LABEL_SERVICE_NAME
from ..status.problems import HEALTH_CHECK_FAILS
from .path_step import PathStep
from .reading import Subject

NOTE = "note"
_SERVICE = "service"


def mistakes(subject: Subject) -> Iterator[PathStep]:
    """Yield what concerns the whole Service, the worst first."""
    yield from _rejected(subject)
    yield from _ignored(subject)
    yield from _kept(subject)
    yield from _health_checks(subject)


def _rejected(subject: Subject) -> Iterator[PathStep]:
    """Yield the mistakes in the Service's own objects, and in what may be one."""
    for item in subject.rejected:
        if item.object:
            what = f"{item.object} is rejected: {item.line}"
            kept = "An object that was valid before keeps its last form"
            yield PathStep(Level.TROUBLE, _SERVICE, what, kept)
        else:
            yield PathStep(Level.TROUBLE, _SERVICE, item.line)
    label = f"{LABEL_SERVICE_NAME}: {subject.service.partition('/')[2]}"
    for item in subject.maybe_rejected:
        what = f"{item.object}, by its name a slice of it, is rejected: {item.line}"
        yield PathStep(Level.TROUBLE, _SERVICE, what, f"If it is one, give it the label {label}")


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


def _kept(subject: Subject) -> Iterator[PathStep]:
    if subject.keeper is not None:
        what = "an object of it was removed from its file, and is kept while the file has mistakes"
        place = subject.keeper.line.partition(": ")[0]
        yield PathStep(Level.ATTENTION, NOTE, what, f"Repair that file, first at {place}")


def _health_checks(subject: Subject) -> Iterator[PathStep]:
    """Yield why load balancers get no answer, though clients are served."""
    for check in subject.node.health_checks if subject.node is not None else ():
        if check.service == subject.service and check.problem:
            yield PathStep(Level.ATTENTION, NOTE, check.problem, HEALTH_CHECK_FAILS)
