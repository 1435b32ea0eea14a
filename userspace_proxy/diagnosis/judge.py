"""Judges each Service port once per view, and formats the verdict.

    Service ports ──┬─▶ facts of other ports and of the source ──▶ rules ──▶ StateFacts
                    │      sides: an endpoint answers the clients of another side
    source, checks ─┘      mistakes in objects, health checks that don't answer

All readers use the result, so they agree.
"""

from __future__ import annotations

import copy
import itertools
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from ..causes.cause import Cause, CauseCode
from ..causes.endpoints import silent_to_some
from ..causes.services import first_notes, health_check_fails, object_kept, of_object, rejected
from ..causes.slices import slice_rejected, unnamed_slice_rejected
from ..facts import (
    LAST_MINUTE_S,
    EndpointFacts,
    HealthCheckFacts,
    PortFacts,
    PortState,
    RejectedFacts,
    SourceFacts,
    StateFacts,
)
from ..facts.port import ClauseFacts
from ..model import DataPath, Taken
from .clauses import Clause, joined, texts_of
from .incidents import remedy_in
from .rules import PortVerdict, chains_in_doubt, decide, denied, present_first

Judge = Callable[[PortFacts], StateFacts]
_Key = tuple[str, str, str, str, str]
_SLICES = ("EndpointSlice", "Endpoints")


def judge(port: PortFacts) -> StateFacts:
    """Return whether clients of a Service port are served, and why not."""
    _, verdict = decide(port)
    return state_of(port, verdict)


def state_of(port: PortFacts, verdict: PortVerdict) -> StateFacts:
    """Return a verdict as text, with all known failures."""
    causes = _known(port, verdict)
    places: dict[object, int] = {cause.fact: at for at, cause in enumerate(causes)}
    texts = texts_of(verdict.clauses, verdict.lead)
    clauses = tuple(
        [
            ClauseFacts(text, _stated(clause, places), clause.row.is_dated)
            for text, clause in zip(texts, verdict.clauses, strict=True)
        ]
    )
    # Search backwards, because the deciding clause comes last.
    hints = (clause.hint for clause in reversed(verdict.clauses))
    hint, code = next(filter(None, hints), ""), None
    if causes:
        # At a limit, show two remedies: one for the limit, one for the slow endpoint.
        more = f"{hint}. " if hint and verdict.state is PortState.AT_LIMIT else ""
        hint, code = f"{more}{remedy_in(port, causes[0])}", causes[0].code
    return StateFacts(verdict.level, verdict.state, joined(texts), causes, hint, code, clauses)


def _known(port: PortFacts, verdict: PortVerdict) -> tuple[Cause, ...]:
    """Return all known failures and notes, each once; the first one decides the state."""
    failed = [endpoint for endpoint in port.endpoints if endpoint.cause is not None]
    endpoints = [endpoint.cause for endpoint in present_first(failed)] if failed else ()
    others = (port.cause, *endpoints, *denied(port), *port.client_mistakes, *port.notes)
    others += tuple(chains_in_doubt(port))
    known: dict[object, Cause] = {}
    # Skip duplicates: a note may equal a cause that is already shown.
    for cause in (*verdict.causes, *others):
        if cause is not None:
            known.setdefault(cause.fact, cause)
    return tuple(known.values())


def _stated(clause: Clause, places: Mapping[object, int]) -> tuple[int, ...]:
    if not places:
        return ()
    return tuple([places[cause.fact] for cause in clause.causes if cause.fact in places])


class _Shown(NamedTuple):
    """The facts that are shown for a Service port in addition to its own facts."""

    cause: Cause | None
    """Why clients of the port are refused: the port's own cause, or a more precise cause."""
    notes: tuple[Cause, ...] = ()
    of_endpoints: tuple[tuple[str, Cause], ...] = ()
    """Corrected causes of endpoints, by address."""
    dropped: Taken | None = None
    """What drops packets of some clients to all Services."""


def diagnose(
    ports: Sequence[PortFacts],
    source: SourceFacts,
    health_checks: Iterable[HealthCheckFacts] = (),
    judge: Judge = judge,
    *,
    dropped: Mapping[str, Taken] = MappingProxyType({}),
) -> Sequence[PortFacts]:
    """Return Service ports with their states; a port is judged again only if its facts changed.

    A port is copied if facts about other objects change what is shown for it.

    Args:
        dropped: See :attr:`.StatusFacts.dropped`.
    """
    answered = _answered(ports)
    notes = _notes(source.rejected)
    checks = _failed_checks(health_checks, ports)
    slices = _rejected_slices(source.rejected)
    if not (notes or checks or slices or answered or dropped):
        # Cost: usually there are no such facts, and nearly all ports are unchanged.
        return tuple(
            [
                port
                if (last := port.judged) is not None and last[1] is None
                else _judged(port, _Shown(port.cause), judge)
                for port in ports
            ]
        )
    judged = []
    for port in ports:
        key = f"{port.namespace}/{port.service}"
        cause = port.cause
        if cause is not None and cause.code is CauseCode.NO_SLICE:
            cause = slices.get(key, cause)
        # Omit notes that the cause of the port contains.
        found = (*notes.pop(key, ()), *checks.pop((key, port.side), ()))
        own = tuple(note for note in found if not says(cause, note))
        of_endpoints = _of_one_side(port, answered)
        # On the kernel path, packets don't pass the chains at input.
        by = None if port.path is DataPath.KERNEL else dropped.get(f"{port.family}/{port.protocol}")
        judged.append(_judged(port, _Shown(cause, own, of_endpoints, by), judge))
    return tuple(judged)


def says(cause: Cause | None, note: Cause) -> bool:
    """Return whether a cause includes a note: both have the same fact, or the same line."""
    if cause is None:
        return False
    line = note.get("line")
    return cause.fact == note.fact or bool(line and line == cause.get("line"))


def _judged(port: PortFacts, shown: _Shown, judge: Judge) -> PortFacts:
    """Return a Service port with its state, reusing the last state while nothing changes."""
    if port.judged is not None and port.judged[0] == shown:
        return port.judged[1] or port
    if shown == _Shown(port.cause):
        port.state = judge(port)
        port.judged = shown, None
        return port
    changed = copy.copy(port)
    vars(changed).update(vars(port))
    changed.judged, changed.cause = None, shown.cause
    changed.notes = _with_notes(port.notes, shown.notes)
    changed.perhaps_taken = port.perhaps_taken or shown.dropped
    if shown.of_endpoints:
        causes = dict(shown.of_endpoints)
        changed.endpoints = tuple(map(copy.copy, port.endpoints))
        for endpoint in changed.endpoints:
            endpoint.cause = causes.get(endpoint.address, endpoint.cause)
    # Also set the state on the original port, because the next status view reads it there.
    changed.state = port.state = judge(changed)
    port.judged = shown, changed
    return changed


def _with_notes(notes: Sequence[Cause], own: Sequence[Cause]) -> tuple[Cause, ...]:
    """Return the notes of a Service port, including the source's notes about it.

    A note of the source may contain the place in the manifests, and then replaces an equal note.
    """
    own = first_notes(own)
    placed = {note.replace(within="").fact for note in own if note.within}
    return (*own, *(note for note in notes if note.fact not in placed))


def _answered(ports: Sequence[PortFacts]) -> Mapping[_Key, float]:
    """Return when endpoints of Services with two sides last answered a side on which they work.

    The two sides dial from different addresses, so a firewall may drop only one side's packets.
    """
    services = {(port.namespace, port.service) for port in ports if port.side}
    found: dict[_Key, float] = {}
    for port in ports if services else ():
        if (port.namespace, port.service) in services:
            for endpoint in port.endpoints:
                if endpoint.cause is None and endpoint.answered_at:
                    key = _key(port, endpoint)
                    found[key] = max(endpoint.answered_at, found.get(key, 0.0))
    return found


def _key(port: PortFacts, endpoint: EndpointFacts) -> _Key:
    return port.namespace, port.service, port.port, port.family, endpoint.address


def _of_one_side(port: PortFacts, answered: Mapping[_Key, float]) -> tuple[tuple[str, Cause], ...]:
    """Return address and cause of each endpoint that answers only the other side's clients."""
    return tuple(
        (endpoint.address, _seen_as(silent_to_some(endpoint.address), endpoint.cause))
        for endpoint in port.endpoints
        if endpoint.cause is not None
        and not endpoint.is_past
        and _answers_others(endpoint.cause, answered.get(_key(port, endpoint), 0.0))
    )


def _answers_others(cause: Cause, answered_at: float) -> bool:
    """Return whether an endpoint answered other clients recently, after this failure began."""
    if cause.code is not CauseCode.ENDPOINT_SILENT:
        return False
    return answered_at > cause.first_at and cause.last_at - answered_at < LAST_MINUTE_S


def _seen_as(cause: Cause, other: Cause) -> Cause:
    seen = {name: getattr(other, name) for name in ("count", "first_at", "last_at", "host")}
    return cause.replace(**seen)


def _failed_checks(
    checks: Iterable[HealthCheckFacts], ports: Iterable[PortFacts]
) -> dict[tuple[str, str], list[Cause]]:
    """Return the health checks that don't answer, by Service and the side of load balancers."""
    failed = {check.service: check.problem for check in checks if check.problem}
    if not failed:
        return {}
    sides = {f"{port.namespace}/{port.service}": port.side for port in ports if port.side}
    return {
        (service, sides.get(service, "")): [health_check_fails(problem)]
        for service, problem in failed.items()
    }


def _notes(items: Iterable[RejectedFacts]) -> dict[str, list[Cause]]:
    """Return the mistakes of Services, by ``namespace/name``."""
    found: defaultdict[str, list[Cause]] = defaultdict(list)
    keepers: dict[str, RejectedFacts] = {}
    for item in items:
        for service in item.services:
            found[service].append(cause_of(item))
        for service in item.keeps:
            keepers.setdefault(service, item)
    for service, item in keepers.items():
        found[service].append(object_kept(item.place))
    return found


def cause_of(item: RejectedFacts) -> Cause:
    """Return the cause to report for a Service's object with a mistake."""
    if item.note is not None:
        return item.note.replace(within=item.place)
    if item.object:
        return rejected(item.object, item.line)
    return of_object(item.line)


def _rejected_slices(items: Iterable[RejectedFacts]) -> dict[str, Cause]:
    """Return a cause for each Service to which a rejected slice belongs, or may belong by name."""
    named: dict[str, Cause] = {}
    unnamed: dict[str, Cause] = {}
    for item in items:
        if item.kind in _SLICES:
            for service in item.services:
                named.setdefault(service, slice_rejected(item.object, item.line))
        if item.kind == _SLICES[0] and not item.services:
            for service in itertools.accumulate(item.name.split("-"), "{}-{}".format):
                cause = unnamed_slice_rejected(item.object, item.line, service)
                unnamed.setdefault(f"{item.namespace}/{service}", cause)
    return {**unnamed, **named}
