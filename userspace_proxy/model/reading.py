"""Leniently converts slices and nodes to model values; ``service_reading`` converts Services.

Rule 1: the meaning of missing, null and unknown values is defined here, with its source.
Rule 2: an invalid object raises :class:`FieldError` with the field's path; the caller adds the
place (file and line, or a watch).
Rule 3: an invalid part of a slice (one address of many) and an invalid address of a Service are
omitted, because the API server has already admitted the object; ``notes`` of the Service or the
slice contains a note. Addresses may have any notation that kube-proxy reads.
Rule 4: the API server doesn't validate ``targetRef``. A pod's name is used only if it is valid.
"""

from __future__ import annotations

import datetime
import functools
from collections.abc import Callable, Iterable
from sys import intern

from ..errors import ConfigError
from .addresses import IPFamily, parse_ip
from .annotations import Preference, read_preference
from .endpoint_names import NameSlice, read_host
from .endpoints import Endpoint, EndpointSlice, SlicePort
from .names import ServiceKey, SliceKey
from .node_network import Node
from .notes import Note, NoteKind
from .quoting import quoted
from .source_ranges import parse_range
from .syntax import check_label, check_subdomain
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
LABEL_MANAGED_BY = "endpointslice.kubernetes.io/managed-by"
LABEL_ZONE = "topology.kubernetes.io/zone"
ANNOTATION_TRIGGERED = "endpoints.kubernetes.io/last-change-trigger-time"
TAINT_TO_BE_DELETED = "ToBeDeletedByClusterAutoscaler"

HINTED_MAX = 1_000
"""The maximum number of zones, and of nodes, in a slice's hints: one per possible endpoint."""
HINTED_OTHERS = ("(others)",)
"""Replaces hints beyond ``HINTED_MAX``; no zone or node has that name."""
_NO_CONDITIONS = WireConditions()
_read_ip = functools.partial(parse_ip, strict=False)
_read_network = functools.partial(parse_range, strict=False)


def read_slice(
    wire: WireEndpointSlice, *, with_headless: bool = False, with_pods: bool = False
) -> EndpointSlice:
    """Convert an EndpointSlice.

    Args:
        with_headless: Whether to read data that only DNS uses: host names, and slices of headless
            Services (label ``service.kubernetes.io/headless`` with any value).
        with_pods: Whether to note targets that can't be pods, which port-forwards require.

    Returns:
        With addressType FQDN, a NameSlice. A slice without a Service (label
        ``kubernetes.io/service-name``) is empty, as is a headless Service's slice if it contains
        names, or unless ``with_headless``.

    Raises:
        FieldError: A name is missing, or the address type is invalid.
    """
    labels = wire.metadata.labels or {}
    service = labels.get(LABEL_SERVICE_NAME) or ""
    if not wire.address_type:
        raise FieldError("addressType", "is missing")
    if wire.address_type not in ("IPv4", "IPv6", "FQDN"):
        raise FieldError("addressType", f"{quoted(wire.address_type)} is not IPv4, IPv6 or FQDN")
    family = IPFamily.IPV6 if wire.address_type == "IPv6" else IPFamily.IPV4
    are_names = wire.address_type == "FQDN"
    namespace = namespace_of(wire.metadata)
    key, of = SliceKey(namespace, name_of(wire.metadata)), ServiceKey(namespace, service)
    is_headless = LABEL_HEADLESS in labels
    if not service or (is_headless and (are_names or not with_headless)):
        return EndpointSlice(key, of, family, (), (), is_headless=is_headless)
    preference = read_preference(wire.metadata.annotations)
    endpoints, hints = [], _Hints()
    notes: list[Note] = []
    for i, item in enumerate(wire.endpoints or ()):
        # Clients use the first address only. Source: discovery.k8s.io/v1, Endpoint.addresses.
        first = (item.addresses or [""])[0]
        try:
            address = read_host(first) if are_names else _address_of(first, family)
        except (ConfigError, ValueError) as exc:
            notes.append(NoteKind.ADDRESS_WRONG(f"endpoints[{i}].addresses", str(exc)))
            continue
        hostname, pod = (item.hostname if with_headless else None) or "", ""
        try:
            pod = _pod_of(item.target_ref, namespace, f"endpoints[{i}].targetRef")
        except FieldError as exc:
            if with_pods:
                notes.append(NoteKind.NO_POD(str(exc), address))
        endpoints.append(_endpoint(item, address, preference, hints, hostname, pod))
    made = EndpointSlice(
        *(key, of, family),
        ports=_slice_ports(wire),
        endpoints=tuple(endpoints),
        triggered_at=_trigger_time(wire.metadata),
        notes=(*notes, *preference.notes, *hints.notes),
        is_headless=is_headless,
        unnumbered=tuple(port.name or "" for port in wire.ports or () if port.port is None),
        manager=intern(labels.get(LABEL_MANAGED_BY) or ""),
    )
    return NameSlice.of(made) if are_names else made


def _slice_ports(wire: WireEndpointSlice) -> tuple[SlicePort, ...]:
    return tuple(
        SlicePort(intern(port.name or ""), port.port, intern(port.protocol or "TCP"))
        for port in wire.ports or ()
        # Omit a port without a number, which means "all ports": a proxy can't dial it.
        if port.port and 1 <= port.port <= 65535
    )


def _endpoint(
    item: WireEndpoint,
    address: str,
    preference: Preference,
    hints: _Hints,
    hostname: str,
    pod: str,
) -> Endpoint:
    conditions = item.conditions or _NO_CONDITIONS
    hinted = item.hints
    return Endpoint(
        address,
        ready=conditions.ready is not False,
        serving=conditions.serving is not False,
        terminating=conditions.terminating is True,
        # Intern the name, because thousands of endpoints may have the same node.
        node=intern(item.node_name or ""),
        hinted_zones=hints.names(hinted.for_zones, hints.zones) if hinted else (),
        hinted_nodes=hints.names(hinted.for_nodes, hints.nodes) if hinted else (),
        hostname=hostname,
        weight=preference.weight,
        priority=preference.priority,
        pod=pod,
    )


def _pod_of(target: WireTargetRef | None, namespace: str, path: str) -> str:
    """Return the name of an endpoint's pod; empty if it isn't a pod.

    Raises:
        FieldError: The target can't be a pod in the slice's namespace.
    """
    if target is None or target.kind != "Pod" or not target.name:
        return ""
    _check_namespace(namespace)
    check_subdomain(target.name, f"{path}.name")
    if target.namespace not in (None, "", namespace):
        problem = f"{quoted(target.namespace)} is not the namespace of the slice, {namespace}"
        raise FieldError(f"{path}.namespace", problem)
    return target.name


# Cost: all endpoints of a slice have the same namespace.
@functools.lru_cache(maxsize=16)
def _check_namespace(namespace: str) -> None:
    check_label(namespace, "metadata.namespace")


def _trigger_time(metadata: Metadata) -> float:
    """Return the Unix time of the change that a slice reflects; 0 if it is missing or invalid.

    Source: k8s.io/api/core/v1, EndpointsLastChangeTriggerTime; RFC 3339.
    """
    return read_time((metadata.annotations or {}).get(ANNOTATION_TRIGGERED) or "")


def read_time(text: str) -> float:
    """Return the Unix time of a timestamp of the API; 0 if it is invalid."""
    try:
        moment = datetime.datetime.fromisoformat(text)
    except ValueError:
        return 0.0
    return moment.timestamp() if moment.tzinfo is not None else 0.0


def read_node(wire: WireNode) -> Node:
    """Convert a Node.

    Raises:
        FieldError: The Node has no name.
    """
    taints = (wire.spec and wire.spec.taints) or ()
    addresses = (wire.status and wire.status.addresses) or ()
    return Node(
        name=name_of(wire.metadata),
        addresses=valid_addresses(
            a.address for a in addresses if a.type in ("InternalIP", "ExternalIP")
        ),
        zone=(wire.metadata.labels or {}).get(LABEL_ZONE) or "",
        pod_networks=valid_addresses(
            (wire.spec and wire.spec.pod_cidrs) or (), parse=_read_network
        ),
        # Source: kube-proxy's NodeEligible; the taint counts regardless of its value and effect.
        is_being_deleted=wire.metadata.deletion_timestamp is not None
        or any(taint.key == TAINT_TO_BE_DELETED for taint in taints),
    )


def name_of(metadata: Metadata) -> str:
    """Return the name of an object.

    Raises:
        FieldError: The name is missing.
    """
    if not metadata.name:
        raise FieldError("metadata.name", "is missing")
    return metadata.name


def namespace_of(metadata: Metadata) -> str:
    """Return the namespace of an object, by default ``default``."""
    # Intern the namespace, because thousands of objects have the same namespace.
    return intern(metadata.namespace or "default")


class _Hints:
    """The zones and nodes in the hints of one slice."""

    def __init__(self) -> None:
        self.notes: tuple[Note, ...] = ()
        self.zones: set[str] = set()
        self.nodes: set[str] = set()

    def names(self, items: list[WireHint] | None, found: set[str]) -> tuple[str, ...]:
        """Return the names in an endpoint's hints; if there are too many, ``HINTED_OTHERS``.

        Args:
            found: The slice's zones or nodes so far; new names are added.
        """
        if not items:
            return ()
        names = [item.name for item in items if item.name]
        new = [name for name in names if name not in found]
        if len(found) + len(new) > HINTED_MAX:
            self.notes = (NoteKind.TOO_MANY_HINTS(HINTED_MAX),)
            return HINTED_OTHERS
        found.update(new)
        return _only(names[0]) if len(names) == 1 else _shared(tuple(names))


@functools.lru_cache(maxsize=16384)
def _only(name: str) -> tuple[str, ...]:
    # Cost: one tuple of 48 bytes for each zone, not for each endpoint.
    return (intern(name),) if name else ()


@functools.lru_cache(maxsize=4096)
def _shared(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(map(intern, names))


def valid_addresses(
    texts: Iterable[str | None],
    path: str = "",
    notes: list[Note] | None = None,
    *,
    parse: Callable[[str], str] = _read_ip,
) -> tuple[str, ...]:
    """Return valid addresses, canonical and distinct; note the others in ``notes``, if given."""
    valid: dict[str, None] = {}
    for text in texts:
        try:
            valid[parse(text or "")] = None
        except ValueError as exc:
            if notes is not None:
                notes.append(NoteKind.ADDRESS_WRONG(path, str(exc)))
    return tuple(valid)


def _address_of(text: str, family: IPFamily) -> str:
    ip = _read_ip(text)
    if IPFamily.of(ip) is not family:
        raise ValueError(f"{ip} is not {family}")
    return ip
