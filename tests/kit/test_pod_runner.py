"""Pods of a fake cluster that run in a test."""

import pytest

from userspace_proxy.model.pod_endpoints import PodPort
from userspace_proxy_testing import pod_runner
from userspace_proxy_testing.kubernetes_services import KubernetesServices

from .clusters import answers, get, refuses

WEB = {"name": "web", "containerPort": 80}


def test_existing_pods_run_and_are_restored_at_the_end(cluster):
    cluster.put_service()
    cluster.put_pod("web-a", WEB)
    cluster.put_pod("web-b", {"name": "web", "containerPort": 8080})
    cluster.put_pod("db-a", app="db")
    before = {name: pod["status"] for name, pod in cluster.pods().items()}
    with KubernetesServices(str(cluster.kubeconfig)) as services:
        running = services.run_pods("shop/web")
        assert [pod.name for pod in running] == ["web-a", "web-b"]
        assert answers(services["shop/web"]) == {"web-a", "web-b"}
        addresses = [backend.address for pod in running for backend in pod.backends.values()]
    assert {name: pod["status"] for name, pod in cluster.pods().items()} == before
    assert all(refuses(address) for address in addresses)


def test_created_pods_are_removed_at_the_end(cluster):
    cluster.put_service()
    with KubernetesServices(str(cluster.kubeconfig)) as services:
        services["shop/web"].pods = {"web-1": None, "web-2": None}
        services["shop/web"].drain(services["shop/web"].pods["web-2"])
        assert [*cluster.pods()] == ["web-1", "web-2"]
    assert cluster.pods() == {}


def test_services_share_pods_and_their_ports(cluster, services):
    cluster.put_service()
    more = [{"name": "http", "port": 80, "targetPort": "web"}, {"name": "admin", "port": 81}]
    cluster.put_service("all", clusterIP="10.96.0.11", selector={"app": "web"}, ports=more)
    cluster.put_pod("web-1", WEB)
    web, both = services["shop/web"], services["shop/all"]
    (pod,) = web.run_pods(lambda _request: "kept")
    assert both.run_pods() == [pod]
    assert (get(web), get(both), get(services["shop/all:admin"])) == ("kept", "kept", "web-1")
    pod.is_ready = False
    assert [service.stats.state for service in (web, both)] != ["Served by 1 endpoint"] * 2
    pod.is_ready = True
    both.pods = {"web-1": lambda _request: "new"}
    assert web.backends == both.backends
    assert (get(web), get(both)) == ("new", "new")


def test_running_pods_continue_when_more_pods_are_added(cluster, services):
    cluster.put_service()
    cluster.put_pod("web-1", WEB)
    (first,) = services.run_pods("shop/web")
    address = first.backends[PodPort(80, "TCP")].address
    cluster.put_pod("web-2", WEB)
    assert [pod.name for pod in services.run_pods("shop/web")] == ["web-1", "web-2"]
    assert first.backends[PodPort(80, "TCP")].address == address


def test_a_deleted_pod_can_be_run_again(cluster, services):
    cluster.put_service()
    web = services["shop/web"]
    web.pods = {"web-1": None}
    old = web.backends[0].address
    cluster.delete_pod("web-1")
    web.pods = {"web-1": None}
    assert answers(web) == {"web-1"}
    assert refuses(old)
    web.drain(web.pods["web-1"])
    web.pods = {"web-1": None, "web-2": None}
    assert web.pods["web-1"].is_terminating
    assert answers(web) == {"web-2"}


def test_a_pod_recreated_by_a_controller_is_restored_at_the_end(cluster):
    cluster.put_service()
    with KubernetesServices(str(cluster.kubeconfig)) as services:
        for uid in ("1", "2"):
            metadata = {"labels": {"app": "web"}, "uid": uid}
            spec = {"containers": [{"name": "main", "ports": [WEB]}]}
            cluster.put("Pod", "web-1", spec, metadata=metadata, status={"phase": "Pending"})
            services.run_pods("shop/web")
            assert answers(services["shop/web"]) == {"web-1"}
    assert cluster.pods()["web-1"]["status"] == {"phase": "Pending"}


def test_ports_of_a_pod_at_several_addresses_are_rejected(cluster, services):
    ports = [{"name": "http", "port": 80}, {"name": "admin", "port": 81}]
    cluster.put_service(ports=ports)
    with pytest.raises(ValueError, match="Pod web-1: its ports are at several addresses"):
        services["shop/web"].pods = {"web-1": {"http": None, "admin": "127.9.9.9:1"}}


def test_an_endpoint_unlike_its_pod_is_reported_with_both_states(cluster, services, monkeypatch):
    cluster.put_service()
    web = services["shop/web"]
    web.pods = {"web-1": None}
    monkeypatch.setattr(pod_runner, "EVENTUALLY_S", 0.05)
    cluster.thread.do(cluster.api.be_silent)
    what = r"Pod web-1 is not ready, but after 0\.05 s its endpoint 127\..* of shop/web is ready"
    with pytest.raises(AssertionError, match=what):
        web.pods["web-1"].is_ready = False


def test_an_api_server_that_stops_first_leaves_no_backend(cluster):
    cluster.put_service()
    with KubernetesServices(str(cluster.kubeconfig)) as services:
        services["shop/web"].pods = {"web-1": None}
        address = services["shop/web"].backends[0].address
        cluster.stop()
    assert refuses(address)
    services.close()


def test_pods_of_an_ipv6_service_have_ipv6_addresses(cluster, services):
    cluster.put_service(clusterIP="fd00:96::10", ipFamilies=["IPv6"])
    web = services["shop/web"]
    web.pods = {"web-1": None, "web-2": None}
    assert answers(web) == {"web-1", "web-2"}
    assert {backend.address.ip for backend in web.backends} == {web.address.ip} == {"::1"}
