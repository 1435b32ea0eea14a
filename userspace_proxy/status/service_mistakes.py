"""Adds what is wrong with a Service's own objects to the facts about its ports.

    rejected objects, health checks ──┐
    Service ports ────────────────────┴─▶ the same, with another cause, or notes at the first port

All observers, ``explain`` too, read it there, so they agree.
"""

from __future__ import annotations

import copy
import itertools
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

from ..facts import HealthCheckFacts, PortFacts, RejectedFacts, SourceFacts, StateFacts
from ..model import Cause, CauseCode
from ..policy.causes import first_notes
from ..policy.mistake_causes import health_check_fails, object_kept, rejected, slice_rejected
from .port_state import judge
from .sides import with_sides

_SLICES = ("EndpointSlice", "Endpoints")


def with_mistakes(
    ports: Sequence[PortFacts],
    source: SourceFacts,
    health_checks: Iterable[HealthCheckFacts] = (),
    judge: Callable[[PortFacts], StateFacts] = judge,
) -> Sequence[PortFacts]:
    """Return Service ports with the mistakes in the objects of their Services.

    Endpoints that don't answer one of a Service's sides have that cause (``sides``). Ports without
    either are the same objects.
    """
    ports = with_sides(ports, judge)
    notes = _notes(source.rejected, health_checks)
    slices = _slices(source.rejected)
    if not (notes or slices):
        return ports
    shown = []
    for port in ports:
        key = f"{port.namespace}/{port.service}"
        own = notes.pop(key, [])
        cause = port.cause
        if cause is not None and cause.code is CauseCode.NO_SLICE:
            cause = slices.get(key, cause)
        # The port's cause contains it.
        own = [note for note in own if cause is None or note.sentence != cause.sentence]
        if own or cause is not port.cause:
            port = _changed(port, cause, own, judge)
        shown.append(port)
    return shown


def _changed(
    port: PortFacts,
    cause: Cause | None,
    notes: Sequence[Cause],
    judge: Callable[[PortFacts], StateFacts],
) -> PortFacts:
    changed = copy.copy(port)
    vars(changed).update(vars(port))
    changed.cause = cause
    own = first_notes(notes)
    # Those have the place, too.
    said = [n for n in port.notes if any(one.sentence.endswith(f": {n.sentence}") for one in own)]
    changed.notes = (*own, *(note for note in port.notes if note not in said))
    changed.state = judge(changed)
    return changed


def _notes(
    items: Iterable[RejectedFacts], health_checks: Iterable[HealthCheckFacts]
) -> dict[str, list[Cause]]:
    """Return what is wrong with each Service, ``namespace/name``."""
    found: defaultdict[str, list[Cause]] = defaultdict(list)
    keepers: dict[str, RejectedFacts] = {}
    for item in items:
        for service in item.services:
            found[service].append(rejected(item.object, item.line))
        for service in item.keeps:
            keepers.setdefault(service, item)
    for service, item in keepers.items():
        found[service].append(object_kept(item.line))
    for check in health_checks:
        if check.problem:
            found[check.service].append(health_check_fails(check.problem))
    return found


def _slices(items: Iterable[RejectedFacts]) -> dict[str, Cause]:
    """Return the rejected slice of each Service that has one, or may have one by its name."""
    named: dict[str, Cause] = {}
    unnamed: dict[str, Cause] = {}
    for item in items:
        kind, _, key = item.object.partition(" ")
        if kind in _SLICES:
            for service in item.services:
                named.setdefault(service, slice_rejected(item.object, item.line))
        if kind == _SLICES[0] and not item.services:
            namespace, _, name = key.partition("/")
            for service in itertools.accumulate(name.split("-"), "{}-{}".format):
                cause = slice_rejected(item.object, item.line, unnamed_for=service)
                unnamed.setdefault(f"{namespace}/{service}", cause)
    return {**unnamed, **named}
