"""Words the causes of endpoints by name, once; the facts are those of the derived slices."""

from __future__ import annotations

from collections.abc import Iterable

from ..cluster import ServiceState
from ..cluster.from_names import USES_MAX
from ..cluster.name_requests import bug_note, read_request
from ..cluster.name_shares import NAMESPACE_MAX, NODE_MAX
from ..model import Cause, CauseCode, EndpointSlice, IPFamily, ServicePort
from ..model.annotations import DOMAIN, first_note
from ..model.endpoint_names import (
    INSTALL_DNSPYTHON,
    NAMES_MAX,
    NO_DNSPYTHON,
    NameProblem,
    NameSlice,
    NameState,
    ResolvedSlice,
)
from .causes import not_followed

NEEDS_PROXY = "an endpoint by name"
"""Why a Service stays on the userspace path: the kernel asks nothing before it dials."""
# What passes by itself, or concerns a family only, is no note of a Service that is served.
_UNNOTED = (NameState.PENDING, NameState.NO_ADDRESS)
_FORBIDDEN_HINT = (
    "A name may lead only to addresses outside this node and the cluster: see docs/services.md"
)


def why_no_name_serves(state: ServiceState, port: ServicePort, family: IPFamily) -> Cause | None:
    """Return why a Service port without endpoints has none by name; None: it asks for none."""
    named = [item for item in state.slices if isinstance(item, ResolvedSlice | NameSlice)]
    if not named:
        if mistake := _mistake(state):
            return not_followed(mistake)
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
    return Cause(
        CauseCode.PORT_NAME_MISSING,
        f'no endpoint by name is for its port "{port.name}"',
        port.name,
        f"Write {port.name}=HOST:PORT in the annotation {DOMAIN}endpoints, or list the port in the "
        "EndpointSlice",
    )


def name_notes(slices: Iterable[EndpointSlice]) -> Iterable[Cause]:
    """Return what is wrong with names, each once, also where other endpoints serve."""
    found = (
        problem
        for item in slices
        if isinstance(item, ResolvedSlice)
        for problem in item.problems
        if problem.state not in _UNNOTED
    )
    return map(_cause, dict.fromkeys(found))


def needs_nodes(state: ServiceState) -> bool:
    """Return whether a Service's endpoints by name depend on which addresses Nodes have."""
    # The last state on disk has slices of addresses alone, until names are derived again.
    return bool(state.service.handling.found_by_name) or any(
        isinstance(item, ResolvedSlice) and item.needs_nodes for item in state.slices
    )


def _mistake(state: ServiceState) -> str:
    """Return why no name gives a Service an endpoint; empty if it isn't a mistake or a bug."""
    if bug := bug_note(state.service):
        return bug
    # Of a Service with a selector, slices are its pods', also without endpoints.
    if any(item.endpoints or state.service.selector for item in state.slices):
        return ""
    request = read_request(state)
    notes = (*state.service.notes, *(request.notes if request is not None else ()))
    return first_note("endpoints", notes) or next(filter(_is_misspelt, notes), "")


def _is_misspelt(note: str) -> bool:
    """Return whether a note is about an annotation that was probably meant to be this one."""
    return f"(did you mean {DOMAIN}endpoints?)" in note


def _has(item: EndpointSlice, port: ServicePort) -> bool:
    return any(p.name == port.name and p.protocol == port.protocol for p in item.ports)


def _cause(problem: NameProblem) -> Cause:
    host, detail = problem.host, problem.detail
    match problem.state:
        case NameState.NOT_ALLOWED:
            code = CauseCode.NAME_NOT_ALLOWED
            sentence = f"{host} is not looked up: --allow-endpoint-names has no suffix of it"
            hint = (
                "Endpoints by name are for names that the operator of the proxy has allowed: "
                f"--allow-endpoint-names lists suffixes, as {host.partition('.')[2] or host}"
            )
        case NameState.NETWORKS_UNKNOWN:
            code = CauseCode.NAME_NOT_ALLOWED
            sentence = f"{host} is not looked up: which addresses are those of pods is unknown"
            hint = "Names must not lead to pods: set --cluster-cidr"
        case NameState.NODES_UNKNOWN:
            code = CauseCode.NAME_NOT_ALLOWED
            sentence = f"{host} is not looked up: which addresses are those of Nodes is unknown"
            hint = (
                "Names must not lead to Nodes: let the proxy's account list nodes; its log has "
                "what failed"
            )
        case NameState.TOO_MANY:
            code = CauseCode.NAME_NOT_ALLOWED
            sentence = (
                f"{host} is not looked up: a Service may have {NAMES_MAX} names ({USES_MAX} "
                f"over all its slices), the Services of a namespace {NAMESPACE_MAX}, and all "
                f"Services {NODE_MAX:,}, in equal shares of namespaces"
            )
            hint = "Remove names, from this Service or from others"
        case NameState.PENDING:
            code = CauseCode.NAME_UNRESOLVED
            sentence = f"{host} has not been looked up yet"
            hint = "The running proxy looks it up, by the DNS servers of its node"
        case NameState.UNRESOLVED:
            code = CauseCode.NAME_UNRESOLVED
            sentence = f"no address of {host} is known: {detail}"
            hint = _resolving_hint(problem)
        case NameState.STALE:
            code = CauseCode.NAME_UNRESOLVED
            sentence = f"{host} no longer resolves, its last addresses are used: {detail}"
            hint = f"They are used for an hour. {_resolving_hint(problem)}"
        case NameState.FORBIDDEN:
            code = CauseCode.ENDPOINT_NOT_ALLOWED
            sentence = f"{host} leads to {detail}: it is not dialled"
            hint = _FORBIDDEN_HINT
        case NameState.NO_ADDRESS:
            code = CauseCode.NAME_UNRESOLVED
            sentence = f"{host} has no {detail} address"
            hint = f"The Service has an {detail} address, and the name has none"
    return Cause(code, sentence, host, hint, first_at=problem.since)


def _resolving_hint(problem: NameProblem) -> str:
    """Return what to do about a name that doesn't resolve."""
    if problem.detail == NO_DNSPYTHON:
        return f"On the node {INSTALL_DNSPYTHON}"
    return f"Ask the DNS servers of /etc/resolv.conf on the node: dig {problem.host}"
