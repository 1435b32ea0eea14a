"""The frontends that each Service claims, by its ports and their policies."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ..model import (
    Cause,
    Frontend,
    FrontendKind,
    IPFamily,
    Protocol,
    Service,
    ServiceKey,
    ServicePort,
    ServicePortName,
    contains,
    of_family,
    own_network,
)
from ..model.annotations import DOMAIN
from ..policy import NodeFacts, Scope, why_ignored, why_port_ignored
from ..policy.causes import external_ip_off, first_notes, not_followed
from .plan import IgnoredService, PortKey, Side


@dataclass(frozen=True, slots=True)
class PortClaim:
    """The frontends that one family and side of one Service port claims."""

    key: PortKey
    port: ServicePort
    protocol: Protocol
    scope: Scope
    frontends: tuple[Frontend, ...]
    """Sorted; never empty."""
    created: str
    """The Service's creation timestamp."""
    admits: tuple[str, ...] | None = None
    """The Service's source ranges of this family; None admits all clients."""
    notes: tuple[Cause, ...] = ()


@dataclass(frozen=True, slots=True)
class ServiceClaims:
    """All claims of one Service."""

    service: ServiceKey
    ports: tuple[PortClaim, ...]
    """Sorted by key."""
    ignored: tuple[IgnoredService, ...]
    own_ips: tuple[str, ...]
    """Cluster and load-balancer IPs, even of an ignored Service: never external IPs of another."""
    notes: tuple[Cause, ...] = ()
    """About all ports; those of one port are with its claim."""

    def is_same(self, other: ServiceClaims | None) -> bool:
        """Return whether two claims are equal, including the kinds of their frontends."""
        return self == other and all(
            have.kind is want.kind
            for old, new in zip(self.ports, other.ports, strict=True)
            for have, want in zip(old.frontends, new.frontends, strict=True)
        )


def claims_of(service: Service, facts: NodeFacts) -> ServiceClaims:
    """Return what a Service claims on this node."""
    cause = why_ignored(service, facts)
    if cause is not None:
        ignored_whole = (IgnoredService(service.key, "", cause),)
        return ServiceClaims(service.key, (), ignored_whole, _own_ips(service))
    ports: list[PortClaim] = []
    ignored: list[IgnoredService] = []
    families = sorted({IPFamily.of(ip) for ip in service.cluster_ips})
    for port in service.ports:
        cause = why_port_ignored(port)
        if cause is not None:
            ignored.append(IgnoredService(service.key, port.name or str(port.port), cause))
            continue
        for family in families:
            ports.extend(_claims(service, port, family, facts))
    ports.sort(key=lambda claim: claim.key)
    notes = first_notes((*map(not_followed, service.notes), *_fault_notes(service, facts)))
    return ServiceClaims(service.key, tuple(ports), tuple(ignored), _own_ips(service), notes)


def _own_ips(service: Service) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*service.cluster_ips, *service.load_balancer_ips)))


def _claims(
    service: Service, port: ServicePort, family: IPFamily, facts: NodeFacts
) -> Iterator[PortClaim]:
    """Yield one claim for each policy among the frontends of a family."""
    protocol = Protocol(port.protocol)
    name = ServicePortName(*service.key, port.name)
    sides: dict[Side, dict[Frontend, None]] = {}
    seen: set[Frontend] = set()
    for kind, ip, number in _addresses(service, port, family, facts):
        frontend = Frontend(ip, number, protocol, kind)
        if frontend.family is family and frontend not in seen:
            seen.add(frontend)
            sides.setdefault(_side(service, kind), {})[frontend] = None
    notes = first_notes(_notes(service, port, family, facts))
    for side, frontends in sides.items():
        yield PortClaim(
            key=PortKey(name, family, side),
            port=port,
            protocol=protocol,
            scope=_scope(service, side),
            frontends=tuple(sorted(frontends)),
            created=service.created,
            admits=_admits(service, family, facts) if side is Side.LOAD_BALANCER else None,
            notes=notes if side is Side.ALL else (),
        )


def _addresses(
    service: Service, port: ServicePort, family: IPFamily, facts: NodeFacts
) -> Iterator[tuple[FrontendKind, str, int]]:
    """Yield what clients dial, possibly of both families.

    Where one address has two kinds, the kind with the stricter policy comes first.
    """
    for ip in service.cluster_ips:
        yield FrontendKind.CLUSTER_IP, ip, port.port
    for ip in service.load_balancer_ips:
        yield FrontendKind.LOAD_BALANCER, ip, port.port
    for ip in service.external_ips:
        if not _why_no_external_ip(ip, facts):
            yield FrontendKind.EXTERNAL_IP, ip, port.port
    if port.node_port:
        for ip in facts.node_port_addresses(family):
            yield FrontendKind.NODE_PORT, ip, port.node_port


def _side(service: Service, kind: FrontendKind) -> Side:
    if kind is FrontendKind.CLUSTER_IP:
        return Side.ALL
    if kind is FrontendKind.LOAD_BALANCER and service.load_balancer_source_ranges:
        return Side.LOAD_BALANCER
    is_one_policy = not (service.is_internal_local or service.is_external_local)
    return Side.ALL if is_one_policy else Side.EXTERNAL


def _scope(service: Service, side: Side) -> Scope:
    if side is Side.ALL:
        return Scope.LOCAL if service.is_internal_local else Scope.CLUSTER
    return Scope.LOCAL_FROM_OUTSIDE if service.is_external_local else Scope.CLUSTER


def _admits(service: Service, family: IPFamily, facts: NodeFacts) -> tuple[str, ...] | None:
    """Return the source ranges of a family; None admits all clients.

    As in kube-proxy, ranges of one family don't restrict the other.

    Source: kube-proxy's allowFromNode: where this node is in the ranges, packets from the
    load-balancer IP itself are the node's, which has that address while it dials it.
    """
    ranges = of_family(service.load_balancer_source_ranges, family)
    if not ranges:
        return None
    if any(contains(ranges, ip) for ip in facts.primary_addresses):
        own = of_family(service.load_balancer_ips, family)
        return tuple(dict.fromkeys((*ranges, *map(own_network, own))))
    return ranges


def _why_no_external_ip(ip: str, facts: NodeFacts) -> str:
    """Return why an external IP isn't served on this node, or empty.

    Source: CVE-2020-8554: a user who may create a Service could intercept other traffic.
    """
    if not facts.external_ip_networks:
        return "external IPs are off"
    if not contains(facts.external_ip_networks, ip):
        return "it is in none of the networks of --allow-external-ips"
    if ip in facts.addresses or ip in facts.primary_addresses:
        return "it is an address of this node"
    if ip in facts.api_server_addresses:
        return "it is the API server's address"
    return ""


def _notes(
    service: Service, port: ServicePort, family: IPFamily, facts: NodeFacts
) -> Iterator[Cause]:
    for fault in service.handling.faults if facts.allow_faults else ():
        if not fault.is_for(Protocol(port.protocol)):
            yield not_followed(
                f"annotation {DOMAIN}fault: {fault.type} does not exist for {port.protocol}"
            )
    for ip in service.external_ips:
        why = _why_no_external_ip(ip, facts) if IPFamily.of(ip) is family else ""
        if why:
            yield external_ip_off(ip, why)
    ips = of_family(service.load_balancer_ips, family)
    ranges = service.load_balancer_source_ranges
    if ips and ranges and not of_family(ranges, family):
        yield not_followed(
            f"{family} clients of the load balancer aren't limited: no source range is {family}"
        )
    if port.node_port and not facts.node_port_addresses(family):
        yield not_followed(
            f"node port {port.node_port} is not served: this node has no {family} address for it"
        )


def _fault_notes(service: Service, facts: NodeFacts) -> Iterator[Cause]:
    """Yield that faults on purpose aren't in force."""
    if service.handling.faults and not facts.allow_faults:
        yield not_followed(
            f"annotation {DOMAIN}fault is ignored: faults on purpose are allowed only with "
            "--steering=none or --allow-faults"
        )
