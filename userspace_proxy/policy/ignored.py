"""Decides which Services this proxy ignores, and why."""

from __future__ import annotations

from ..causes.cause import Cause
from ..causes.notes import cause_of
from ..causes.services import (
    has_headless_label,
    is_external_name,
    is_headless,
    lacks_label,
    no_cluster_ip,
    of_other_proxy,
    own_address,
    unsupported_protocol,
)
from ..model import Protocol, Service, ServicePort, ServiceType
from ..model.addresses import is_ip
from ..model.service_reading import CLUSTER_IPS
from .facts import NodeFacts


def ignored_reason(service: Service, facts: NodeFacts) -> Cause | None:
    """Return why this proxy doesn't serve a Service; None if it does.

    Source: kube-proxy's ShouldSkipService, and the well-known labels
    service.kubernetes.io/service-proxy-name and service.kubernetes.io/headless.
    """
    if service.proxy_name != facts.proxy_name:
        if service.proxy_name is None:
            return lacks_label(f"service.kubernetes.io/service-proxy-name={facts.proxy_name}")
        return of_other_proxy(service.proxy_name)
    if service.has_headless_label:
        return has_headless_label()
    if service.type is ServiceType.EXTERNAL_NAME:
        name = service.external_name
        return is_external_name(name if is_ip(name) else "")
    if service.is_headless:
        targets = (f"{one.target} (not {one.port})" for one in service.ports if one.target)
        return is_headless(tuple(targets))
    if not service.cluster_ips:
        wrong = (note for note in service.notes if note.about == CLUSTER_IPS)
        return next(map(cause_of, wrong), no_cluster_ip())
    return None


def own_address_reason(service: Service, facts: NodeFacts) -> Cause | None:
    """Return the cause if this node owns a cluster IP, which can't be served; otherwise None.

    Clients that dial the node itself on the Service's ports would reach the Service. Without
    steering, this is intended: the proxy only listens, even on loopback addresses.
    """
    if facts.allow_loopback_endpoints:
        return None
    own = {*facts.addresses, *facts.primary_addresses}
    taken = next((ip for ip in service.cluster_ips if ip in own), "")
    return own_address(taken) if taken else None


def port_ignored_reason(port: ServicePort) -> Cause | None:
    """Return why this proxy doesn't serve a port of a served Service; None if it does."""
    if port.protocol not in Protocol.__members__:
        return unsupported_protocol(port.protocol)
    return None
