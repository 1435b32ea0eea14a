"""Plans the ports of one Service, and its health check node port.

Rule 1: the total of endpoints and source ranges of a Service's ports is bounded. The first ports by
name are served; the port that exceeds the bound, and all later ports, refuse all clients: they have
a cause, but no endpoints and no source ranges.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import replace
from typing import NamedTuple

from ..causes.cause import Cause, CauseCode
from ..causes.notes import cause_of_slice, range_not_possible, range_without_proxy, weights_coarse
from ..causes.services import first_notes
from ..causes.slices import (
    some_lack_port,
    too_many_at_all_ports,
    too_many_endpoints,
    too_many_in_namespace,
)
from ..cluster import ServiceState
from ..model import (
    DataPath,
    IPFamily,
    PortKey,
    Protocol,
    Service,
    ServiceKey,
    ServiceType,
    Side,
    intersect,
    own_network,
)
from ..model.port_ranges import DialledRange
from ..model.serving import Serving
from ..policy import (
    ENDPOINTS_MAX,
    EndpointIndex,
    NodeFacts,
    PathDecision,
    PortName,
    Refusals,
    Scope,
    Usable,
    choose_path,
    count_local_ready,
    none_usable_reason,
    usable_after,
    usable_endpoints,
)
from ..policy.name_causes import NEEDS_PROXY, name_notes, unserved_name_reason
from ..policy.node_facts import API_SERVER
from ..policy.orphans import Orphans
from ..policy.path import proxy_only
from ..policy.port_ranges import choose_range_path, overflow_reason
from .bounds import ENDPOINTS_OF_NAMESPACE_MAX, ENDPOINTS_OF_SERVICE_MAX
from .claims import PortClaim
from .kernel_room import FITS, KernelFit
from .ownership import FrontendOwners
from .plan import HealthCheck, PortPlan

NO_ORPHANS = Orphans()


class Earlier(NamedTuple):
    """The inputs of a Service's previous plan."""

    had: EndpointIndex
    """The index of the slices from which the previous plan was made."""
    ports: Mapping[PortKey, PortPlan]
    doubtful_ips: Set[str]
    """IPs whose endpoints may have become forbidden, or allowed again."""


def count_endpoints(index: EndpointIndex, claims: Iterable[PortClaim]) -> int:
    """Return the number of endpoints judged for a Service's claims, including repetitions.

    Source ranges also count, because each takes 0.4 KiB of kernel memory in a socket's filter.
    """
    return sum(_count(index, claim) for claim in claims)


def plan_ports(
    state: ServiceState,
    index: EndpointIndex,
    claims: Iterable[PortClaim],
    owners: FrontendOwners,
    facts: NodeFacts,
    *,
    orphans: Orphans = NO_ORPHANS,
    before: Earlier | None = None,
    is_left_out: bool = False,
    kernel: KernelFit = FITS,
) -> Iterator[PortPlan]:
    """Yield the plan of each port as if it owned all frontends that it claims.

    Args:
        index: The index of the Service's slices.
        claims: The Service's claims, in order.
        owners: The owned frontends and node ports; an endpoint with such an address is rejected.
        orphans: Slices that may have been meant for a Service without slices.
        before: The previous plan's inputs; None to judge all endpoints.
        is_left_out: Whether the Service's namespace has too many endpoints.
        kernel: Whether the Service fits on the kernel path.
    """
    left = 0 if is_left_out else ENDPOINTS_OF_SERVICE_MAX
    left_out_reason: Cause | None = None
    shared = _shared_numbers(state.service)
    for claim in claims:
        count = _count(index, claim)
        left -= count
        if count and left < 0:
            # All omitted ports, of which there may be thousands, share one object.
            left_out_reason = left_out_reason or _left_out_reason(state.service.key, is_left_out)
            plan = _plan_without_endpoints(state, claim, left_out_reason)
        else:
            usable = _usable(index, claim, owners, facts, before)
            plan = _plan_port(state, index, claim, usable, facts, orphans, kernel)
        is_shared = claim.port.port in shared
        yield replace(plan, shared_number=claim.port.port) if is_shared else plan


def _shared_numbers(service: Service) -> Set[int]:
    """Return the port numbers that a Service uses for both protocols."""
    if len(service.ports) == 1:
        return frozenset()
    of = {
        protocol: {p.port for p in service.ports if p.protocol == protocol} for protocol in Protocol
    }
    return of[Protocol.TCP] & of[Protocol.UDP]


def _left_out_reason(key: ServiceKey, is_left_out: bool) -> Cause:
    if is_left_out:
        return too_many_in_namespace(key.namespace, ENDPOINTS_OF_NAMESPACE_MAX)
    return too_many_at_all_ports(key, ENDPOINTS_OF_SERVICE_MAX)


def _count(index: EndpointIndex, claim: PortClaim) -> int:
    listed = index.count(claim.key.family, claim.port.name, claim.protocol)
    return listed + len(claim.admits or ())


def _plan_without_endpoints(state: ServiceState, claim: PortClaim, cause: Cause) -> PortPlan:
    return PortPlan(
        key=claim.key,
        protocol=claim.protocol,
        frontends=claim.frontends,
        verdicts=(),
        serving=Serving(
            affinity_timeout_s=state.service.affinity_timeout_s,
            handling=state.service.handling.of(claim.protocol),
        ),
        cause=cause,
        notes=claim.notes,
        scope=claim.scope,
    )


def _usable(
    index: EndpointIndex,
    claim: PortClaim,
    owners: FrontendOwners,
    facts: NodeFacts,
    before: Earlier | None,
) -> Usable:
    """Judge the endpoints of a claim; if possible, only the endpoints that changed."""
    port = PortName(claim.key.family, claim.port.name, claim.protocol)
    refusals = Refusals(
        facts,
        frontends=owners.served(claim.protocol),
        node_ports=owners.node_ports[claim.protocol],
        cluster_ips=owners.cluster_ips,
        may_be_node=facts.allow_node_endpoints or claim.key.name.service == API_SERVER,
    )
    old = before.ports.get(claim.key) if before is not None else None
    wanted = claim.protocol, claim.scope, Scope.CLUSTER
    if before and old is not None and (old.protocol, old.scope, claim.scope) == wanted:
        usable = usable_after(old.verdicts, before.had, index, port, refusals, before.doubtful_ips)
        if usable is not None:
            return usable
    return usable_endpoints(index, port, refusals, claim.scope)


def _plan_port(
    state: ServiceState,
    index: EndpointIndex,
    claim: PortClaim,
    usable: Usable,
    facts: NodeFacts,
    orphans: Orphans,
    kernel: KernelFit,
) -> PortPlan:
    handling = state.service.handling.of(claim.protocol)
    inside = _inside(claim, facts) if claim.scope is Scope.LOCAL_FROM_OUTSIDE else ()
    ranges = _ranges(claim)
    is_udp_range = bool(ranges) and claim.protocol is Protocol.UDP
    path, refused = _path(state, claim, usable, facts, kernel, is_udp_range=is_udp_range)
    if refused := refused or overflow_reason(ranges, usable.serving):
        claim = _without_range(state.service, claim, refused)
        return _plan_port(state, index, claim, usable, facts, orphans, kernel)
    # Only UDP flows need the leaving endpoints: without a removal delay, flows end immediately.
    has_leaving = claim.protocol is Protocol.UDP and handling.removal_s is not None
    # Like other notes, this note is added once for all frontends of a family.
    is_first = claim.key.side is Side.ALL
    is_coarse = bool(
        kernel.coarse and path.path is not DataPath.USERSPACE and usable.serving.weights
    )
    lost = ", ".join(proxy_only(handling)) if is_udp_range else ""
    unused = range_without_proxy(_asked_range(state.service, claim), lost) if lost else None
    followed = (path.note, weights_coarse(kernel.coarse) if is_coarse else None, unused)
    notes = [note for note in followed if note is not None and is_first]
    lacking = _lacking(state, index, claim) if is_first else ()
    cause = _cause(state, index, claim, usable, orphans)
    if cause is not None and cause.code is CauseCode.NOT_LOCAL:
        cause = facts.no_node or cause
    too_many = () if usable.are_all or not is_first else (too_many_endpoints(ENDPOINTS_MAX),)
    return PortPlan(
        key=claim.key,
        protocol=claim.protocol,
        frontends=claim.frontends,
        verdicts=usable.verdicts,
        serving=usable.serving.handled(
            handling,
            affinity_timeout_s=state.service.affinity_timeout_s,
            inside=inside,
            admits=_admits(claim.admits, inside, is_dropping=usable.is_dropping),
            leaving=usable.leaving if has_leaving else (),
            ranges=ranges,
        ),
        cause=cause,
        notes=(*too_many, *claim.notes, *lacking, *notes),
        scope=claim.scope,
        path=path,
        has_coarse_weights=is_coarse,
    )


def _ranges(claim: PortClaim) -> tuple[DialledRange, ...]:
    number = claim.port.port
    return tuple(DialledRange(f.ip, f.port, f.last, number) for f in claim.frontends if f.last)


def _asked_range(service: Service, claim: PortClaim) -> str:
    """Return the entry of the annotation for a claim with a range."""
    names, number = (claim.port.name, str(claim.port.port)), claim.port.port
    return next(
        str(one)
        for one in service.handling.port_ranges
        if one.port in names and one.first <= number <= one.last
    )


def _without_range(service: Service, claim: PortClaim, why: str) -> PortClaim:
    """Return the claim without its range, with a note on why the range isn't served."""
    asked = _asked_range(service, claim)
    frontends = tuple([frontend for frontend in claim.frontends if not frontend.last])
    noted = (range_not_possible(asked, why),) if claim.key.side is Side.ALL else ()
    return replace(claim, frontends=frontends, notes=first_notes((*claim.notes, *noted)))


def _path(
    state: ServiceState,
    claim: PortClaim,
    usable: Usable,
    facts: NodeFacts,
    kernel: KernelFit,
    *,
    is_udp_range: bool,
) -> tuple[PathDecision, str]:
    """Return the path of a claim, and why no path can serve its range; empty if a path can."""
    handling = state.service.handling.of(claim.protocol)
    no_kernel_path = (
        (f"{NEEDS_PROXY} needs the proxy" if handling.found_by_name else "")
        or facts.no_kernel_path.get(claim.key.family)
        or facts.no_kernel_path.get(handling.balance)
        or kernel.obstacle
    )
    path = choose_path(
        handling,
        facts.default_path,
        no_kernel_path,
        allowed=facts.allowed_paths,
        has_affinity=state.service.affinity_timeout_s is not None,
        weights=dict(usable.serving.weights).values(),
    )
    path = choose_range_path(state.service, path, no_kernel_path, is_udp_range=is_udp_range)
    return path, no_kernel_path if is_udp_range else ""


def _lacking(state: ServiceState, index: EndpointIndex, claim: PortClaim) -> tuple[Cause, ...]:
    """Return a note if some pods lack a port; none for hand-written slices, which may intend it."""
    port, service = claim.port, state.service
    have, total = index.lacking(claim.key.family, port.name, claim.protocol)
    if not have or not service.selector:
        return ()
    return (some_lack_port(port.name, have, total, port.target_name),)


def slice_notes(state: ServiceState, family: IPFamily) -> tuple[Cause, ...]:
    """Return notes about requests in the slices of a family that have no effect."""
    slices = [item for item in state.slices if item.family is family and not item.is_headless]
    written = (cause_of_slice(note, item.key) for item in slices for note in item.notes)
    return first_notes(itertools.chain(name_notes(slices), written))


def _cause(
    state: ServiceState, index: EndpointIndex, claim: PortClaim, usable: Usable, orphans: Orphans
) -> Cause | None:
    if usable.serving.used_outside:
        return None
    if not index.slices and index.headless is None:
        meant = orphans.meant_for(state.service.key)
        if meant is not None:
            return meant
    if not usable.verdicts and (cause := unserved_name_reason(state, claim.port, claim.key.family)):
        return cause
    return none_usable_reason(
        state.service, claim.port, claim.key.family, claim.scope, index, usable.verdicts
    )


def health_check_of(state: ServiceState, facts: NodeFacts) -> HealthCheck | None:
    """Return the health check node port of a Service; None if it has none.

    Source: Kubernetes' NeedsHealthCheck: only type LoadBalancer with ``externalTrafficPolicy:
        Local`` has one.
    """
    service = state.service
    port = service.health_check_node_port
    is_asked = service.is_external_local and service.type is ServiceType.LOAD_BALANCER
    if not port or not is_asked:
        return None
    return HealthCheck(service.key, port, count_local_ready(state.slices, facts))


def _inside(claim: PortClaim, facts: NodeFacts) -> tuple[str, ...]:
    """Return the networks of clients in the cluster.

    The frontends are included: if a frontend is routed to this node, a client on the node that
    dials the frontend uses that address as its source.
    """
    own = [own_network(frontend.ip) for frontend in claim.frontends]
    return tuple(dict.fromkeys((*facts.inside(claim.key.family), *own)))


def _admits(
    ranges: tuple[str, ...] | None, inside: tuple[str, ...], *, is_dropping: bool
) -> tuple[str, ...] | None:
    """Return the networks within the ranges whose clients have an endpoint; None admits all."""
    if not is_dropping:
        return ranges
    return inside if ranges is None else _intersect(ranges, inside)


# Cache results: a Service may have thousands of ports, which all pass the same thousands of ranges.
_intersect = functools.lru_cache(maxsize=16)(intersect)
