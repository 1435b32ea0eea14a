"""Computes the frontends that each Service claims, by its ports and their policies.

Rule 1: values that all ports of a Service share are computed once, because a Service may have
thousands of ports and addresses.
Rule 2: the product of a Service's ports and addresses is limited, equally on all nodes. The first
ports by name are served; the rest have no plan, and share one cause. A range counts as a port.
Rule 3: external IPs have a separate limit: the more ports, the fewer external IPs are served.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from ..causes.cause import Cause
from ..causes.notes import cause_of, no_node_address, no_range_of_family, of_other_family
from ..causes.services import (
    balanced_elsewhere,
    external_ip_off,
    first_notes,
    too_many_external_ips,
    too_many_frontends,
    too_many_frontends_in_namespace,
)
from ..model import (
    Frontend,
    FrontendKind,
    IPFamily,
    PortKey,
    Protocol,
    Service,
    ServiceKey,
    ServicePort,
    ServicePortName,
    Side,
    contains,
    of_family,
    own_network,
)
from ..policy import NodeFacts, Scope, ignored_reason, own_address_reason, port_ignored_reason
from ..policy.port_ranges import LISTENED_MAX, ServedRange, impossible_cause, ranges_of
from .bounds import FRONTENDS_OF_NAMESPACE_MAX, FRONTENDS_OF_SERVICE_MAX
from .plan import IgnoredService


@dataclass(frozen=True, slots=True)
class PortClaim:
    """The frontends that one family and side of one Service port claims."""

    key: PortKey
    port: ServicePort
    protocol: Protocol
    scope: Scope
    frontends: tuple[Frontend, ...]
    """The frontends, sorted; never empty."""
    created: str
    """The Service's creation timestamp."""
    admits: tuple[str, ...] | None = None
    """The Service's source ranges in this family; None if all clients are admitted."""
    notes: tuple[Cause, ...] = ()


@dataclass(frozen=True, slots=True)
class ServiceClaims:
    """All claims of one Service."""

    service: ServiceKey
    ports: tuple[PortClaim, ...]
    """The claims of its ports, sorted by key."""
    ignored: tuple[IgnoredService, ...]
    own_ips: tuple[str, ...]
    """Cluster and load-balancer IPs, even if the Service is ignored: such an IP is never another
    Service's external IP."""
    notes: tuple[Cause, ...] = ()
    """Notes about all ports; notes about one port are in its claim."""
    cluster_ips: tuple[str, ...] = ()
    """Cluster IPs on which only this Service's ports serve; empty if other programs may serve."""

    def is_same(self, other: ServiceClaims | None) -> bool:
        """Return whether ``other`` has equal claims, including the kinds of their frontends."""
        return self == other and all(
            have.kind is want.kind
            for old, new in zip(self.ports, other.ports, strict=True)
            for have, want in zip(old.frontends, new.frontends, strict=True)
        )


def claims_of(service: Service, facts: NodeFacts, *, is_left_out: bool = False) -> ServiceClaims:
    """Return the frontends that a Service claims on this node, its notes, and its ignored ports.

    Args:
        is_left_out: Whether the namespace has too many frontends, so that the Service claims none.
    """
    cause, is_conflict = ignored_reason(service, facts), False
    if cause is None:
        cause = own_address_reason(service, facts)
        if cause is None and is_left_out:
            namespace = service.key.namespace
            cause = too_many_frontends_in_namespace(namespace, FRONTENDS_OF_NAMESPACE_MAX)
        is_conflict = cause is not None
    if cause is not None:
        ignored_whole = (IgnoredService(service.key, "", cause, is_conflict),)
        return ServiceClaims(service.key, (), ignored_whole, _own_ips(service))
    families = [_family(service, family, facts) for family in families_of(service)]
    ports: list[PortClaim] = []
    served, left_out = served_ports(service)
    ranges, of_ranges = ranges_of(service)
    for port in served:
        noted: Sequence[Cause] = of_ranges.get(port, ())
        for of_all in families:
            ports.extend(_claims(service, port, of_all, ranges.get(port), facts, noted))
            noted = ()
    ports.sort(key=lambda claim: claim.key)
    notes = first_notes((*map(cause_of, service.notes), *of_ranges.get(None, ())))
    ignored = (*left_out, *unsupported_ports(service))
    # Without steering, the proxy is only one of the programs that listen on these addresses.
    is_alone = not left_out and not facts.allow_loopback_endpoints
    cluster_ips = service.cluster_ips if is_alone else ()
    return ServiceClaims(service.key, tuple(ports), ignored, _own_ips(service), notes, cluster_ips)


def _own_ips(service: Service) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*service.cluster_ips, *service.load_balancer_ips)))


class _Family(NamedTuple):
    """The values that all ports of a Service share in one family."""

    family: IPFamily
    addresses: tuple[tuple[FrontendKind, str], ...]
    """The addresses on which clients dial a port's own number, not its node port, in the order of
    :func:`_addresses`."""
    node_ips: tuple[str, ...]
    """The addresses on which clients dial node ports."""
    admits: tuple[str, ...] | None
    """The source ranges of the load-balancer side; None if all clients are admitted."""
    notes: tuple[Cause, ...]


def _family(service: Service, family: IPFamily, facts: NodeFacts) -> _Family:
    return _Family(
        family,
        tuple(_addresses(service, family, facts)),
        facts.node_port_addresses(family),
        _admits(service, family, facts),
        first_notes(_notes(service, family, facts)),
    )


def _claims(
    service: Service,
    port: ServicePort,
    of_all: _Family,
    served_range: ServedRange | None,
    facts: NodeFacts,
    noted: Sequence[Cause],
) -> Iterator[PortClaim]:
    """Yield one claim for each policy among the frontends of a family.

    Args:
        noted: Notes about the port's entry in the annotation.
    """
    protocol = Protocol(port.protocol)
    name = ServicePortName(*service.key, port.name)
    sides: dict[Side, dict[Frontend, None]] = {}
    seen: set[Frontend] = set()
    for kind, ip, number in _dialled(port, of_all):
        frontend = Frontend(ip, number, protocol, kind)
        if frontend not in seen:
            seen.add(frontend)
            sides.setdefault(_side(service, kind), {})[frontend] = None
    notes = first_notes((*of_all.notes, *noted)) if noted else of_all.notes
    if served_range is not None:
        for frontend, why in _ranges(served_range, protocol, of_all, facts):
            if why is None:
                sides[_side(service, frontend.kind)][frontend] = None
            elif why not in notes:
                notes = first_notes((*notes, why))
    if port.node_port and not of_all.node_ips:
        allowed = () if facts.has_node_ports_everywhere else facts.node_port_networks
        note = no_node_address(port.node_port, str(of_all.family), allowed)
        notes = first_notes((*notes, note))
    for side, frontends in sides.items():
        yield PortClaim(
            key=PortKey(name, of_all.family, side),
            port=port,
            protocol=protocol,
            scope=_scope(service, side),
            # Single ports come before ranges, because names resolve to the address of the first
            # frontend.
            frontends=tuple(sorted(frontends, key=lambda one: (one.last, one))),
            created=service.created,
            admits=of_all.admits if side is Side.LOAD_BALANCER else None,
            notes=notes if side is Side.ALL else (),
        )


def _ranges(
    served: ServedRange, protocol: Protocol, of_all: _Family, facts: NodeFacts
) -> Iterator[tuple[Frontend, Cause | None]]:
    """Yield each span of a port's range on each address, and why it isn't served, or None."""
    why = impossible_cause(served, protocol, of_all.family, facts)
    seen: set[str] = set()
    for kind, ip in of_all.addresses:
        if ip in seen:
            continue
        seen.add(ip)
        for first, last in served.spans:
            frontend = Frontend(ip, first, protocol, kind, last)
            yield frontend, why or served.cause_at(kind, ip, facts)


def _dialled(port: ServicePort, of_all: _Family) -> Iterator[tuple[FrontendKind, str, int]]:
    for kind, ip in of_all.addresses:
        yield kind, ip, port.port
    for ip in of_all.node_ips if port.node_port else ():
        yield FrontendKind.NODE_PORT, ip, port.node_port


def _addresses(
    service: Service, family: IPFamily, facts: NodeFacts
) -> Iterator[tuple[FrontendKind, str]]:
    """Yield the addresses on which clients dial a port's own number, not its node port.

    If an address has two kinds, the kind with the stricter policy comes first.
    """
    for ip in of_family(service.cluster_ips, family):
        yield FrontendKind.CLUSTER_IP, ip
    for ip in of_family(service.load_balancer_ips, family):
        yield FrontendKind.LOAD_BALANCER, ip
    served = service.external_ips[: most_external_ips(service)]
    for ip in of_family(served, family) if facts.external_ip_networks else ():
        if not _no_external_ip_reason(ip, facts):
            yield FrontendKind.EXTERNAL_IP, ip


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
    """Return the source ranges of a family; None if all clients are admitted.

    As in kube-proxy, ranges of one family don't restrict the other family.

    Source: kube-proxy's allowFromNode: if the ranges contain this node, packets from the
    load-balancer IP itself are admitted, because the node has that source address when it dials the
    IP.
    """
    ranges = of_family(service.load_balancer_source_ranges, family)
    if not ranges:
        return None
    if any(contains(ranges, ip) for ip in facts.primary_addresses):
        own = of_family(service.load_balancer_ips, family)
        return tuple(dict.fromkeys((*ranges, *map(own_network, own))))
    return ranges


def _no_external_ip_reason(ip: str, facts: NodeFacts) -> str:
    """Return why an external IP isn't served on this node; empty if it is served.

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


def _notes(service: Service, family: IPFamily, facts: NodeFacts) -> Iterator[Cause]:
    most = most_external_ips(service)
    left_out = of_family(service.external_ips[most:], family)
    if left_out and facts.external_ip_networks:
        yield too_many_external_ips(left_out[0], most)
    outside = (*service.load_balancer_ips, *service.external_ips[:most])
    for ip in of_family(service.external_ips[:most], family):
        why = _no_external_ip_reason(ip, facts)
        if why:
            is_allowed = contains(facts.external_ip_networks, ip)
            yield external_ip_off(ip, why, is_allowed=is_allowed)
    families = families_of(service)
    # Report these addresses once per Service; kube-proxy omits them silently.
    for ip in outside if family is families[0] else ():
        if (theirs := IPFamily.of(ip)) not in families:
            yield of_other_family(ip, str(theirs), str(family))
    yield from map(balanced_elsewhere, of_family(service.balanced_elsewhere, family))
    ips = of_family(service.load_balancer_ips, family)
    ranges = service.load_balancer_source_ranges
    if ips and ranges and not of_family(ranges, family):
        yield no_range_of_family(str(family))


EXTERNAL_IPS_MAX = 100
"""The maximum number of external IPs served for a Service; fewer with over 100 ports, down to
one."""
EXTERNAL_FRONTENDS_MAX = 10_000
"""The maximum number of frontends of a Service on external IPs, besides its other frontends."""
IGNORED_MAX = 20
"""How many ports of a Service are listed as not served, for each reason."""


def families_of(service: Service) -> list[IPFamily]:
    """Return the families in which a Service is served, sorted: the families of its cluster IPs."""
    return sorted({IPFamily.of(ip) for ip in service.cluster_ips})


def served_ports(service: Service) -> tuple[list[ServicePort], tuple[IgnoredService, ...]]:
    """Return the first ports by name, up to the limit, and why the other ports are omitted."""
    each, at_node_port = _weights(service)
    ports = [port for port in service.ports if port.protocol in Protocol.__members__]
    ports.sort(key=lambda port: port.name)
    left = FRONTENDS_OF_SERVICE_MAX
    for place, port in enumerate(ports):
        count = 1 + _count_ranges(service, (port,))
        left -= each * count + (at_node_port if port.node_port else 0)
        if left < 0:
            cause = too_many_frontends(service.key, FRONTENDS_OF_SERVICE_MAX, len(ports) - place)
            name = _port_name(port)
            return ports[:place], (IgnoredService(service.key, name, cause, is_conflict=True),)
    return ports, ()


def unsupported_ports(service: Service) -> tuple[IgnoredService, ...]:
    """Return the first ports with an unsupported protocol; the last item counts further ports."""
    ports = [port for port in service.ports if port.protocol not in Protocol.__members__]
    found = [
        IgnoredService(service.key, _port_name(port), cause)
        for port in ports[:IGNORED_MAX]
        if (cause := port_ignored_reason(port)) is not None
    ]
    if more := len(ports) - len(found):
        found[-1] = replace(found[-1], cause=found[-1].cause.replace(more=more))
    return tuple(found)


def first_ignored(items: Sequence[IgnoredService]) -> tuple[IgnoredService, ...]:
    """Return at most ``IGNORED_MAX`` items; the last item states the number of omitted items."""
    if len(items) <= IGNORED_MAX:
        return tuple(items)
    last, more = items[IGNORED_MAX - 1], len(items) - IGNORED_MAX
    return (*items[: IGNORED_MAX - 1], replace(last, cause=last.cause.replace(more=more)))


def most_external_ips(service: Service) -> int:
    """Return the maximum number of external IPs that are served for a Service."""
    ports = len(service.ports) + _count_ranges(service, service.ports)
    return min(EXTERNAL_IPS_MAX, max(1, EXTERNAL_FRONTENDS_MAX // max(1, ports)))


def count_frontends(service: Service, facts: NodeFacts) -> int:
    """Return how many frontends a Service has: the same on all nodes whose rules support ranges.

    A node port counts once per family, however many addresses a node has.
    """
    if ignored_reason(service, facts) is not None:
        return 0
    each, at_node_port = _weights(service)
    if facts.external_ip_networks:
        each += min(len(service.external_ips), most_external_ips(service))
    ports = [port for port in service.ports if port.protocol in Protocol.__members__]
    dialled = len(ports) + _count_ranges(service, ports, lists_ports=facts.lists_ports)
    return each * dialled + at_node_port * sum(bool(port.node_port) for port in ports)


def _count_ranges(
    service: Service, ports: Sequence[ServicePort], *, lists_ports: bool = False
) -> int:
    """Return how many frontends the ranges have on each address: one per range, or one per port."""
    asked = service.handling.port_ranges
    if not asked:
        return 0
    sizes = {one.port: one.last - one.first + 1 for one in asked}
    found = (
        (port.protocol, sizes.get(port.name) or sizes.get(str(port.port), 0)) for port in ports
    )
    return sum(
        size if lists_ports and protocol == Protocol.TCP and size <= LISTENED_MAX else bool(size)
        for protocol, size in found
    )


def _weights(service: Service) -> tuple[int, int]:
    """Return how many frontends a port has without external IPs, and how many a node port adds."""
    families = families_of(service)
    ips = (*service.cluster_ips, *service.load_balancer_ips)
    return sum(IPFamily.of(ip) in families for ip in ips), len(families)


def _port_name(port: ServicePort) -> str:
    return port.name or str(port.port)
