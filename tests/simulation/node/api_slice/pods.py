"""Endpoints that the source derives from Pods: how Pods are drawn, and what is to be shown.

Rule 1: a Service's endpoints are those of the Pods that its selector matches, in the order of
their names, without those that have ended: one slice for each family and set of port numbers.
Rule 2: JSON is read here without the product's readers.

Source: Kubernetes documentation, Service and EndpointSlice.
"""

from __future__ import annotations

import ipaddress
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from random import Random
from typing import Any

from userspace_proxy.cluster.store import ServiceState

from .draft import Draft

Slices = list[tuple[Any, ...]]
_NAMESPACES = ("default", "shop")
_FAMILIES = (["IPv4"], ["IPv4"], ["IPv6"], ["IPv4", "IPv6"])
_STATES = (
    {"phase": "Running", "ready": "True"},
    {"phase": "Running", "ready": "True"},
    {"phase": "Running", "ready": "False"},
    {"phase": "Pending", "ready": "False"},
    {"phase": "Succeeded", "ready": "False"},
    {"phase": "Failed", "ready": "True"},
)


# -- draws -----------------------------------------------------------------------------------------


def draw_pods(draft: Draft) -> list[dict[str, Any]]:
    """Have Pods written and deleted; return those that are there at the beginning."""
    rng = draft.rng
    first = [_pod(rng) for _ in range(rng.randint(0, 5))]
    for _ in range(rng.choice((3, 10, 30))):
        at = draft.moment()
        for _ in range(rng.choice((1, 1, 2, 4))):
            pod = _pod(rng)
            if rng.random() < 0.3:
                metadata = pod["metadata"]
                draft.step(at, "delete", "Pod", metadata["namespace"], metadata["name"])
            else:
                draft.put(min(at, draft.chaos_s), pod)
            at += rng.choice((0.0, 0.001, 0.5)) * rng.random()
    if rng.random() < 0.25:
        # Perhaps at a start, when nothing of them is known.
        at = rng.choice((0.0, draft.moment()))
        for server in (0, 1):
            draft.step(at, "refuse", server, rng.choice((403, 403, 503)), 6.0, "pods", 0)
        if at:
            draft.step(at, "agent-restart", rng.random() < 0.5)
    return first


def add_selection(rng: Random, item: dict[str, Any]) -> None:
    """Have a Service select its endpoints in another way than the usual one."""
    spec = item["spec"]
    if rng.random() < 0.15:
        # Its endpoints are those that are written.
        spec["clusterIP"] = "None"
        spec.pop("clusterIPs", None)
    spec["ipFamilies"] = rng.choice(_FAMILIES)
    if rng.random() < 0.3:
        spec["publishNotReadyAddresses"] = True
    if rng.random() < 0.4:
        spec["selector"] = {"app": "web", "tier": rng.choice(("a", "b"))}
    for port in spec["ports"]:
        port["targetPort"] = rng.choice((8080, 9090, "http", "dns", "absent"))


def _pod(rng: Random) -> dict[str, Any]:
    name = f"pod-{rng.randrange(6)}"
    metadata: dict[str, Any] = {"name": name, "namespace": rng.choice(_NAMESPACES)}
    labels = {"app": rng.choice(("web", "web", "web", "db")), "tier": rng.choice(("a", "b"))}
    metadata["labels"] = {key: labels[key] for key in labels if rng.random() < 0.85}
    if rng.random() < 0.3:
        metadata["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    if rng.random() < 0.2:
        metadata["annotations"] = {"userspace-proxy.io/ports": "8080=37741, 9090/UDP=40001"}
    state = rng.choice(_STATES)
    ips = [f"10.244.7.{rng.randint(1, 9)}", f"fd00:10:244::7:{rng.randint(1, 9)}"]
    rng.shuffle(ips)
    ports = [
        {"name": "http", "containerPort": rng.choice((8080, 8081))},
        {"name": "dns", "containerPort": 9090, "protocol": "UDP"},
    ]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": {"nodeName": rng.choice(("alice", "bob")), "containers": [{"ports": ports}]},
        "status": {
            "phase": state["phase"],
            "podIPs": [{"ip": ip} for ip in ips[: rng.choice((0, 1, 2, 2))]],
            "conditions": [{"type": "Ready", "status": state["ready"]}],
        },
    }


# -- what is to be shown ---------------------------------------------------------------------------


def is_derived(service: Mapping[str, Any]) -> bool:
    """Return whether the endpoints of a Service are its Pods."""
    cluster_ip: str = service["spec"]["clusterIP"]
    return cluster_ip != "None"


def expected_slices(service: Mapping[str, Any], pods: Iterable[Mapping[str, Any]]) -> Slices:
    """Return what is to be shown of the endpoints of a Service, in the order of its slices.

    Args:
        pods: All of its namespace.
    """
    spec = service["spec"]
    families = spec.get("ipFamilies") or ["IPv4"]
    groups: dict[tuple[Any, ...], list[tuple[Any, ...]]] = defaultdict(list)
    for pod in sorted(pods, key=lambda each: str(each["metadata"]["name"])):
        labels = pod["metadata"]["labels"]
        matches = all(labels.get(key) == value for key, value in spec["selector"].items())
        if not matches or pod["status"]["phase"] in ("Succeeded", "Failed"):
            continue
        for family, ip in _addresses(pod):
            if family in families:
                groups[family, _ports(spec, pod)].append(_endpoint(spec, pod, ip))
    for family in families:
        if not any(family == other for other, _ in groups):
            groups[family, ()] = []
    return sorted((*group, tuple(endpoints)) for group, endpoints in groups.items())


def _addresses(pod: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for item in pod["status"]["podIPs"]:
        yield f"IPv{ipaddress.ip_address(item['ip']).version}", item["ip"]


def _ports(spec: Mapping[str, Any], pod: Mapping[str, Any]) -> tuple[tuple[str, int, str], ...]:
    named = {
        (port["name"], port.get("protocol", "TCP")): port["containerPort"]
        for port in pod["spec"]["containers"][0]["ports"]
    }
    moved = "annotations" in pod["metadata"]
    elsewhere = {(8080, "TCP"): 37741, (9090, "UDP"): 40001} if moved else {}
    found = []
    for port in spec["ports"]:
        target, protocol = port.get("targetPort", port["port"]), port["protocol"]
        number = named.get((target, protocol)) if isinstance(target, str) else target
        if number:
            found.append((port["name"], elsewhere.get((number, protocol), number), protocol))
    return tuple(sorted(found))


def _endpoint(spec: Mapping[str, Any], pod: Mapping[str, Any], ip: str) -> tuple[Any, ...]:
    is_ready = pod["status"]["conditions"][0]["status"] == "True"
    is_leaving = "deletionTimestamp" in pod["metadata"]
    takes = spec.get("publishNotReadyAddresses", False) or (is_ready and not is_leaving)
    return ip, takes, is_ready, is_leaving, pod["spec"]["nodeName"]


def shown_slices(state: ServiceState) -> Slices:
    """Return what is shown of the endpoints of a Service."""
    return sorted(
        (
            str(item.family),
            tuple((port.name, port.port, port.protocol) for port in item.ports),
            tuple((e.ip, e.ready, e.serving, e.terminating, e.node) for e in item.endpoints),
        )
        for item in state.slices
    )
