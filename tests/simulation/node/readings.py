"""Derives properties from single API objects; shares no code with the product.

Source: kubernetes.io/docs/reference/labels-annotations-taints, the product's README.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

from .plan import Object

LABEL_PROXY_NAME = "service.kubernetes.io/service-proxy-name"
LABEL_HEADLESS = "service.kubernetes.io/headless"
LABEL_SERVICE = "kubernetes.io/service-name"
LEAVES = "ToBeDeletedByClusterAutoscaler"
"""The taint of a node that its autoscaler is about to remove."""
HOLD = "userspace-proxy.io/hold"
WEIGHT, PRIORITY = "userspace-proxy.io/weight", "userspace-proxy.io/priority"

_RESERVED = ("127.0.0.0/8", "169.254.0.0/16", "0.0.0.0/8", "224.0.0.0/3", "::1/128")
"""Networks in which no endpoint of a plan can be."""


@lru_cache(maxsize=4096)
def is_in(network: str, ip: str) -> bool:
    """Return whether an address is in a network."""
    return ipaddress.ip_address(ip) in ipaddress.ip_network(network)


@lru_cache(maxsize=1024)
def is_reserved(ip: str) -> bool:
    """Return whether no endpoint can have an address, such as a loopback address."""
    return any(is_in(network, ip) for network in _RESERVED)


def labels_of(item: Object) -> Any:
    """Return the labels of an object."""
    return item["metadata"].get("labels", {})


def is_served(service: Object) -> bool:
    """Return whether a proxy without a proxy name serves a Service."""
    labels = labels_of(service)
    if LABEL_PROXY_NAME in labels or LABEL_HEADLESS in labels:
        return False
    return service["spec"]["type"] != "ExternalName" and bool(cluster_ips(service))


def cluster_ips(service: Object) -> Sequence[str]:
    """Return the cluster IPs of a Service; a headless one has none."""
    spec = service["spec"]
    found = spec.get("clusterIPs") or [spec.get("clusterIP")]
    return [ip for ip in found if ip not in (None, "", "None")]


def balancer_ips(service: Object) -> Sequence[str]:
    """Return a Service's load balancer IPs."""
    ingress = service.get("status", {}).get("loadBalancer", {}).get("ingress", ())
    return [each["ip"] for each in ingress]


def own_ips(service: Object) -> Sequence[str]:
    """Return the addresses that no other Service, of any proxy, can have as external IPs."""
    return [*cluster_ips(service), *balancer_ips(service)]


def name_of(port: Any) -> str:
    """Return a port's name; empty for a single port without one."""
    return str(port.get("name", ""))


def addresses_of(node: Object | None) -> Sequence[str]:
    """Return the addresses of a Node."""
    return [each["address"] for each in node["status"]["addresses"]] if node else []


def is_leaving(node: Object | None) -> bool:
    """Return whether a Node is about to be deleted, so that no clients should be sent to it."""
    if node is None:
        return False
    taints = node.get("spec", {}).get("taints", ())
    return "deletionTimestamp" in node["metadata"] or any(each["key"] == LEAVES for each in taints)


def preference(item: Object) -> tuple[int, int]:
    """Return the weight and priority of a slice's endpoints."""
    annotations = item["metadata"].get("annotations", {})
    return int(annotations.get(WEIGHT, 100)), int(annotations.get(PRIORITY, 0))


def endpoints_of(item: Object) -> Iterator[Object]:
    """Yield a slice's endpoints, with weight and priority unless default; headless: none."""
    if LABEL_HEADLESS in labels_of(item):
        return
    weight, priority = preference(item)
    is_plain = (weight, priority) == (100, 0)
    for endpoint in item["endpoints"]:
        yield endpoint if is_plain else {**endpoint, "weight": weight, "priority": priority}


def hold_of(service: Object) -> float:
    """Return the seconds for which a Service's clients wait for an endpoint."""
    text = str(service["metadata"].get("annotations", {}).get(HOLD, "0s"))
    return float(text.removesuffix("s"))


def has_affinity(service: Object) -> bool:
    """Return whether a Service has session affinity."""
    return bool(service["spec"].get("sessionAffinity") == "ClientIP")


def weight_of(endpoint: Object) -> int:
    """Return an endpoint's weight."""
    return int(endpoint.get("weight", 100))


def priority_of(endpoint: Object) -> int:
    """Return an endpoint's priority: endpoints with the lowest number serve."""
    return int(endpoint.get("priority", 0))
