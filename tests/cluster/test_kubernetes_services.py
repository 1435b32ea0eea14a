"""Services of a real API server without controllers, served by Pods that the test runs."""

from __future__ import annotations

import json
from typing import Any
from urllib.request import urlopen

import pytest

from userspace_proxy_testing.kubernetes_service import KubernetesService
from userspace_proxy_testing.kubernetes_services import KubernetesServices

from .control_plane import ControlPlane
from .objects import made, pod

pytestmark = pytest.mark.cluster

NAMESPACE = "shop"


def put_pod(
    control_plane: ControlPlane, name: str, *ports: dict[str, Any], app: str = "web"
) -> None:
    container = {"name": "main", "image": "none", "ports": ports}
    control_plane.apply(pod(name, container, labels={"app": app}), namespace=NAMESPACE)


def pods(control_plane: ControlPlane) -> dict[str, Any]:
    """Return the API server's Pods by name."""
    text = control_plane.kubectl("get", "pods", "--namespace", NAMESPACE, "--output", "json")
    return {item["metadata"]["name"]: item for item in json.loads(text)["items"]}


def get(service: KubernetesService) -> str:
    with urlopen(service.url, timeout=60) as answer:
        text: str = answer.read().decode().strip()
    return text


def test_existing_pods_run_in_the_test_and_are_restored_afterwards(
    control_plane: ControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cluster has no nodes; examples/envtest-pytest creates, drains and deletes Pods."""
    monkeypatch.setenv("NO_PROXY", "*")
    ports = [{"name": "http", "port": 80, "targetPort": "web"}]
    service = made("Service", "web", {"selector": {"app": "web"}, "ports": ports})
    control_plane.apply(made("Namespace", NAMESPACE))
    control_plane.apply(service, namespace=NAMESPACE)
    put_pod(control_plane, "web-a", {"name": "web", "containerPort": 80})
    put_pod(control_plane, "web-b", {"name": "web", "containerPort": 8080})
    put_pod(control_plane, "other", app="other")
    # The Pod's state, in the form that KWOK, a simulator of kubelets, writes.
    elsewhere = {
        "phase": "Running",
        "podIP": "10.244.0.9",
        "podIPs": [{"ip": "10.244.0.9"}],
        "conditions": [{"type": "Ready", "status": "True"}],
    }
    patch = ("patch", "pod", "web-b", "--namespace", NAMESPACE, "--subresource=status", "--patch")
    control_plane.kubectl(*patch, json.dumps({"status": elsewhere}))
    before = pods(control_plane)
    with KubernetesServices(str(control_plane.kubeconfig)) as others:
        running = others.run_pods("shop/web")
        assert [pod.name for pod in running] == ["web-a", "web-b"]
        assert {get(others["shop/web"]) for _ in range(4)} == {"web-a", "web-b"}
    after = pods(control_plane)
    assert {name: item["status"] for name, item in after.items()} == {
        name: item["status"] for name, item in before.items()
    }
    assert all(
        "userspace-proxy" not in str(item["metadata"]["annotations"]) for item in after.values()
    )
