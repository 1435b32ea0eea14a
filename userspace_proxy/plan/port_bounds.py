"""Decides which ports of a Service are served: its ports times its addresses have a bound.

Rule 1: the first ports by name are served; the others have no plan, and together one cause.
Rule 2: what counts is the same on all nodes.
Rule 3: external IPs have a bound of their own: of a Service with many ports fewer are served.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ..causes.services import too_many_frontends
from ..model import IPFamily, Protocol, Service, ServicePort
from ..policy import NodeFacts, why_ignored, why_port_ignored
from .namespace_shares import FRONTENDS_OF_SERVICE_MAX
from .plan import IgnoredService

EXTERNAL_IPS_MAX = 100
"""External IPs of a Service that are served; of more than 100 ports fewer, down to one."""
EXTERNAL_FRONTENDS_MAX = 10_000
"""Frontends at external IPs of all ports of a Service; they don't count for its ports."""
IGNORED_MAX = 20
"""Ports of one Service that are listed as not served, of each kind: they are on the page, in the
log and in metrics."""


def families_of(service: Service) -> list[IPFamily]:
    """Return the families in which a Service is served, sorted: those of its cluster IPs."""
    return sorted({IPFamily.of(ip) for ip in service.cluster_ips})


def served_ports(service: Service) -> tuple[list[ServicePort], tuple[IgnoredService, ...]]:
    """Return the first ports by name, up to the bound, and why the others are left out."""
    each, at_node_port = _weights(service)
    ports = [port for port in service.ports if port.protocol in Protocol.__members__]
    ports.sort(key=lambda port: port.name)
    left = FRONTENDS_OF_SERVICE_MAX
    for place, port in enumerate(ports):
        left -= each + (at_node_port if port.node_port else 0)
        if left < 0:
            cause = too_many_frontends(service.key, FRONTENDS_OF_SERVICE_MAX, len(ports) - place)
            name = _port_name(port)
            return ports[:place], (IgnoredService(service.key, name, cause, is_conflict=True),)
    return ports, ()


def unsupported_ports(service: Service) -> tuple[IgnoredService, ...]:
    """Return the first ports whose protocol isn't supported; the last one counts the others."""
    ports = [port for port in service.ports if port.protocol not in Protocol.__members__]
    found = [
        IgnoredService(service.key, _port_name(port), cause)
        for port in ports[:IGNORED_MAX]
        if (cause := why_port_ignored(port)) is not None
    ]
    if more := len(ports) - len(found):
        found[-1] = replace(found[-1], cause=found[-1].cause.replace(more=more))
    return tuple(found)


def first_ignored(items: Sequence[IgnoredService]) -> tuple[IgnoredService, ...]:
    """Return ``IGNORED_MAX`` of them at most; the last one states how many more there are."""
    if len(items) <= IGNORED_MAX:
        return tuple(items)
    last, more = items[IGNORED_MAX - 1], len(items) - IGNORED_MAX
    return (*items[: IGNORED_MAX - 1], replace(last, cause=last.cause.replace(more=more)))


def most_external_ips(service: Service) -> int:
    """Return how many external IPs of a Service are served."""
    return min(EXTERNAL_IPS_MAX, max(1, EXTERNAL_FRONTENDS_MAX // max(1, len(service.ports))))


def count_frontends(service: Service, facts: NodeFacts) -> int:
    """Return how many frontends count for a Service; it is the same on all nodes.

    A node port counts once for each family, however many addresses a node has.
    """
    if why_ignored(service, facts) is not None:
        return 0
    each, at_node_port = _weights(service)
    if facts.external_ip_networks:
        each += min(len(service.external_ips), most_external_ips(service))
    ports = [port for port in service.ports if port.protocol in Protocol.__members__]
    return each * len(ports) + at_node_port * sum(bool(port.node_port) for port in ports)


def _weights(service: Service) -> tuple[int, int]:
    """Return what each port counts, and what it counts in addition if it has a node port."""
    families = families_of(service)
    ips = (*service.cluster_ips, *service.load_balancer_ips)
    return sum(IPFamily.of(ip) in families for ip in ips), len(families)


def _port_name(port: ServicePort) -> str:
    return port.name or str(port.port)
