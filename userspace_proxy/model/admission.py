"""Validates Services of manifests as the API server would.

``reading`` relies on this validation.

Rule 1: an error is a :class:`FieldError` with the path of the field as written.
Rule 2: everything that the API server accepts is accepted, except addresses that aren't in strict
notation (KEP-4858).
Rule 3: fields that the API server sets may be missing. Two address families without an
``ipFamilyPolicy`` mean dual stack.

Source: Kubernetes' pkg/apis/core/validation (validateService), its defaults, and the
allocators of pkg/registry/core/service.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping

from .addresses import IPFamily
from .fields import FieldErrors
from .quoting import quoted
from .services import ServiceType
from .source_ranges import ANNOTATION_SOURCE_RANGES, parse_range
from .syntax import (
    check_address,
    check_common_address,
    check_family,
    check_label,
    check_label_value,
    check_number,
    check_port_name,
    check_protocol,
    check_qualified_name,
    check_subdomain,
    check_target_port,
    check_word,
)
from .wire import FieldError, Metadata, WireService, WireServicePort, WireServiceSpec

NODE_PORTS = range(30000, 32768)
"""The range for node ports and health check node ports; objects may name ports outside it.

Source: the default of kube-apiserver's --service-node-port-range."""

_FINALIZERS = ("orphan", "foregroundDeletion", "kubernetes")
_LOCAL_OR_NOT = ("Cluster", "Local")
_FAMILIES = tuple(str(family) for family in IPFamily)
_WORDS: dict[str, tuple[Callable[[WireServiceSpec], str | None], tuple[str, ...]]] = {
    "type": (lambda spec: spec.type, tuple(ServiceType)),
    "sessionAffinity": (lambda spec: spec.session_affinity, ("ClientIP", "None")),
    "internalTrafficPolicy": (lambda spec: spec.internal_traffic_policy, _LOCAL_OR_NOT),
    "externalTrafficPolicy": (lambda spec: spec.external_traffic_policy, _LOCAL_OR_NOT),
    "ipFamilyPolicy": (
        lambda spec: spec.ip_family_policy,
        ("SingleStack", "PreferDualStack", "RequireDualStack"),
    ),
    "trafficDistribution": (
        lambda spec: spec.traffic_distribution,
        ("PreferClose", "PreferSameZone", "PreferSameNode"),
    ),
}
"""Enum fields of ``spec``, with their values."""
_NEVER_EMPTY = ("internalTrafficPolicy", "ipFamilyPolicy", "trafficDistribution")


def check_metadata(metadata: Metadata, *, is_namespaced: bool = True) -> None:
    """Check the metadata of any object.

    Raises:
        FieldError: The name is missing, or names, labels, annotations or finalizers are invalid.
    """
    if not metadata.name:
        raise FieldError("metadata.name", "is missing")
    check_subdomain(metadata.name, "metadata.name")
    if metadata.generate_name:
        # A trailing dash is allowed, because the API server appends a random suffix.
        check_label(f"{metadata.generate_name.removesuffix('-')}", "metadata.generateName")
    if is_namespaced and metadata.namespace:
        check_label(metadata.namespace, "metadata.namespace")
    _check_labels(metadata.labels, "metadata.labels")
    for key in metadata.annotations or ():
        check_qualified_name(key.lower(), "metadata.annotations")
    for i, name in enumerate(metadata.finalizers or ()):
        if "/" not in name and name not in _FINALIZERS:
            raise FieldError(
                f"metadata.finalizers[{i}]", f"{quoted(name)} needs a domain: a.b/{name}"
            )
        check_qualified_name(name, f"metadata.finalizers[{i}]")


def _check_labels(labels: Mapping[str, str | None] | None, path: str) -> None:
    for key, value in (labels or {}).items():
        check_qualified_name(key, path)
        check_label_value(value or "", f"{path}.{key}")


def check_service(wire: WireService) -> None:
    """Check a Service.

    Raises:
        FieldError: All errors for which the API server would reject it.
    """
    errors = FieldErrors()
    with errors:
        check_metadata(wire.metadata)
        check_label(wire.metadata.name or "", "metadata.name")
    spec = wire.spec
    if spec is None:
        errors.found.append(FieldError("spec", "is missing"))
    else:
        for field, (value, words) in _WORDS.items():
            with errors:
                may_be_empty = field not in _NEVER_EMPTY
                check_word(value(spec), f"spec.{field}", words, may_be_empty=may_be_empty)
        _check_spec(wire, spec, errors)
    errors.raise_found()


def _check_spec(wire: WireService, spec: WireServiceSpec, errors: FieldErrors) -> None:
    with errors:
        _check_labels(spec.selector, "spec.selector")
    for check in (_check_type, _check_cluster_ips, _check_families, _check_external_policy):
        with errors:
            check(spec)
    for i, text in enumerate(spec.external_ips or ()):
        with errors:
            check_common_address(text, f"spec.externalIPs[{i}]")
    _check_ports(spec, errors)
    _check_source_ranges(wire, spec, errors)
    with errors:
        _check_ingress(wire, spec)


def _check_type(spec: WireServiceSpec) -> None:
    if spec.type == ServiceType.EXTERNAL_NAME:
        name = (spec.external_name or "").removesuffix(".")
        if not name:
            raise FieldError("spec.externalName", "is missing: type ExternalName needs it")
        check_subdomain(name, "spec.externalName")
        for field, value in (
            ("clusterIP", spec.cluster_ip),
            ("clusterIPs", spec.cluster_ips),
            ("ipFamilies", spec.ip_families),
            ("ipFamilyPolicy", spec.ip_family_policy),
        ):
            if value:
                raise FieldError(f"spec.{field}", "may not be used with type ExternalName")
    if spec.type in (ServiceType.NODE_PORT, ServiceType.LOAD_BALANCER) and _is_headless(spec):
        raise FieldError("spec.clusterIP", f"'None' may not be used with type {spec.type}")
    if spec.allocate_load_balancer_node_ports is not None:
        _need_load_balancer(spec, "spec.allocateLoadBalancerNodePorts")
    if spec.load_balancer_class is not None:
        _need_load_balancer(spec, "spec.loadBalancerClass")
        check_qualified_name(spec.load_balancer_class, "spec.loadBalancerClass")


def _check_cluster_ips(spec: WireServiceSpec) -> None:
    addresses = [] if spec.cluster_ip is None else [(spec.cluster_ip, "spec.clusterIP")]
    addresses += [(t, f"spec.clusterIPs[{i}]") for i, t in enumerate(spec.cluster_ips or ())]
    for text, path in addresses:
        if text not in ("", "None"):
            ip = ipaddress.ip_address(check_address(text, path))
            if ip.is_unspecified or ip.is_multicast:
                raise FieldError(path, f"{ip} can't be the address of a Service")
    both = spec.cluster_ips or []
    if both and not spec.cluster_ip:
        raise FieldError("spec.clusterIPs", "may not be used without clusterIP, which is the first")
    if spec.cluster_ip is not None and both and both[0] != spec.cluster_ip:
        raise FieldError("spec.clusterIPs[0]", f"{both[0]} is not clusterIP, {spec.cluster_ip}")
    if len(both) > 1:
        families = {IPFamily.of(text) for text in both}
        if "None" in both or "" in both or len(both) > len(families):
            raise FieldError("spec.clusterIPs", "may have one address of each family")


def _check_families(spec: WireServiceSpec) -> None:
    families = spec.ip_families or []
    for i, family in enumerate(families):
        check_word(family or "''", f"spec.ipFamilies[{i}]", _FAMILIES)
        if family in families[:i]:
            raise FieldError(f"spec.ipFamilies[{i}]", f"{family} is already listed")
    named = [ip for ip in spec.cluster_ips or [spec.cluster_ip or ""] if ip not in ("", "None")]
    for i, (ip, family) in enumerate(zip(named, families, strict=False)):
        path = f"spec.clusterIPs[{i}]" if spec.cluster_ips else "spec.clusterIP"
        check_family(ip, family, path)
    if spec.ip_family_policy == "SingleStack" and max(len(named), len(families)) > 1:
        raise FieldError(
            "spec.ipFamilyPolicy",
            "'SingleStack' has one address family, not two: "
            "write PreferDualStack or RequireDualStack",
        )


def _check_ports(spec: WireServiceSpec, errors: FieldErrors) -> None:
    ports = spec.ports or []
    with errors:
        if not ports and not _is_headless(spec) and spec.type != ServiceType.EXTERNAL_NAME:
            raise FieldError("spec.ports", "is missing: write at least one")
    names: set[str] = set()
    seen: dict[tuple[int, str], int] = {}
    seen_node_ports: dict[tuple[int, str], int] = {}
    for i, port in enumerate(ports):
        here = f"spec.ports[{i}]"
        with errors:
            if port.port is None:
                raise FieldError(f"{here}.port", "is missing")
            check_number(port.port, f"{here}.port")
            _check_once(port.port, port, i, "port", seen)
        with errors:
            check_protocol(port.protocol, f"{here}.protocol")
        with errors:
            check_target_port(port.target_port or 0, f"{here}.targetPort")
        with errors:
            if port.app_protocol is not None:
                check_qualified_name(port.app_protocol, f"{here}.appProtocol")
        with errors:
            check_port_name(port.name, len(ports), names, f"{here}.name")
        with errors:
            if port.node_port:
                _check_node_port(spec, port, f"{here}.nodePort")
                _check_once(port.node_port, port, i, "nodePort", seen_node_ports)


def _check_node_port(spec: WireServiceSpec, port: WireServicePort, path: str) -> None:
    if (spec.type or ServiceType.CLUSTER_IP) == ServiceType.CLUSTER_IP:
        raise FieldError(path, "may only be used with type NodePort or LoadBalancer")
    check_number(port.node_port or 0, path)


def _check_once(
    number: int,
    port: WireServicePort,
    index: int,
    field: str,
    seen: dict[tuple[int, str], int],
) -> None:
    protocol = port.protocol or "TCP"
    first = seen.setdefault((number, protocol), index)
    if first != index:
        raise FieldError(
            f"spec.ports[{index}].{field}",
            f"{number}/{protocol} is already used by spec.ports[{first}]",
        )


def _check_source_ranges(wire: WireService, spec: WireServiceSpec, errors: FieldErrors) -> None:
    texts = spec.load_balancer_source_ranges or []
    paths = [f"spec.loadBalancerSourceRanges[{i}]" for i in range(len(texts))]
    if texts:
        with errors:
            _need_load_balancer(spec, "spec.loadBalancerSourceRanges")
    else:
        annotation = (wire.metadata.annotations or {}).get(ANNOTATION_SOURCE_RANGES)
        if annotation is not None:
            path = f"metadata.annotations.{ANNOTATION_SOURCE_RANGES}"
            with errors:
                _need_load_balancer(spec, path)
            texts = annotation.split(",") if annotation.strip() else []
            paths = [path] * len(texts)
    for text, path in zip(texts, paths, strict=True):
        try:
            parse_range(text.strip())
        except ValueError as exc:
            errors.found.append(FieldError(path, str(exc)))


def _check_external_policy(spec: WireServiceSpec) -> None:
    is_external = spec.type in (ServiceType.NODE_PORT, ServiceType.LOAD_BALANCER) or (
        spec.type != ServiceType.EXTERNAL_NAME and spec.external_ips
    )
    if spec.external_traffic_policy and not is_external:
        raise FieldError(
            "spec.externalTrafficPolicy",
            "may only be used with type NodePort or LoadBalancer, or with externalIPs",
        )
    if spec.health_check_node_port:
        path = "spec.healthCheckNodePort"
        if spec.type != ServiceType.LOAD_BALANCER or spec.external_traffic_policy != "Local":
            raise FieldError(
                path, "may only be used with type LoadBalancer and externalTrafficPolicy Local"
            )
        check_number(spec.health_check_node_port, path)
        for i, port in enumerate(spec.ports or ()):
            if port.node_port == spec.health_check_node_port:
                raise FieldError(path, f"{port.node_port} is already used by spec.ports[{i}]")


def _check_ingress(wire: WireService, spec: WireServiceSpec) -> None:
    load_balancer = wire.status and wire.status.load_balancer
    items = (load_balancer and load_balancer.ingress) or ()
    if items:
        _need_load_balancer(spec, "status.loadBalancer.ingress")
    for i, item in enumerate(items):
        path = f"status.loadBalancer.ingress[{i}]"
        if item.ip:
            check_address(item.ip, f"{path}.ip")
        elif item.ip_mode:
            raise FieldError(f"{path}.ipMode", "may only be used with ip")
        check_word(item.ip_mode, f"{path}.ipMode", ("VIP", "Proxy"))


def _need_load_balancer(spec: WireServiceSpec, path: str) -> None:
    if spec.type != ServiceType.LOAD_BALANCER:
        raise FieldError(path, "may only be used with type LoadBalancer")


def _is_headless(spec: WireServiceSpec) -> bool:
    return "None" in (spec.cluster_ip, *(spec.cluster_ips or ()))
