"""Tests of a program that creates Services and Pods, and of a program that dials them.

Run them by ``KUBEBUILDER_ASSETS=… pytest examples/envtest-pytest``. The API server is real, there
are no nodes, and Pods run in this process.
"""

from __future__ import annotations

from collections.abc import Iterator
from urllib.request import urlopen

import pytest
from conftest import ApiServer

from userspace_proxy_testing import KubernetesService, KubernetesServices
from userspace_proxy_testing.backends import HttpRequest

SHOP = """
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ports: [{name: http, port: 80, targetPort: web}]
---
apiVersion: v1
kind: Pod
metadata: {name: web-blue, labels: {app: web}}
spec: {containers: [{name: web, image: shop, ports: [{name: web, containerPort: 8080}]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: web-green, labels: {app: web}}
spec: {containers: [{name: web, image: shop, ports: [{name: web, containerPort: 8081}]}]}
"""


@pytest.fixture
def shop(api_server: ApiServer) -> Iterator[None]:
    """Create the objects that the program under test, a controller, would create."""
    api_server.kubectl("apply", "-f", "-", text=SHOP)
    yield
    api_server.kubectl("delete", "--ignore-not-found", "-f", "-", text=SHOP)


def fetch(service: KubernetesService, path: str = "/") -> str:
    """Fetch a page; represents a program under test that is a client."""
    with urlopen(service.url + path, timeout=5) as answer:
        return str(answer.read(), "utf-8").strip()


@pytest.mark.usefixtures("shop")
def test_clients_reach_the_pods_of_the_controller(kubernetes_services: KubernetesServices) -> None:
    """All Pods that the Service selects run in this process."""
    web = kubernetes_services["default/web"]
    web.run_pods()
    assert {fetch(web) for _ in range(4)} == {"web-blue", "web-green"}


@pytest.mark.usefixtures("shop")
def test_clients_notice_neither_an_unready_nor_a_dead_pod(
    kubernetes_services: KubernetesServices,
) -> None:
    """Clients are served by the third pod."""

    def price(request: HttpRequest) -> str:
        return f"price of {request.path.removeprefix('/')}: 7"

    web = kubernetes_services["default/web"]
    web.run_pods(price)
    web.pods = {**web.pods, "web-canary": price}
    web.pods["web-blue"].is_ready = False
    web.pods["web-green"].stop()
    assert fetch(web, "/tea") == "price of tea: 7"
    assert [*web.stats.endpoints] == ["web-blue", "web-green", "web-canary"]
    assert web.stats["web-blue"].connections == 0
    web.eventually(lambda web: web.decisions[-1].endpoint == str(web.backends[1].address))


@pytest.mark.usefixtures("shop")
def test_a_terminating_pod_gets_no_new_clients(
    api_server: ApiServer, kubernetes_services: KubernetesServices
) -> None:
    """The program under test deletes a Pod; the other Pod serves."""
    web = kubernetes_services["default/web"]
    web.run_pods()
    web.drain(web.pods["web-blue"])
    assert "deletionTimestamp" in api_server.kubectl("get", "pod", "web-blue", "-o", "yaml")
    assert {fetch(web) for _ in range(4)} == {"web-green"}


@pytest.mark.usefixtures("shop")
def test_clients_find_a_service_by_its_dns_name(kubernetes_services: KubernetesServices) -> None:
    """Clients resolve the Service's name as in a cluster."""
    kubernetes_services.run_pods("default/web")
    with kubernetes_services.names("default"), urlopen("http://web/", timeout=5) as answer:
        assert answer.read().startswith(b"web-")
