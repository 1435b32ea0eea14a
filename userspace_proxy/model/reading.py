"""Converts slices and nodes to model values, tolerantly; ``service_reading`` converts Services.

Rule 1: the meaning of missing, null and unknown values is defined here, with its source.
Rule 2: an invalid object raises :class:`FieldError` with the field's path; the caller adds the
place (file and line, or a watch).
Rule 3: an invalid part of a slice (one address of many) and an invalid external address are
omitted, because the API server has already admitted the object. If that isn't visible elsewhere,
there is a note in ``Service.notes``.
"""

from __future__ import annotations

import datetime
import functools
import ipaddress
from collections.abc import Iterable
from sys import intern

from .addresses import IPFamily, parse_ip
from .endpoints import Endpoint, EndpointSlice, SlicePort
from .names import ServiceKey, SliceKey
from .nodes import Node
from .quoting import quoted
from .slice_annotations import Preference, read_preference
from .wire import (
    FieldError,
    Metadata,
    WireConditions,
    WireEndpoint,
    WireEndpointSlice,
    WireHint,
    WireNode,
    WireTargetRef,
)

LABEL_SERVICE_NAME = "kubernetes.io/service-name"
LABEL_HEADLESS = "service.kubernetes.io/headless"
LABEL_ZONE = "topology.kubernetes.io/zone"
ANNOTATION_TRIGGERED = "endpoints.kubernetes.io/last-change-trigger-time"
TAINT_TO_BE_DELETED = "ToBeDeletedByClusterAutoscaler"


_NO_CONDITIONS = WireConditions()


def read_slice(
    wire: WireEndpointSlice, *, with_headless: bool = False, with_pods: bool = False
) -> EndpointSlice | None:
    """Convert an EndpointSlice.

    Args:
        with_headless: Read slices of headless Services, too (label
            ``service.kubernetes.io/headless``, whatever its value): only DNS uses them.
        with_pods: Read the names of endpoints' pods, which only port-forwards need.

    Returns:
        None for a slice without a Service (label ``kubernetes.io/service-name``), of a headless
        Service unless they are wanted, or of names (addressType FQDN).

    Raises:
        FieldError: A name is missing, or the address type is invalid.
    """
    labels = wire.metadata.labels or {}
    service = labels.get(LABEL_SERVICE_NAME)
    if LABEL_HEADLESS in labels and not with_headless:
        return None
    if not service or wire.address_type == "FQDN":
        return None
    if not wire.address_type:
        raise FieldError("addressType", "is missing")
    if wire.address_type not in ("IPv4", "IPv6"):
        raise FieldError("addressType", f"{quoted(wire.address_type)} is not IPv4, IPv6 or FQDN")
    family = IPFamily.IPV4 if wire.address_type == "IPv4" else IPFamily.IPV6
    namespace = namespace_of(wire.metadata)
    preference = read_preference(wire.metadata.annotations)
    endpoints = []
    for item in wire.endpoints or ():
        # Clients use the first address only. Source: discovery.k8s.io/v1, Endpoint.addresses.
        address = _address_of(item.addresses, family)
        if address is not None:
            endpoints.append(_endpoint(item, address, preference, with_pods))
    return EndpointSlice(
        key=SliceKey(namespace, name_of(wire.metadata)),
        service=ServiceKey(namespace, service),
        family=family,
        ports=tuple(
            SlicePort(port.name or "", port.port, port.protocol or "TCP")
            for port in wire.ports or ()
            # A port without a number means "all ports", which a proxy can't dial.
            if port.port and 1 <= port.port <= 65535
        ),
        endpoints=tuple(endpoints),
        triggered_at=_trigger_time(wire.metadata),
        notes=preference.notes,
    )


def _endpoint(
    item: WireEndpoint, address: str, preference: Preference, with_pods: bool
) -> Endpoint:
    conditions = item.conditions or _NO_CONDITIONS
    hints = item.hints
    return Endpoint(
        address,
        ready=conditions.ready is not False,
        serving=conditions.serving is not False,
        terminating=conditions.terminating is True,
        # Shared, because thousands of endpoints may have the same node.
        node=intern(item.node_name or ""),
        hinted_zones=_hinted(hints.for_zones) if hints else (),
        hinted_nodes=_hinted(hints.for_nodes) if hints else (),
        hostname=item.hostname or "",
        weight=preference.weight,
        priority=preference.priority,
        pod=_pod_of(item.target_ref) if with_pods else "",
    )


def _pod_of(target: WireTargetRef | None) -> str:
    return target.name or "" if target is not None and target.kind == "Pod" else ""


def _trigger_time(metadata: Metadata) -> float:
    """Return when what a slice reflects has changed; 0 if the controller doesn't say.

    Source: k8s.io/api/core/v1, EndpointsLastChangeTriggerTime; RFC 3339.
    """
    text = (metadata.annotations or {}).get(ANNOTATION_TRIGGERED) or ""
    try:
        moment = datetime.datetime.fromisoformat(text)
    except ValueError:
        return 0.0
    return moment.timestamp() if moment.tzinfo is not None else 0.0


def read_node(wire: WireNode) -> Node:
    """Convert a Node.

    Raises:
        FieldError: It has no name.
    """
    taints = (wire.spec and wire.spec.taints) or ()
    addresses = (wire.status and wire.status.addresses) or ()
    return Node(
        name=name_of(wire.metadata),
        addresses=valid_addresses(
            a.address for a in addresses if a.type in ("InternalIP", "ExternalIP")
        ),
        zone=(wire.metadata.labels or {}).get(LABEL_ZONE) or "",
        pod_networks=valid_networks((wire.spec and wire.spec.pod_cidrs) or ()),
        # Source: kube-proxy's NodeEligible; the taint counts whatever its value and effect.
        is_being_deleted=wire.metadata.deletion_timestamp is not None
        or any(taint.key == TAINT_TO_BE_DELETED for taint in taints),
    )


def name_of(metadata: Metadata) -> str:
    """Return the name of an object.

    Raises:
        FieldError: It has none.
    """
    if not metadata.name:
        raise FieldError("metadata.name", "is missing")
    return metadata.name


def namespace_of(metadata: Metadata) -> str:
    """Return the namespace of an object, by default ``default``."""
    return metadata.namespace or "default"


def _hinted(items: list[WireHint] | None) -> tuple[str, ...]:
    if not items:
        return ()
    if len(items) == 1:
        return _only(items[0].name or "")
    return _shared(tuple(item.name for item in items if item.name))


@functools.lru_cache(maxsize=16384)
def _only(name: str) -> tuple[str, ...]:
    # Cost: one tuple of 48 bytes for each zone, not for each endpoint.
    return (intern(name),) if name else ()


@functools.lru_cache(maxsize=4096)
def _shared(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(map(intern, names))


def valid_addresses(texts: Iterable[str | None]) -> tuple[str, ...]:
    """Return the valid addresses, in canonical form."""
    addresses = []
    for text in texts:
        try:
            addresses.append(parse_ip(text or ""))
        except ValueError:
            continue
    return tuple(addresses)


def valid_networks(texts: Iterable[str | None]) -> tuple[str, ...]:
    """Return the valid networks, in canonical form."""
    networks = []
    for text in texts:
        try:
            networks.append(str(ipaddress.ip_network(text or "", strict=False)))
        except ValueError:
            continue
    return tuple(networks)


def _address_of(addresses: list[str] | None, family: IPFamily) -> str | None:
    """Return the first address; None if it is invalid or of another family."""
    sound = valid_addresses((addresses or [])[:1])
    return sound[0] if sound and IPFamily.of(sound[0]) is family else None
