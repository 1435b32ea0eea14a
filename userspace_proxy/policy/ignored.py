"""Decides which Services this proxy serves, and states the reason if it doesn't serve one."""

from __future__ import annotations

from ..model import Protocol, Service, ServicePort, ServiceType
from .facts import NodeFacts


def why_ignored(service: Service, facts: NodeFacts) -> str | None:
    """Return why a Service gets no listener, or None if this proxy serves it.

    Source: kube-proxy's ShouldSkipService, and the well-known labels
    service.kubernetes.io/service-proxy-name and service.kubernetes.io/headless.
    """
    if service.proxy_name != facts.proxy_name:
        if service.proxy_name is None:
            return f"it has no label service.kubernetes.io/service-proxy-name={facts.proxy_name}"
        return f"its label assigns it to the service proxy {service.proxy_name!r}"
    if service.has_headless_label:
        return "it has the label service.kubernetes.io/headless"
    if service.type is ServiceType.EXTERNAL_NAME:
        return "type ExternalName is served by DNS alone"
    if service.is_headless:
        return "it is headless (clusterIP: None): clients reach its endpoints directly"
    if not service.cluster_ips:
        return "it has no cluster IP yet"
    return None


def why_port_ignored(port: ServicePort) -> str | None:
    """Return why one port of a Service that is served gets no listener, or None."""
    if port.protocol not in Protocol.__members__:
        return f"protocol {port.protocol} is not supported (TCP and UDP are)"
    return None
