"""Decides which Services this proxy serves, and states the reason if it doesn't serve one."""

from __future__ import annotations

from ..model import Cause, Protocol, Service, ServicePort, ServiceType
from .causes import not_ours, own_address
from .facts import NodeFacts


def why_ignored(service: Service, facts: NodeFacts) -> Cause | None:
    """Return why a Service gets no listener, or None if this proxy serves it.

    Source: kube-proxy's ShouldSkipService, and the well-known labels
    service.kubernetes.io/service-proxy-name and service.kubernetes.io/headless.
    """
    if service.proxy_name != facts.proxy_name:
        if service.proxy_name is None:
            label = f"service.kubernetes.io/service-proxy-name={facts.proxy_name}"
            return not_ours(f"it has no label {label}")
        return not_ours(f"its label assigns it to the service proxy {service.proxy_name!r}")
    if service.has_headless_label:
        return not_ours("it has the label service.kubernetes.io/headless")
    if service.type is ServiceType.EXTERNAL_NAME:
        return not_ours("type ExternalName is served by DNS alone")
    if service.is_headless:
        return not_ours("it is headless (clusterIP: None): clients reach its endpoints directly")
    if not service.cluster_ips:
        return not_ours("it has no cluster IP yet")
    return None


def why_own_address(service: Service, facts: NodeFacts) -> Cause | None:
    """Return why a Service can't have its cluster IP on this node: it is one of the node's own.

    Everything that dials the node itself at the Service's ports would reach the Service. Without
    steering the proxy only listens, and loopback addresses are as good as any.
    """
    if facts.allow_loopback_endpoints:
        return None
    own = {*facts.addresses, *facts.primary_addresses}
    taken = next((ip for ip in service.cluster_ips if ip in own), "")
    return own_address(taken) if taken else None


def why_port_ignored(port: ServicePort) -> Cause | None:
    """Return why one port of a Service that is served gets no listener, or None."""
    if port.protocol not in Protocol.__members__:
        return not_ours(f"protocol {port.protocol} is not supported (TCP and UDP are)")
    return None


def balanced_elsewhere(ip: str) -> Cause:
    """Return that a load balancer answers for its address itself."""
    return not_ours(
        f"load-balancer IP {ip} is not served here: its ipMode is not VIP, so the load balancer "
        "itself answers for it"
    )
