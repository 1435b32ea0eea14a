"""What the API server would refuse, for objects that no API server has seen.

``reading`` trusts what was admitted; manifests are checked here first.

Rule 1: every refusal is a :class:`FieldError` with the path of the field as written.
Rule 2: what the API server lets pass is not refused, but for addresses: only strict
notation (KEP-4858), as everywhere in this program.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection

from .addresses import IPFamily, parse_ip
from .reading import LABEL_SERVICE_NAME, FieldError
from .wire import (
    Metadata,
    WireEndpointSlice,
    WireService,
    WireServicePort,
    WireServiceSpec,
    WireSlicePort,
)

# Source: RFC 1123 label and subdomain, as Kubernetes' IsDNS1123Label and -Subdomain.
_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_IS_LABEL = re.compile(_LABEL)
_IS_SUBDOMAIN = re.compile(rf"{_LABEL}(\.{_LABEL})*")
LABEL_MAX = 63
SUBDOMAIN_MAX = 253

PROTOCOLS = ("TCP", "UDP", "SCTP")


def check_metadata(metadata: Metadata, *, is_namespaced: bool = True) -> None:
    """Check name and namespace of any object.

    Raises:
        FieldError: The name is missing, or one of them isn't a DNS name.
    """
    if not metadata.name:
        raise FieldError("metadata.name", "is missing")
    if len(metadata.name) > SUBDOMAIN_MAX or not _IS_SUBDOMAIN.fullmatch(metadata.name):
        raise FieldError(
            "metadata.name",
            f"{metadata.name!r} is not a DNS name: lower-case letters, digits, '-' and '.', "
            f"at most {SUBDOMAIN_MAX}, a letter or digit at both ends",
        )
    if is_namespaced and metadata.namespace:
        _check_label(metadata.namespace, "metadata.namespace")


def check_service(wire: WireService) -> None:
    """Check a Service.

    Raises:
        FieldError: The first thing that the API server would refuse.
    """
    check_metadata(wire.metadata)
    _check_label(wire.metadata.name or "", "metadata.name")
    if wire.spec is None:
        raise FieldError("spec", "is missing")
    _check_cluster_ips(wire.spec)
    for i, text in enumerate(wire.spec.external_ips or ()):
        check_address(text, f"spec.externalIPs[{i}]")
    _check_service_ports(wire.spec)


def check_slice(wire: WireEndpointSlice) -> None:
    """Check an EndpointSlice.

    Raises:
        FieldError: The first thing that the API server would refuse, or a slice that
            serves no Service for want of the label, which can only be a mistake here.
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
    for i, endpoint in enumerate(wire.endpoints or ()):
        path = f"endpoints[{i}].addresses"
        if not endpoint.addresses:
            raise FieldError(path, "is missing")
        for j, text in enumerate(endpoint.addresses):
            if wire.address_type != "FQDN":
                ip = check_address(text, f"{path}[{j}]")
                if str(IPFamily.of(ip)) != wire.address_type:
                    raise FieldError(f"{path}[{j}]", f"{ip} is not {wire.address_type}")


def check_slice_ports(ports: Collection[WireSlicePort], path: str) -> None:
    """Check the ports of a slice or of a subset of an Endpoints object.

    Raises:
        FieldError: A number, a protocol or a name that can't be, or a name used twice.
    """
    names: set[str] = set()
    for i, port in enumerate(ports):
        here = f"{path}[{i}]"
        if port.port is not None:
            _check_number(port.port, f"{here}.port")
        _check_protocol(port.protocol, f"{here}.protocol")
        _check_port_name(port.name, len(ports), names, f"{here}.name")


def check_address(text: str | None, path: str) -> str:
    """Return an address in canonical form.

    Raises:
        FieldError: It is missing, or isn't one in strict notation.
    """
    if not text:
        raise FieldError(path, "is missing")
    try:
        return parse_ip(text)
    except ValueError as exc:
        raise FieldError(path, str(exc)) from None


def _check_cluster_ips(spec: WireServiceSpec) -> None:
    addresses = [] if spec.cluster_ip is None else [(spec.cluster_ip, "spec.clusterIP")]
    addresses += [(t, f"spec.clusterIPs[{i}]") for i, t in enumerate(spec.cluster_ips or ())]
    for text, path in addresses:
        if text not in ("", "None"):
            ip = ipaddress.ip_address(check_address(text, path))
            if ip.is_unspecified or ip.is_multicast:
                raise FieldError(path, f"{ip} can't be the address of a Service")
    both = spec.cluster_ips or []
    if spec.cluster_ip is not None and both and both[0] != spec.cluster_ip:
        raise FieldError("spec.clusterIPs[0]", f"{both[0]} is not clusterIP, {spec.cluster_ip}")
    if len(both) > 1:
        families = {IPFamily.of(text) for text in both}
        if "None" in both or len(both) > len(families):
            raise FieldError("spec.clusterIPs", "may have one address of each family")


def _check_service_ports(spec: WireServiceSpec) -> None:
    ports = spec.ports or []
    is_headless = "None" in (spec.cluster_ip, *(spec.cluster_ips or ()))
    if not ports and not is_headless and spec.type != "ExternalName":
        raise FieldError("spec.ports", "is missing: write at least one")
    names: set[str] = set()
    seen: dict[tuple[int, str], int] = {}
    for i, port in enumerate(ports):
        here = f"spec.ports[{i}]"
        if port.port is None:
            raise FieldError(f"{here}.port", "is missing")
        _check_number(port.port, f"{here}.port")
        if port.node_port:
            _check_number(port.node_port, f"{here}.nodePort")
        _check_protocol(port.protocol, f"{here}.protocol")
        _check_port_name(port.name, len(ports), names, f"{here}.name")
        _check_once(port, i, seen)


def _check_once(port: WireServicePort, index: int, seen: dict[tuple[int, str], int]) -> None:
    number, protocol = port.port or 0, port.protocol or "TCP"
    first = seen.setdefault((number, protocol), index)
    if first != index:
        raise FieldError(
            f"spec.ports[{index}].port",
            f"{number}/{protocol} is that of spec.ports[{first}] already",
        )


def _check_number(number: int, path: str) -> None:
    if not 1 <= number <= 65535:
        raise FieldError(path, f"{number} is not in 1–65535")


def _check_protocol(protocol: str | None, path: str) -> None:
    if protocol and protocol not in PROTOCOLS:
        raise FieldError(path, f"{protocol!r} is not one of {', '.join(PROTOCOLS)}")


def _check_port_name(name: str | None, count: int, names: set[str], path: str) -> None:
    if not name:
        if count > 1:
            raise FieldError(path, "is missing: one of several ports needs a name")
        return
    _check_label(name, path)
    if name in names:
        raise FieldError(path, f"{name!r} is the name of another port already")
    names.add(name)


def _check_label(text: str, path: str) -> None:
    if len(text) > LABEL_MAX or not _IS_LABEL.fullmatch(text):
        raise FieldError(
            path,
            f"{text!r} is not a DNS label: lower-case letters, digits and '-', "
            f"at most {LABEL_MAX}, a letter or digit at both ends",
        )
