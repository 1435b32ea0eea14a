"""Services of a real API server without controllers, served by Pods that the test runs."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from typing import Any
from urllib.request import urlopen

import pytest

from userspace_proxy_testing.backends import echo
from userspace_proxy_testing.kubernetes_service import KubernetesService
from userspace_proxy_testing.kubernetes_services import KubernetesServices

from .control_plane import ControlPlane
from .objects import made, pod

pytestmark = pytest.mark.cluster

NAMESPACE = "shop"


@pytest.fixture
def services(control_plane: ControlPlane, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The plugin's fixture, for a namespace that is emptied after each test."""
    monkeypatch.setenv("NO_PROXY", "*")
    control_plane.apply(made("Namespace", NAMESPACE))
    with KubernetesServices(str(control_plane.kubeconfig)) as services:
        yield services
    assert pods(control_plane) == {}
    for kind in ("services", "endpointslices.discovery.k8s.io"):
        control_plane.kubectl("delete", kind, "--all", "--namespace", NAMESPACE)


def put_service(control_plane: ControlPlane) -> None:
    ports = [{"name": "http", "port": 80, "targetPort": "web"}]
    spec = {"selector": {"app": "web"}, "ports": ports}
    control_plane.apply(made("Service", "web", spec), namespace=NAMESPACE)


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


def answers(service: KubernetesService, count: int = 4) -> set[str]:
    return {get(service) for _ in range(count)}


def test_pods_serve_a_service_of_the_cluster(
    control_plane: ControlPlane, services: KubernetesServices
) -> None:
    put_service(control_plane)
    web = services["shop/web"]
    web.pods = {"web-1": None, "web-2": lambda _request: "from a function"}
    assert answers(web) == {"web-1", "from a function"}
    status = pods(control_plane)["web-1"]["status"]
    assert status["phase"] == "Running"
    assert {c["type"]: c["status"] for c in status["conditions"]}["Ready"] == "True"
    web.pods = {"web-2": None}
    assert answers(web) == {"web-2"}
    assert [*pods(control_plane)] == ["web-2"]
    assert web.stats["web-2"].connections == 4
    web.eventually(lambda web: len(web.decisions) >= 8)


@pytest.mark.usefixtures("services")
def test_existing_pods_run_in_the_test_and_are_restored_afterwards(
    control_plane: ControlPlane,
) -> None:
    put_service(control_plane)
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
        assert answers(others["shop/web"]) == {"web-a", "web-b"}
    after = pods(control_plane)
    assert {name: item["status"] for name, item in after.items()} == {
        name: item["status"] for name, item in before.items()
    }
    assert all(
        "userspace-proxy" not in str(item["metadata"]["annotations"]) for item in after.values()
    )
    control_plane.kubectl("delete", "pods", "--all", "--namespace", NAMESPACE)


def test_a_terminating_pod_keeps_connections_but_gets_no_new_ones(
    control_plane: ControlPlane, services: KubernetesServices
) -> None:
    put_service(control_plane)
    web = services["shop/web"]
    web.pods = {"web-1": echo}
    with socket.create_connection(web.address, timeout=60) as session:
        web.pods = {**web.pods, "web-2": None}
        web.drain(web.pods["web-1"])
        assert "deletionTimestamp" in pods(control_plane)["web-1"]["metadata"]
        session.sendall(b"after")
        assert session.recv(100) == b"after"
        assert answers(web) == {"web-2"}
