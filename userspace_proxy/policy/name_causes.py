"""Explains from the derived slices why a Service port's DNS names yield no endpoints."""

from __future__ import annotations

from collections.abc import Iterable
from typing import assert_never

from ..causes import names
from ..causes.cause import Cause
from ..causes.notes import cause_of
from ..cluster import ServiceState
from ..cluster.from_names import USES_MAX
from ..cluster.name_requests import ANNOTATION, read_request
from ..cluster.name_shares import NAMESPACE_MAX, NODE_MAX
from ..model import EndpointSlice, IPFamily, ServicePort
from ..model.endpoint_names import (
    NAMES_MAX,
    NameProblem,
    NameSlice,
    NameState,
    ResolvedSlice,
)
from ..model.notes import Note, NoteKind

NEEDS_PROXY = "an endpoint by name"
"""Why a Service stays on the userspace path: only the proxy can check resolved addresses."""
# Temporary states, and states of one family only, cause no note if the Service is served.
_UNNOTED = (NameState.PENDING, NameState.NO_ADDRESS)


def unserved_name_reason(state: ServiceState, port: ServicePort, family: IPFamily) -> Cause | None:
    """Return why DNS names yield no endpoint for a Service port; None if names aren't the cause."""
    named = [item for item in state.slices if isinstance(item, ResolvedSlice | NameSlice)]
    if not named:
        if mistake := _mistake(state):
            return cause_of(mistake)
        if state.service.selector:
            return None
        if not state.service.handling.names:
            return None
        host = state.service.handling.names[0].host
        return _cause(NameProblem(host, NameState.PENDING))
    for item in named:
        if not _has(item, port):
            continue
        if isinstance(item, NameSlice):
            return _cause(NameProblem(item.named[0].ip, NameState.PENDING)) if item.named else None
        if item.family is family and item.problems:
            return _cause(item.problems[0])
    if not state.service.handling.names or any(_has(item, port) for item in named):
        return None
    return names.no_name_for_port(port.name)


def name_notes(slices: Iterable[EndpointSlice]) -> Iterable[Cause]:
    """Return the problems with names, except ``_UNNOTED``, each once, even for served ports."""
    found = (
        problem
        for item in slices
        if isinstance(item, ResolvedSlice)
        for problem in item.problems
        if problem.state not in _UNNOTED
    )
    return map(_cause, dict.fromkeys(found))


def needs_nodes(state: ServiceState) -> bool:
    """Return whether a Service's endpoints by name depend on the Nodes' addresses."""
    # Also check the handling: saved state has only address slices until names are resolved again.
    return bool(state.service.handling.found_by_name) or any(
        isinstance(item, ResolvedSlice) and item.needs_nodes for item in state.slices
    )


def _mistake(state: ServiceState) -> Note | None:
    """Return the mistake that makes all names useless; None if there is none."""
    own = state.service.notes
    if bug := next((note for note in own if note.kind is NoteKind.NAMES_BUG), None):
        return bug
    # If a Service has a selector, its slices list its pods, even if there are none.
    slices = [item for item in state.slices if not item.is_headless]
    if any(item.endpoints or state.service.selector for item in slices):
        return None
    request = read_request(state)
    notes = (*own, *(request.notes if request is not None else ()))
    about = [note for note in notes if note.about == ANNOTATION]
    # Notes on annotations that are probably misspellings of this annotation.
    misspelt = [note for note in notes if ANNOTATION in note.params]
    return next(iter((*about, *misspelt)), None)


def _has(item: EndpointSlice, port: ServicePort) -> bool:
    return any(p.name == port.name and p.protocol == port.protocol for p in item.ports)


def _cause(problem: NameProblem) -> Cause:
    return _row_of(problem).replace(first_at=problem.since)


def _row_of(problem: NameProblem) -> Cause:
    host, detail = problem.host, problem.detail
    match problem.state:
        case NameState.NOT_ALLOWED:
            return names.name_not_allowed(host)
        case NameState.NETWORKS_UNKNOWN:
            return names.networks_unknown(host)
        case NameState.NODES_UNKNOWN:
            return names.nodes_unknown(host)
        case NameState.TOO_MANY:
            return names.too_many_names(host, NAMES_MAX, USES_MAX, NAMESPACE_MAX, NODE_MAX)
        case NameState.PENDING:
            return names.not_looked_up_yet(host)
        case NameState.UNRESOLVED:
            return names.name_unresolved(host, detail)
        case NameState.STALE:
            return names.name_stale(host, detail)
        case NameState.FORBIDDEN:
            return names.name_leads_astray(host, detail)
        case NameState.NO_ADDRESS:
            return names.no_address_of_family(host, detail)
        case _:
            assert_never(problem.state)
