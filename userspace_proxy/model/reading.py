"""Reads Kubernetes objects into our nouns, politely.

Rule 1: what a missing, null or unknown value means stands here, with its source.
Rule 2: an object that can't be what it says raises :class:`FieldError` with the
field's path; the caller knows the place (a file and line, or a watch) and says it.
Rule 3: a bad part of a slice (one address of many), and an external address that can't
be, costs that part, not the object: it is left out, because the API server has already
admitted the object.
"""

from __future__ import annotations

from collections.abc import Iterable

from .addresses import IPFamily, parse_ip
from .endpoints import Endpoint, EndpointSlice, SlicePort
from .names import ServiceKey, SliceKey
from .nodes import Node
from .services import Service, ServicePort, ServiceType
from .wire import (
    Metadata,
    WireConditions,
    WireEndpointSlice,
    WireNode,
    WireService,
    WireServicePort,
    WireServiceSpec,
)

# Kubernetes' default for sessionAffinityConfig.clientIP.timeoutSeconds: three hours.
AFFINITY_TIMEOUT_S = 10800
# Its upper bound: one day.
AFFINITY_TIMEOUT_MAX_S = 86400

LABEL_SERVICE_NAME = "kubernetes.io/service-name"
LABEL_PROXY_NAME = "service.kubernetes.io/service-proxy-name"
LABEL_HEADLESS = "service.kubernetes.io/headless"
LABEL_ZONE = "topology.kubernetes.io/zone"


class FieldError(ValueError):
    """A field has a value that it can't have.

    Args:
        path: The field, as ``spec.ports[0].port``.
        problem: What is wrong, as ``70000 is not in 1–65535``.
    """

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(f"{path}: {problem}")
        self.path = path
        self.problem = problem


def read_service(wire: WireService) -> Service:
    """Make a Service of what came over the wire.

    Raises:
        FieldError: A name, an address or a port that can't be.
    """
    spec = wire.spec or WireServiceSpec()
    labels = wire.metadata.labels or {}
    addresses = [ip for ip in spec.cluster_ips or (spec.cluster_ip,) if ip]
    is_headless = "None" in addresses
    ingress = (
        wire.status and wire.status.load_balancer and wire.status.load_balancer.ingress
    ) or ()
    return Service(
        key=ServiceKey(_namespace(wire.metadata), _name(wire.metadata)),
        ports=tuple(_service_port(port, i) for i, port in enumerate(spec.ports or ())),
        type=_service_type(spec.type),
        cluster_ips=() if is_headless else _cluster_ips(addresses),
        is_headless=is_headless,
        affinity_timeout_s=_affinity(spec),
        external_ips=_sound(spec.external_ips or ()),
        load_balancer_ips=_sound(item.ip for item in ingress),
        is_internal_local=spec.internal_traffic_policy == "Local",
        is_external_local=spec.external_traffic_policy == "Local",
        proxy_name=labels.get(LABEL_PROXY_NAME),
        has_headless_label=LABEL_HEADLESS in labels,
        created=wire.metadata.creation_timestamp or "",
    )


def read_slice(wire: WireEndpointSlice) -> EndpointSlice | None:
    """Make an EndpointSlice of what came over the wire.

    Returns:
        None for a slice that serves no Service (no ``kubernetes.io/service-name``
        label) or whose addresses are names (addressType FQDN).

    Raises:
        FieldError: A name or an address type that can't be.
    """
    service = (wire.metadata.labels or {}).get(LABEL_SERVICE_NAME)
    if not service or wire.address_type == "FQDN":
        return None
    if not wire.address_type:
        raise FieldError("addressType", "is missing")
    if wire.address_type not in ("IPv4", "IPv6"):
        raise FieldError("addressType", f"{wire.address_type!r} is not IPv4, IPv6 or FQDN")
    family = IPFamily.IPV4 if wire.address_type == "IPv4" else IPFamily.IPV6
    namespace = _namespace(wire.metadata)
    endpoints = []
    for item in wire.endpoints or ():
        # Consumers use the first address only, and must accept that it is the only one.
        # Source: discovery.k8s.io/v1, Endpoint.addresses.
        address = _address_of(item.addresses, family)
        if address is not None:
            conditions = item.conditions or WireConditions()
            endpoints.append(
                Endpoint(
                    address,
                    ready=conditions.ready is not False,
                    serving=conditions.serving is not False,
                    terminating=conditions.terminating is True,
                    node=item.node_name or "",
                    zone=item.zone or "",
                )
            )
    return EndpointSlice(
        key=SliceKey(namespace, _name(wire.metadata)),
        service=ServiceKey(namespace, service),
        family=family,
        ports=tuple(
            SlicePort(port.name or "", port.port, port.protocol or "TCP")
            for port in wire.ports or ()
            # A port without a number means "all ports": nothing that a proxy can dial.
            if port.port and 1 <= port.port <= 65535
        ),
        endpoints=tuple(endpoints),
    )


def read_node(wire: WireNode) -> Node:
    """Make a Node of what came over the wire.

    Raises:
        FieldError: It has no name.
    """
    addresses = (wire.status and wire.status.addresses) or ()
    return Node(
        name=_name(wire.metadata),
        addresses=_sound(a.address for a in addresses if a.type in ("InternalIP", "ExternalIP")),
        zone=(wire.metadata.labels or {}).get(LABEL_ZONE) or "",
        is_being_deleted=wire.metadata.deletion_timestamp is not None,
    )


def _name(metadata: Metadata) -> str:
    if not metadata.name:
        raise FieldError("metadata.name", "is missing")
    return metadata.name


def _namespace(metadata: Metadata) -> str:
    return metadata.namespace or "default"


def _service_type(text: str | None) -> ServiceType:
    try:
        return ServiceType(text or "ClusterIP")
    except ValueError:
        choices = ", ".join(ServiceType)
        raise FieldError("spec.type", f"{text!r} is not one of {choices}") from None


def _service_port(wire: WireServicePort, index: int) -> ServicePort:
    path = f"spec.ports[{index}]"
    if wire.port is None:
        raise FieldError(f"{path}.port", "is missing")
    if not 1 <= wire.port <= 65535:
        raise FieldError(f"{path}.port", f"{wire.port} is not in 1–65535")
    node_port = wire.node_port or 0
    if not 0 <= node_port <= 65535:
        raise FieldError(f"{path}.nodePort", f"{node_port} is not in 1–65535")
    return ServicePort(wire.name or "", wire.port, wire.protocol or "TCP", node_port)


def _cluster_ips(texts: list[str]) -> tuple[str, ...]:
    try:
        return tuple(parse_ip(text) for text in texts)
    except ValueError as exc:
        raise FieldError("spec.clusterIPs", str(exc)) from None


def _sound(texts: Iterable[str | None]) -> tuple[str, ...]:
    """Return those that are addresses."""
    addresses = []
    for text in texts:
        try:
            addresses.append(parse_ip(text or ""))
        except ValueError:
            continue
    return tuple(addresses)


def _address_of(addresses: list[str] | None, family: IPFamily) -> str | None:
    """Return the first address, or None where it isn't one of the slice's family."""
    sound = _sound((addresses or [])[:1])
    return sound[0] if sound and IPFamily.of(sound[0]) is family else None


def _affinity(spec: WireServiceSpec) -> int | None:
    if spec.session_affinity in (None, "", "None"):
        return None
    if spec.session_affinity != "ClientIP":
        raise FieldError(
            "spec.sessionAffinity", f"{spec.session_affinity!r} is not ClientIP or None"
        )
    config = spec.session_affinity_config
    seconds = config.client_ip.timeout_seconds if config and config.client_ip else None
    if seconds is None:
        return AFFINITY_TIMEOUT_S
    if not 1 <= seconds <= AFFINITY_TIMEOUT_MAX_S:
        path = "spec.sessionAffinityConfig.clientIP.timeoutSeconds"
        raise FieldError(path, f"{seconds} is not in 1–{AFFINITY_TIMEOUT_MAX_S}")
    return seconds
