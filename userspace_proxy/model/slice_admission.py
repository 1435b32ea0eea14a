"""Validates EndpointSlices of manifests as the API server would.

Rule 1: an error is a :class:`FieldError` with the path of the field as written.
Rule 2: loopback, link-local and unspecified endpoints are accepted, although the API server rejects
them: policy refuses each with its reason, for all sources, and may allow loopback for embedding. An
error here would exclude the whole slice.

Source: Kubernetes' pkg/apis/discovery/validation.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from .admission import check_metadata
from .fields import FieldErrors
from .quoting import quoted
from .syntax import (
    PROTOCOLS,
    check_address,
    check_family,
    check_label,
    check_label_value,
    check_number,
    check_port_name,
    check_qualified_name,
    check_subdomain,
    check_word,
)
from .wire import FieldError, WireEndpoint, WireEndpointSlice, WireHint, WireSlicePort

_FAMILIES = ("IPv4", "IPv6", "FQDN")
ENDPOINTS_MAX = 1000
ADDRESSES_MAX = 100
"""The maximum number of addresses of one endpoint."""
PORTS_MAX = 20000
HINTS_MAX = 8
"""The maximum number of zones, and of nodes, in one endpoint's hints."""


def check_slice(wire: WireEndpointSlice) -> None:
    """Check an EndpointSlice.

    Raises:
        FieldError: All errors for which the API server would reject it.
    """
    errors = FieldErrors()
    with errors:
        check_metadata(wire.metadata)
    family = wire.address_type if wire.address_type in _FAMILIES else ""
    if not family:
        shown = "is missing" if not wire.address_type else f"{quoted(wire.address_type)} is unknown"
        errors.found.append(FieldError("addressType", f"{shown}: write IPv4, IPv6 or FQDN"))
    with errors:
        check_slice_ports(wire.ports or (), "ports")
    with errors:
        _check_count(wire.endpoints or (), "endpoints", ENDPOINTS_MAX)
    for i, endpoint in enumerate(wire.endpoints or ()):
        with errors:
            _check_endpoint(endpoint, family, f"endpoints[{i}]")
    errors.raise_found()


def check_slice_ports(
    ports: Collection[WireSlicePort], path: str, *, need_names: bool = False
) -> None:
    """Check the ports of a slice or of an Endpoints object's subset.

    Args:
        need_names: Whether each of several ports needs a name, as in an Endpoints object; in a
            slice, one port may be unnamed.
    """
    _check_count(ports, path, PORTS_MAX)
    errors = FieldErrors()
    alike = len(ports) if need_names else sum(not port.name for port in ports)
    names: set[str] = set()
    for i, port in enumerate(ports):
        here = f"{path}[{i}]"
        with errors:
            if port.port is not None:
                check_number(port.port, f"{here}.port")
        with errors:
            check_word(port.protocol, f"{here}.protocol", PROTOCOLS, may_be_empty=False)
        with errors:
            if port.app_protocol is not None:
                check_qualified_name(port.app_protocol, f"{here}.appProtocol")
        with errors:
            check_port_name(port.name, alike, names, f"{here}.name")
    errors.raise_found()


def _check_endpoint(endpoint: WireEndpoint, family: str, path: str) -> None:
    """Check an endpoint; an empty ``family`` means unknown."""
    if not endpoint.addresses:
        raise FieldError(f"{path}.addresses", "is missing")
    _check_count(endpoint.addresses, f"{path}.addresses", ADDRESSES_MAX)
    errors = FieldErrors()
    if family in ("IPv4", "IPv6"):
        for i, text in enumerate(endpoint.addresses):
            here = f"{path}.addresses[{i}]"
            with errors:
                check_family(check_address(text, here), family, here)
    with errors:
        if endpoint.node_name is not None:
            check_subdomain(endpoint.node_name, f"{path}.nodeName")
    with errors:
        if endpoint.hostname is not None:
            check_label(endpoint.hostname, f"{path}.hostname")
    with errors:
        if endpoint.hints:
            hints = f"{path}.hints"
            _check_hints(endpoint.hints.for_zones or (), f"{hints}.forZones", check_label_value)
            _check_hints(endpoint.hints.for_nodes or (), f"{hints}.forNodes", check_subdomain)
    errors.raise_found()


def _check_hints(
    hints: Sequence[WireHint], path: str, check_name: Callable[[str, str], None]
) -> None:
    _check_count(hints, path, HINTS_MAX)
    names: set[str] = set()
    for i, hint in enumerate(hints):
        name, here = hint.name or "", f"{path}[{i}].name"
        if name:
            check_name(name, here)
        if name in names:
            raise FieldError(here, f"{quoted(name)} is already listed")
        names.add(name)


def _check_count(items: Collection[object], path: str, most: int) -> None:
    if len(items) > most:
        raise FieldError(path, f"has {len(items)} items, and may have {most}")
