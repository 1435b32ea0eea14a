"""Leniently converts Services to model values, by the rules of ``reading``."""

from __future__ import annotations

from dataclasses import replace
from sys import intern

from .annotations import read_handling
from .names import ServiceKey
from .notes import Note, NoteKind
from .quoting import quoted
from .reading import LABEL_HEADLESS, name_of, namespace_of, valid_addresses
from .services import Service, ServicePort, ServiceType
from .source_ranges import read_source_ranges
from .wire import FieldError, WireIngress, WireService, WireServicePort, WireServiceSpec

# Kubernetes' default for sessionAffinityConfig.clientIP.timeoutSeconds: three hours.
AFFINITY_TIMEOUT_S = 10800
# The maximum of session affinity's timeoutSeconds: one day.
AFFINITY_TIMEOUT_MAX_S = 86400

BALANCED_MAX = 100
"""The maximum number of load-balancer IPs of a Service: each serves all its ports."""

CLUSTER_IPS = "spec.clusterIPs"
_INGRESS = "status.loadBalancer.ingress"
LABEL_PROXY_NAME = "service.kubernetes.io/service-proxy-name"


def read_service(wire: WireService) -> Service:
    """Convert a Service.

    Raises:
        FieldError: A name is missing, or the type, a port or session affinity is invalid.
    """
    spec = wire.spec or WireServiceSpec()
    labels = wire.metadata.labels or {}
    annotations = wire.metadata.annotations or {}
    addresses = [ip for ip in spec.cluster_ips or (spec.cluster_ip,) if ip]
    is_headless = "None" in addresses
    ingress = (
        wire.status and wire.status.load_balancer and wire.status.load_balancer.ingress
    ) or ()
    ranges, range_notes = read_source_ranges(spec.load_balancer_source_ranges or (), annotations)
    handling, handling_notes = read_handling(annotations)
    if handling.wake is not None and not spec.selector:
        handling_notes += (NoteKind.WAKE_WITHOUT_SELECTOR(str(handling.wake)),)
        handling = replace(handling, wake=None)
    ports = tuple(_service_port(port, i) for i, port in enumerate(spec.ports or ()))
    if handling.proxy_protocol is not None and all(p.protocol != "TCP" for p in ports):
        handling_notes += (NoteKind.HEADER_WITHOUT_TCP(),)
    affinity_timeout_s = _affinity(spec)
    if handling.shares_affinity and affinity_timeout_s is None:
        handling_notes += (NoteKind.SCOPE_WITHOUT_AFFINITY(),)
    # An ingress with only a host name has no address.
    balanced = [item.ip for item in ingress if item.ip and _is_vip(item)]
    elsewhere = [item.ip for item in ingress if item.ip and not _is_vip(item)]
    wrong: list[Note] = []
    return Service(
        key=ServiceKey(namespace_of(wire.metadata), name_of(wire.metadata)),
        ports=ports,
        type=_service_type(spec.type),
        cluster_ips=() if is_headless else valid_addresses(addresses, CLUSTER_IPS, wrong),
        is_headless=is_headless,
        selector=tuple(sorted((k, v or "") for k, v in (spec.selector or {}).items())),
        affinity_timeout_s=affinity_timeout_s,
        external_ips=valid_addresses(spec.external_ips or (), "spec.externalIPs", wrong),
        load_balancer_ips=valid_addresses(balanced[:BALANCED_MAX], _INGRESS, wrong),
        balanced_elsewhere=valid_addresses(elsewhere[:BALANCED_MAX], _INGRESS, wrong),
        load_balancer_source_ranges=ranges,
        health_check_node_port=_health_check_node_port(spec),
        is_internal_local=spec.internal_traffic_policy == "Local",
        is_external_local=spec.external_traffic_policy == "Local",
        handling=handling,
        notes=(
            *(*wrong, *range_notes, *handling_notes),
            *_balancer_notes(spec, len(ingress), len(balanced)),
        ),
        proxy_name=labels.get(LABEL_PROXY_NAME),
        has_headless_label=LABEL_HEADLESS in labels,
        external_name=(spec.external_name or "").removesuffix(".")
        if spec.type == ServiceType.EXTERNAL_NAME
        else "",
        uid=wire.metadata.uid or "",
        created=wire.metadata.creation_timestamp or "",
    )


def _balancer_notes(spec: WireServiceSpec, assigned: int, balanced: int) -> tuple[Note, ...]:
    if spec.type == ServiceType.LOAD_BALANCER and not assigned:
        return (NoteKind.NO_BALANCER_ADDRESS(),)
    if balanced <= BALANCED_MAX:
        return ()
    return (NoteKind.TOO_MANY_BALANCED(balanced, BALANCED_MAX),)


def _service_type(text: str | None) -> ServiceType:
    try:
        return ServiceType(text or "ClusterIP")
    except ValueError:
        choices = ", ".join(ServiceType)
        raise FieldError("spec.type", f"{quoted(text)} is not one of {choices}") from None


def _service_port(wire: WireServicePort, index: int) -> ServicePort:
    path = f"spec.ports[{index}]"
    if wire.port is None:
        raise FieldError(f"{path}.port", "is missing")
    if not 1 <= wire.port <= 65535:
        raise FieldError(f"{path}.port", f"{wire.port} is not in 1–65535")
    node_port = wire.node_port or 0
    if not 0 <= node_port <= 65535:
        raise FieldError(f"{path}.nodePort", f"{node_port} is not in 1–65535")
    target = str(wire.target_port or wire.port)
    return ServicePort(
        intern(wire.name or ""),
        wire.port,
        intern(wire.protocol or "TCP"),
        node_port,
        intern(target) if target != str(wire.port) else "",
    )


def _is_vip(ingress: WireIngress) -> bool:
    """Return whether packets arrive at the node with this address as their destination.

    Source: KEP-1860 and kube-proxy's IsVIPMode: an unknown mode means Proxy.
    """
    return ingress.ip_mode in (None, "", "VIP")


def _health_check_node_port(spec: WireServiceSpec) -> int:
    """Return the health check node port; 0 if the type or policy has none, as in kube-proxy."""
    if spec.type != ServiceType.LOAD_BALANCER or spec.external_traffic_policy != "Local":
        return 0
    port = spec.health_check_node_port or 0
    if not 0 <= port <= 65535:
        raise FieldError("spec.healthCheckNodePort", f"{port} is not in 1–65535")
    return port


def _affinity(spec: WireServiceSpec) -> int | None:
    if spec.session_affinity in (None, "", "None"):
        return None
    if spec.session_affinity != "ClientIP":
        raise FieldError(
            "spec.sessionAffinity", f"{quoted(spec.session_affinity)} is not ClientIP or None"
        )
    config = spec.session_affinity_config
    seconds = config.client_ip.timeout_seconds if config and config.client_ip else None
    if seconds is None:
        return AFFINITY_TIMEOUT_S
    if not 1 <= seconds <= AFFINITY_TIMEOUT_MAX_S:
        path = "spec.sessionAffinityConfig.clientIP.timeoutSeconds"
        raise FieldError(path, f"{seconds} is not in 1–{AFFINITY_TIMEOUT_MAX_S}")
    return seconds
