"""Which addresses each Service asks for, and which Service gets an address.

Service ──claims_of──▶ its ports with their frontends ──settle──▶ one holder a frontend

Rule 1: where two ports claim one frontend, that of the older Service has it, as the API
server's allocator would have it; names decide between those of one second.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ..model import Frontend, IPFamily, Protocol, Service, ServicePort, ServicePortName
from ..policy import NodeFacts, why_ignored, why_port_ignored
from .plan import Ignored, PortKey


@dataclass(frozen=True, slots=True)
class PortClaim:
    """The frontends that one family of one Service port asks for."""

    key: PortKey
    port: ServicePort
    protocol: Protocol
    frontends: tuple[Frontend, ...]
    """Sorted; never empty."""
    created: str
    """The Service's, as there."""


@dataclass(frozen=True, slots=True)
class ServiceClaims:
    """What one Service asks for."""

    ports: tuple[PortClaim, ...]
    """Sorted by key."""
    ignored: tuple[Ignored, ...]


@dataclass(frozen=True, slots=True)
class Settlement:
    """Who has which frontend."""

    holders: Mapping[Frontend, PortClaim]
    lost: Mapping[PortKey, frozenset[Frontend]]
    """What a port asked for and another one has; only ports that lost something."""


def claims_of(service: Service, facts: NodeFacts) -> ServiceClaims:
    """Return what a Service asks for on this node."""
    reason = why_ignored(service, facts)
    if reason is not None:
        return ServiceClaims((), (Ignored(service.key, "", reason),))
    by_family = {
        family: sorted(ip for ip in service.cluster_ips if IPFamily.of(ip) is family)
        for family in sorted({IPFamily.of(ip) for ip in service.cluster_ips})
    }
    ports: list[PortClaim] = []
    ignored: list[Ignored] = []
    for port in service.ports:
        reason = why_port_ignored(port)
        if reason is not None:
            ignored.append(Ignored(service.key, port.name or str(port.port), reason))
            continue
        protocol = Protocol(port.protocol)
        name = ServicePortName(*service.key, port.name)
        ports.extend(
            PortClaim(
                key=PortKey(name, family),
                port=port,
                protocol=protocol,
                frontends=tuple(Frontend(ip, port.port, protocol) for ip in ips),
                created=service.created,
            )
            for family, ips in by_family.items()
        )
    return ServiceClaims(tuple(sorted(ports, key=lambda claim: claim.key)), tuple(ignored))


def settle(claims: Iterable[ServiceClaims]) -> Settlement:
    """Give every frontend to one port; the order of the claims doesn't matter."""
    holders: dict[Frontend, PortClaim] = {}
    lost: dict[PortKey, frozenset[Frontend]] = {}
    for claim in (claim for service in claims for claim in service.ports):
        for frontend in claim.frontends:
            holder = holders.setdefault(frontend, claim)
            if holder is not claim:
                first, second = sorted((holder, claim), key=lambda c: (c.created, c.key))
                holders[frontend] = first
                lost[second.key] = lost.get(second.key, frozenset()) | {frontend}
    return Settlement(holders, lost)
