"""Validates EndpointSlices of manifests as the API server would.

Rule 1: an error is a :class:`FieldError` with the path of the field as written.
Rule 2: loopback, link-local and unspecified endpoints are accepted, although the API server rejects
them: policy excludes each with its reason, for all sources, and may allow loopback for embedding.
An error here would exclude the whole file.

Source: Kubernetes' pkg/apis/discovery/validation.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from .admission import check_metadata
from .notation import (
    check_address,
    check_family,
    check_label_value,
    check_number,
    check_port_name,
    check_protocol,
    check_subdomain,
)
from .reading import LABEL_SERVICE_NAME
from .wire import FieldError, WireEndpoint, WireEndpointSlice, WireHint, WireSlicePort

ENDPOINTS_MAX = 1000
ADDRESSES_MAX = 100
"""Of one endpoint."""
PORTS_MAX = 20000
HINTS_MAX = 8
"""Zones of one endpoint, and nodes likewise."""


def check_slice(wire: WireEndpointSlice) -> None:
    """Check an EndpointSlice.

    Raises:
        FieldError: The first field that the API server would reject, or a missing label with the
            Service, which can only be a mistake in a manifest.
    """
    check_metadata(wire.metadata)
    if not (wire.metadata.labels or {}).get(LABEL_SERVICE_NAME):
        raise FieldError(
            "metadata.labels",
            f"{LABEL_SERVICE_NAME} is missing: it must name the Service that the slice serves",
        )
    if wire.address_type not in ("IPv4", "IPv6", "FQDN"):
        shown = "is missing" if not wire.address_type else f"{wire.address_type!r} is unknown"
        raise FieldError("addressType", f"{shown}: write IPv4, IPv6 or FQDN")
    check_slice_ports(wire.ports or (), "ports")
    _check_count(wire.endpoints or (), "endpoints", ENDPOINTS_MAX)
    for i, endpoint in enumerate(wire.endpoints or ()):
        _check_endpoint(endpoint, wire.address_type, f"endpoints[{i}]")


def check_slice_ports(ports: Collection[WireSlicePort], path: str) -> None:
    """Check the ports of a slice or of a subset of an Endpoints object."""
    _check_count(ports, path, PORTS_MAX)
    names: set[str] = set()
    for i, port in enumerate(ports):
        here = f"{path}[{i}]"
        if port.port is not None:
            check_number(port.port, f"{here}.port")
        check_protocol(port.protocol, f"{here}.protocol")
        check_port_name(port.name, len(ports), names, f"{here}.name")


def _check_endpoint(endpoint: WireEndpoint, family: str, path: str) -> None:
    if not endpoint.addresses:
        raise FieldError(f"{path}.addresses", "is missing")
    _check_count(endpoint.addresses, f"{path}.addresses", ADDRESSES_MAX)
    if family != "FQDN":
        for i, text in enumerate(endpoint.addresses):
            here = f"{path}.addresses[{i}]"
            check_family(check_address(text, here), family, here)
    if endpoint.node_name is not None:
        check_subdomain(endpoint.node_name, f"{path}.nodeName")
    if endpoint.hints:
        hints = f"{path}.hints"
        _check_hints(endpoint.hints.for_zones or (), f"{hints}.forZones", check_label_value)
        _check_hints(endpoint.hints.for_nodes or (), f"{hints}.forNodes", check_subdomain)


def _check_hints(
    hints: Sequence[WireHint], path: str, check_name: Callable[[str, str], None]
) -> None:
    _check_count(hints, path, HINTS_MAX)
    names: set[str] = set()
    for i, hint in enumerate(hints):
        name, here = hint.name or "", f"{path}[{i}].name"
        if not name:
            raise FieldError(here, "is missing")
        check_name(name, here)
        if name in names:
            raise FieldError(here, f"{name!r} is already listed")
        names.add(name)


def _check_count(items: Collection[object], path: str, most: int) -> None:
    if len(items) > most:
        raise FieldError(path, f"has {len(items)} items, and may have {most}")
