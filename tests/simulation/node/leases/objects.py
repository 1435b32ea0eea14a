"""Makes objects of the Kubernetes API, as JSON."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .plan import ServiceSpec

Item = dict[str, Any]
DOMAIN = "userspace-proxy.io/"
PORT = 8080


def service_object(spec: ServiceSpec) -> Item:
    """Return a Service."""
    wanted = {
        "hold": f"{spec.hold_s}s" if spec.hold_s else "",
        "wake": spec.wake,
        "idle-after": f"{spec.idle_s}s" if spec.idle_s else "",
    }
    ip = "None" if spec.is_headless else f"10.96.0.{spec.number + 1}"
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "namespace": spec.namespace,
            "name": spec.name,
            "uid": f"uid-{spec.key}",
            "annotations": {DOMAIN + name: text for name, text in wanted.items() if text},
        },
        "spec": {
            "type": "ClusterIP",
            "clusterIP": ip,
            "clusterIPs": [ip],
            "selector": dict(spec.selector),
            "ports": [{"name": "", "port": 80, "protocol": "TCP"}],
            "sessionAffinity": "None",
        },
    }


def slice_object(namespace: str, service: str, endpoints: Iterable[Item]) -> Item:
    """Return the slice of a Service."""
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "addressType": "IPv4",
        "metadata": {
            "namespace": namespace,
            "name": f"{service}-1",
            "labels": {"kubernetes.io/service-name": service},
        },
        "ports": [{"name": "", "port": PORT, "protocol": "TCP"}],
        "endpoints": list(endpoints),
    }


def node_object(name: str, uid: str) -> Item:
    """Return a Node."""
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "uid": uid, "labels": {"kubernetes.io/hostname": name}},
        "spec": {},
        "status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.1"}]},
    }


def autoscaler_object(namespace: str, kind: str, name: str, least: int | None) -> Item:
    """Return a HorizontalPodAutoscaler of a workload."""
    target = {"kind": {"deployment": "Deployment"}.get(kind, "StatefulSet"), "name": name}
    spec: Item = {"scaleTargetRef": {"apiVersion": "apps/v1", **target}, "maxReplicas": 5}
    if least is not None:
        spec["minReplicas"] = least
    return {"metadata": {"namespace": namespace, "name": f"of-{name}"}, "spec": spec}


def budget_object(namespace: str, labels: dict[str, str], wish: Item) -> Item:
    """Return a PodDisruptionBudget."""
    spec = {"selector": {"matchLabels": labels}, **wish}
    name = "-".join(("budget", *labels.values()))
    return {"metadata": {"namespace": namespace, "name": name}, "spec": spec}
