"""Parts of objects that most of them lack: how they are drawn, and what is to be shown of them.

Rule 1: JSON is read here without the product's readers; for words and numbers that are written in a
syntax of their own, what each means is drawn with it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from random import Random
from typing import Any

from userspace_proxy.model import EndpointSlice, Node, Service

_DOMAIN = "userspace-proxy.io/"
_PROXY = "service.kubernetes.io/service-proxy-name"
_HEADLESS = "service.kubernetes.io/headless"
_CLOUD_WEIGHT = "service.cilium.io/weight"
_TAINT = "ToBeDeletedByClusterAutoscaler"
_TAKES_NONE = ("0.0.0.0/32", "::/128")

Shown = tuple[Any, ...]

_RANGES = {
    "10.0.0.0/8": "10.0.0.0/8",
    " 10.1.2.3/16 ": "10.1.0.0/16",
    "fd00::1/64": "fd00::/64",
    "010.0.0.0/8": "10.0.0.0/8",
    "192.168.7.1": "",
}
"""Networks as they are written, and as they are shown; empty: it can't be read."""
_ADDRESSES = {
    "198.19.0.7": "198.19.0.7",
    "FD00::7:0:1": "fd00::7:0:1",
    "198.19.0.07": "198.19.0.7",
    "198.19.7": "",
}
_BALANCES = {"source-hash": "source-hash", "least-connections": "least-connections", "x": ""}
_HOLDS = {"5s": (5.0, 1000), "2m, 7": (120.0, 7), "0s": None}
_WEIGHTS = {"0": 0, "7": 7, "65535": 65535, "65536": None, "-1": None, "": None}


# -- draws -----------------------------------------------------------------------------------------


def add_details(rng: Random, item: dict[str, Any]) -> None:
    """Add some to an object."""
    {"Service": _add_to_service, "EndpointSlice": _add_to_slice, "Node": _add_to_node}[
        item["kind"]
    ](rng, item)


def _add_to_service(rng: Random, item: dict[str, Any]) -> None:
    spec, metadata = item["spec"], item["metadata"]
    if rng.random() < 0.5:
        found = [rng.choice(list(_ADDRESSES)) for _ in range(rng.choice((1, 2)))]
        modes: tuple[dict[str, str], ...] = ({}, {}, {"ipMode": "VIP"}, {"ipMode": "Proxy"})
        ingress = [{"ip": ip, **rng.choice(modes)} for ip in found]
        item["status"] = {"loadBalancer": {"ingress": ingress}}
    if rng.random() < 0.4:
        spec["loadBalancerSourceRanges"] = rng.sample(list(_RANGES), rng.choice((1, 2, 3)))
    spec["healthCheckNodePort"] = rng.choice((0, 32000 + rng.randrange(3)))
    labels = {_PROXY: rng.choice(("", "other")), _HEADLESS: ""}
    metadata["labels"] = {key: labels[key] for key in labels if rng.random() < 0.2}
    drawn = {
        f"{_DOMAIN}balance": rng.choice(list(_BALANCES)),
        f"{_DOMAIN}hold": rng.choice(list(_HOLDS)),
    }
    metadata["annotations"] = {key: drawn[key] for key in drawn if rng.random() < 0.3}
    metadata["creationTimestamp"] = f"2026-01-0{rng.randint(1, 3)}T00:00:00Z"
    metadata["uid"] = f"uid-{rng.randrange(3)}"


def _add_to_slice(rng: Random, item: dict[str, Any]) -> None:
    for endpoint in item["endpoints"]:
        hints: dict[str, Any] = {}
        for name, words in (("forZones", ("a", "b", "c")), ("forNodes", ("alice", "bob"))):
            if rng.random() < 0.4:
                hints[name] = [{"name": each} for each in rng.sample(words, rng.choice((1, 2)))]
        if hints or rng.random() < 0.2:
            endpoint["hints"] = hints
        if rng.random() < 0.2:
            # Only the first one counts.
            endpoint["addresses"] = [*endpoint["addresses"], "10.244.9.9"]
        elif rng.random() < 0.1:
            # It is none, or of another family.
            wrong = "10.244.1", "::ffff:10.244.1.1", "", "10.244.1.5", "fd00:10:244::1:5"
            endpoint["addresses"] = [rng.choice(wrong)]
    if rng.random() < 0.5:
        more: list[dict[str, Any]] = [
            {"name": "p1", "port": 9090},
            {"name": "p2", "port": 9091, "protocol": "UDP"},
            {"name": "p3", "port": None},
        ]
        item["ports"] = [*item["ports"], *rng.sample(more, rng.choice((1, 2)))]
    keys = f"{_DOMAIN}weight", _CLOUD_WEIGHT, f"{_DOMAIN}priority"
    annotations = {key: rng.choice(list(_WEIGHTS)) for key in keys if rng.random() < 0.3}
    item["metadata"]["annotations"] = annotations
    if rng.random() < 0.1:
        item["metadata"]["labels"][_HEADLESS] = ""


def _add_to_node(rng: Random, item: dict[str, Any]) -> None:
    addresses = item["status"]["addresses"]
    if rng.random() < 0.5:
        addresses.append({"type": "ExternalIP", "address": "198.19.1.1"})
        addresses.append({"type": "Hostname", "address": "10.1.0.251"})
    spec: dict[str, Any] = {"podCIDRs": rng.sample(("10.244.0.0/24", "fd00:10:244::/64"), 1)}
    if rng.random() < 0.3:
        spec["taints"] = [{"key": rng.choice((_TAINT, "other")), "effect": "NoSchedule"}]
    item["spec"] = spec
    if rng.random() < 0.1:
        item["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"


# -- what is to be shown ---------------------------------------------------------------------------


def details_of_service(item: Mapping[str, Any]) -> Shown:
    """Return what is to be shown of a Service."""
    spec, metadata = item["spec"], item["metadata"]
    ingress = ingress_of(item)
    is_balanced = spec["type"] == "LoadBalancer" and spec["externalTrafficPolicy"] == "Local"
    labels, annotations = metadata.get("labels", {}), metadata.get("annotations", {})
    hold = _HOLDS.get(annotations.get(f"{_DOMAIN}hold"))
    balance = _BALANCES.get(annotations.get(f"{_DOMAIN}balance", ""), "")
    return (
        tuple(dict.fromkeys(_ADDRESSES[each["ip"]] for each in ingress if _is_here(each))),
        tuple(dict.fromkeys(_ADDRESSES[each["ip"]] for each in ingress if _is_elsewhere(each))),
        _networks(spec.get("loadBalancerSourceRanges", ())),
        spec.get("healthCheckNodePort", 0) if is_balanced else 0,
        labels.get(_PROXY),
        _HEADLESS in labels,
        balance or "round-robin",
        hold,
        metadata.get("creationTimestamp", ""),
        metadata.get("uid", ""),
    )


def ingress_of(item: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return what load balancers have assigned to a Service."""
    found: list[dict[str, Any]] = item.get("status", {}).get("loadBalancer", {}).get("ingress", [])
    return found


def _is_here(ingress: Mapping[str, Any]) -> bool:
    return bool(_ADDRESSES[ingress["ip"]]) and ingress.get("ipMode", "VIP") == "VIP"


def _is_elsewhere(ingress: Mapping[str, Any]) -> bool:
    return bool(_ADDRESSES[ingress["ip"]]) and ingress.get("ipMode", "VIP") == "Proxy"


def _networks(texts: list[str]) -> Shown:
    found = [_RANGES[text] for text in texts]
    return (*dict.fromkeys(filter(None, found)), *(() if all(found) else _TAKES_NONE))


def details_of_endpoint(endpoint: Mapping[str, Any], item: Mapping[str, Any]) -> Shown:
    """Return what is to be shown of one endpoint of a slice."""
    hints = endpoint.get("hints", {})
    annotations = item["metadata"].get("annotations", {})
    numbers = (_WEIGHTS.get(annotations.get(key)) for key in _weight_keys())
    weight = next((each for each in numbers if each is not None), 100)
    return (
        tuple(each["name"] for each in hints.get("forZones", ())),
        tuple(each["name"] for each in hints.get("forNodes", ())),
        weight,
        _WEIGHTS.get(annotations.get(f"{_DOMAIN}priority")) or 0,
    )


def _weight_keys() -> Iterator[str]:
    yield f"{_DOMAIN}weight"
    yield _CLOUD_WEIGHT


def details_of_node(item: Mapping[str, Any]) -> Shown:
    """Return what is to be shown of a Node."""
    spec = item.get("spec", {})
    is_leaving = any(taint["key"] == _TAINT for taint in spec.get("taints", ()))
    is_leaving = is_leaving or "deletionTimestamp" in item["metadata"]
    return tuple(spec.get("podCIDRs", ())), is_leaving


# -- what is shown ---------------------------------------------------------------------------------


def shown_of_service(service: Service) -> Shown:
    """Return the same of a Service that is shown."""
    hold = service.handling.hold
    return (
        service.load_balancer_ips,
        service.balanced_elsewhere,
        service.load_balancer_source_ranges,
        service.health_check_node_port,
        service.proxy_name,
        service.has_headless_label,
        str(service.handling.balance.value),
        None if hold is None else (hold.seconds, hold.connections),
        service.created,
        service.uid,
    )


def shown_of_endpoints(item: EndpointSlice) -> Iterator[Shown]:
    """Yield the same of each endpoint that is shown."""
    for each in item.endpoints:
        yield each.hinted_zones, each.hinted_nodes, each.weight, each.priority


def shown_of_node(node: Node) -> Shown:
    """Return the same of the Node that is shown."""
    return node.pod_networks, node.is_being_deleted
