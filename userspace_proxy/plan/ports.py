"""Plans one Service port, and the health check node port of one Service."""

from __future__ import annotations

from ..cluster import ServiceState
from ..model import Cause, IPFamily, ServiceType, intersect, own_network
from ..policy import (
    ENDPOINTS_MAX,
    NodeFacts,
    Scope,
    Usable,
    choose_path,
    count_local_ready,
    usable_endpoints,
    why_none_usable,
)
from ..policy.causes import first_notes, not_followed, too_many_endpoints
from ..policy.orphans import Orphans
from .claims import PortClaim
from .ownership import FrontendOwners
from .plan import HealthCheck, PortPlan, Side

NO_ORPHANS = Orphans({})


def plan_port(
    state: ServiceState,
    claim: PortClaim,
    owners: FrontendOwners,
    facts: NodeFacts,
    orphans: Orphans = NO_ORPHANS,
) -> PortPlan:
    """Return the plan of a port as if it owned all frontends that it claims.

    Args:
        owners: Contains the frontends and node ports that endpoints must not be.
        orphans: Slices that may have been meant for a Service that has none.
    """
    usable = usable_endpoints(
        state.slices,
        port=claim.port.name,
        protocol=claim.protocol,
        family=claim.key.family,
        facts=facts,
        frontends=owners.served(claim.protocol),
        node_ports=owners.node_ports[claim.protocol],
        scope=claim.scope,
    )
    handling = state.service.handling
    inside = _inside(claim, facts) if claim.scope is Scope.LOCAL_FROM_OUTSIDE else ()
    path = choose_path(
        handling,
        facts.default_path,
        facts.no_kernel_path.get(claim.key.family)
        or facts.no_kernel_path.get(handling.balance, ""),
        allowed=facts.allowed_paths,
        has_affinity=state.service.affinity_timeout_s is not None,
        weights=dict(usable.weights).values(),
    )
    # As with other notes, once for all frontends of a family.
    is_first = claim.key.side is Side.ALL
    notes = (path.note,) if path.note is not None and is_first else ()
    too_many = () if usable.are_all or not is_first else (too_many_endpoints(ENDPOINTS_MAX),)
    return PortPlan(
        key=claim.key,
        protocol=claim.protocol,
        frontends=claim.frontends,
        endpoints=usable.verdicts,
        usable=usable.addresses,
        cause=_cause(state, claim, usable, orphans),
        affinity_timeout_s=state.service.affinity_timeout_s,
        notes=(*too_many, *claim.notes, *notes),
        outside=usable.outside,
        inside=inside,
        admits=_admits(claim.admits, inside, is_dropping=usable.is_dropping),
        handling=handling.without_faults(),
        faults=tuple(fault for fault in handling.faults if fault.is_for(claim.protocol))
        if facts.allow_faults
        else (),
        scope=claim.scope,
        weights=usable.weights,
        standbys=usable.standbys,
        path=path,
    )


def slice_notes(state: ServiceState, family: IPFamily) -> tuple[Cause, ...]:
    """Return what the slices of a family ask for and don't get."""
    slices = (item for item in state.slices if item.family is family)
    return first_notes(
        not_followed(f"EndpointSlice {item.key}: {note}") for item in slices for note in item.notes
    )


def _cause(state: ServiceState, claim: PortClaim, usable: Usable, orphans: Orphans) -> Cause | None:
    shown = usable.addresses if usable.outside is None else usable.outside
    if shown:
        return None
    if not state.slices:
        meant = orphans.meant_for(state.service.key)
        if meant is not None:
            return meant
    return why_none_usable(
        state.service, claim.port, claim.key.family, claim.scope, state.slices, usable.verdicts
    )


def health_check_of(state: ServiceState, facts: NodeFacts) -> HealthCheck | None:
    """Return the health check node port of a Service that has one.

    Source: Kubernetes' NeedsHealthCheck: only of type LoadBalancer, and only with
    ``externalTrafficPolicy: Local``.
    """
    service = state.service
    port = service.health_check_node_port
    is_asked = service.is_external_local and service.type is ServiceType.LOAD_BALANCER
    if not port or not is_asked:
        return None
    return HealthCheck(service.key, port, count_local_ready(state.slices, facts))


def _inside(claim: PortClaim, facts: NodeFacts) -> tuple[str, ...]:
    """Return the networks of clients in the cluster.

    The frontends are among them: where they are routed to this node, a client on the node that
    dials one has that address as its source.
    """
    own = [own_network(frontend.ip) for frontend in claim.frontends]
    return tuple(dict.fromkeys((*facts.inside(claim.key.family), *own)))


def _admits(
    ranges: tuple[str, ...] | None, inside: tuple[str, ...], *, is_dropping: bool
) -> tuple[str, ...] | None:
    """Return the networks of clients that are in the ranges and have a usable endpoint."""
    if not is_dropping:
        return ranges
    return inside if ranges is None else intersect(ranges, inside)
