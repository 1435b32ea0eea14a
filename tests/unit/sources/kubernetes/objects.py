"""Kubernetes objects as a client writes them."""

from __future__ import annotations

from typing import Any

from userspace_proxy.model import ServiceKey

WEB = ServiceKey("default", "web")


def service(name: str = "web", ip: str = "10.96.7.1", **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"clusterIP": ip, "ports": [{"port": 80}], **spec},
    }


def endpoint_slice(*ips: str, name: str = "web-1", of: str = "web") -> dict[str, Any]:
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": name, "labels": {"kubernetes.io/service-name": of}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": [ip]} for ip in ips],
        "ports": [{"name": "", "port": 8080, "protocol": "TCP"}],
    }


def node(name: str = "alice", zone: str = "east") -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {"topology.kubernetes.io/zone": zone}},
    }


def pod(name: str = "web-1", ip: str = "10.244.0.3", **metadata: Any) -> dict[str, Any]:
    """Return a ready Pod of the Service web, whose container has a port named http."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": "web"}, **metadata},
        "spec": {"containers": [{"name": "web", "ports": [{"name": "http", "containerPort": 80}]}]},
        "status": {"podIP": ip, "conditions": [{"type": "Ready", "status": "True"}]},
    }
