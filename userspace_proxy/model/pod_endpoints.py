"""Derives Services' endpoints from their Pods, as Kubernetes' EndpointSlice controller does.

    Service: selector, target ports ─┐
                                     ├─▶ EndpointSlices, one for each family and set of port numbers
    Pods: labels, addresses, state ──┘

Source: k8s.io/endpointslice, reconciler.go and utils.go (1.36); FindPort of k8s.io/kubernetes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from .addresses import IPFamily
from .endpoints import Endpoint, EndpointSlice, SlicePort
from .names import SliceKey
from .quoting import quoted
from .reading import name_of, namespace_of, valid_addresses
from .services import Service, ServiceType
from .wire import (
    FieldError,
    WireContainer,
    WirePod,
    WirePodSpec,
    WirePodStatus,
    WireService,
    WireServiceSpec,
)

ANNOTATION_PORTS = "userspace-proxy.io/ports"


class PodKey(NamedTuple):
    """Identity of a Pod."""

    namespace: str
    name: str


class PodPort(NamedTuple):
    """A port of a Pod's containers."""

    number: int
    protocol: str


@dataclass(frozen=True, slots=True)
class PodEndpoint:
    """The fields of a Pod that define an endpoint."""

    key: PodKey
    labels: frozenset[tuple[str, str]]
    ips: tuple[str, ...]
    """Its addresses, at most one per family; empty until it has an address."""
    is_ready: bool
    """Whether its condition ``Ready`` is true; it may still be true while the Pod terminates."""
    is_terminating: bool
    has_ended: bool
    """Whether all its containers have terminated."""
    ports: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """Port numbers of its containers by port name and protocol."""
    listens_at: Mapping[PodPort, int] = field(default_factory=dict)
    """By port, the number of the port on which it listens instead (annotation ``…/ports``)."""
    node: str = ""
    hostname: str = ""
    subdomain: str = ""


@dataclass(frozen=True, slots=True)
class TargetPort:
    """The target of one Service port in each Pod."""

    name: str
    """The Service port's name."""
    protocol: str
    port: int | str
    """A port number, or the name of a port of the Pod's containers."""


@dataclass(frozen=True, slots=True)
class PodSelection:
    """The settings of a Service, besides its selector, that determine its Pods' endpoints."""

    targets: tuple[TargetPort, ...]
    families: tuple[IPFamily, ...]
    publishes_not_ready: bool = False


def read_selection(wire: WireService) -> PodSelection:
    """Return a Service's settings for endpoints; the API server has already set defaults."""
    spec = wire.spec or WireServiceSpec()
    return PodSelection(
        tuple(
            TargetPort(port.name or "", port.protocol or "TCP", port.target_port or port.port or 0)
            for port in spec.ports or ()
        ),
        tuple(family for family in IPFamily if str(family) in (spec.ip_families or ("IPv4",))),
        spec.publish_not_ready_addresses is True,
    )


def read_pod(wire: WirePod) -> PodEndpoint:
    """Convert a Pod.

    Raises:
        FieldError: The Pod has no name, or its annotation is invalid.
    """
    spec, status = wire.spec or WirePodSpec(), wire.status or WirePodStatus()
    addresses = [item.ip for item in status.pod_ips or ()] or [status.pod_ip]
    ips = {IPFamily.of(ip): ip for ip in reversed(valid_addresses(addresses))}
    return PodEndpoint(
        key=PodKey(namespace_of(wire.metadata), name_of(wire.metadata)),
        labels=frozenset((k, v or "") for k, v in (wire.metadata.labels or {}).items()),
        ips=tuple(ips.values()),
        is_ready=wire.condition("Ready").status == "True",
        is_terminating=wire.metadata.deletion_timestamp is not None,
        has_ended=status.phase in ("Succeeded", "Failed"),
        ports=_named_ports(spec),
        listens_at=_read_ports((wire.metadata.annotations or {}).get(ANNOTATION_PORTS) or ""),
        node=spec.node_name or "",
        hostname=spec.hostname or "",
        subdomain=spec.subdomain or "",
    )


def is_selecting(service: Service) -> bool:
    """Return whether a Service selects Pods; otherwise other programs write its slices."""
    return bool(service.selector) and service.type is not ServiceType.EXTERNAL_NAME


def derive_slices(
    service: Service, selection: PodSelection, pods: Iterable[PodEndpoint]
) -> tuple[EndpointSlice, ...]:
    """Return the slices of a Service, at least one for each of its families.

    Args:
        pods: The Pods that the selector matches, in the order of the endpoints.
    """
    groups: dict[tuple[IPFamily, tuple[SlicePort, ...]], list[Endpoint]] = {}
    for pod in pods:
        if pod.has_ended:
            continue
        for ip in pod.ips:
            family = IPFamily.of(ip)
            if family in selection.families:
                ports = _slice_ports(selection, pod)
                endpoint = _endpoint(service, selection, pod, ip)
                groups.setdefault((family, ports), []).append(endpoint)
    for family in selection.families:
        if not any(family is other for other, _ in groups):
            groups[family, ()] = []
    # Names of API objects contain no colon, so these names can't collide with them.
    return tuple(
        EndpointSlice(
            SliceKey(service.key.namespace, f"{service.key.name}:pods-{number}"),
            service.key,
            family,
            ports,
            tuple(groups[family, ports]),
        )
        for number, (family, ports) in enumerate(sorted(groups, key=_group_order), 1)
    )


def _group_order(group: tuple[IPFamily, tuple[SlicePort, ...]]) -> tuple[object, ...]:
    family, ports = group
    return family, *((port.name, port.port, port.protocol) for port in ports)


def _endpoint(service: Service, selection: PodSelection, pod: PodEndpoint, ip: str) -> Endpoint:
    is_named = pod.subdomain == service.key.name
    return Endpoint(
        ip,
        ready=selection.publishes_not_ready or (pod.is_ready and not pod.is_terminating),
        serving=pod.is_ready,
        terminating=pod.is_terminating,
        node=pod.node,
        hostname=pod.hostname if is_named else "",
    )


def _slice_ports(selection: PodSelection, pod: PodEndpoint) -> tuple[SlicePort, ...]:
    """Return the ports of a Pod; a named port that no container has is omitted."""
    ports = []
    for name, protocol, target in ((t.name, t.protocol, t.port) for t in selection.targets):
        number = pod.ports.get((target, protocol), 0) if isinstance(target, str) else target
        if 1 <= number <= 65535:
            number = pod.listens_at.get(PodPort(number, protocol), number)
            ports.append(SlicePort(name, number, protocol))
    return tuple(ports)


def _named_ports(spec: WirePodSpec) -> dict[tuple[str, str], int]:
    beside: list[WireContainer] = [
        container
        for container in spec.init_containers or ()
        if container.restart_policy == "Always"
    ]
    named: dict[tuple[str, str], int] = {}
    for container in (*(spec.containers or ()), *beside):
        for port in container.ports or ():
            if port.name and port.container_port:
                named.setdefault((port.name, port.protocol or "TCP"), port.container_port)
    return named


def _read_ports(text: str) -> dict[PodPort, int]:
    """Parse ``8080=37741,53/UDP=40001``. Raises FieldError."""
    ports: dict[PodPort, int] = {}
    for item in text.split(",") if text else ():
        port, _, wanted = item.strip().partition("=")
        number, _, protocol = port.partition("/")
        if not (_is_port(number) and _is_port(wanted) and protocol in ("", "TCP", "UDP")):
            raise FieldError(
                f"metadata.annotations[{ANNOTATION_PORTS}]",
                f"{quoted(item.strip())} is not of the form 8080=37741 or 53/UDP=40001",
            )
        ports[PodPort(int(number), protocol or "TCP")] = int(wanted)
    return ports


def _is_port(text: str) -> bool:
    return len(text) <= 5 and text.isascii() and text.isdecimal() and 1 <= int(text) <= 65535
