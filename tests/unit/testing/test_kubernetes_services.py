"""The Services of a fake cluster; tests/cluster has a real API server."""

import errno
import socket
import sys
import threading
from urllib.request import urlopen

import pytest

from userspace_proxy.errors import SourceError
from userspace_proxy.testing import kubernetes_services
from userspace_proxy.testing.backends import echo
from userspace_proxy.testing.kubernetes_services import KubernetesServices, UsedServices
from userspace_proxy.testing.report import describe

WEB = {"name": "web", "containerPort": 80}


@pytest.fixture
def services(cluster):
    with KubernetesServices(str(cluster.kubeconfig)) as services:
        yield services


def get(service):
    with urlopen(service.url, timeout=5) as answer:
        return answer.read().decode().strip()


def answers(service, count=4):
    return {get(service) for _ in range(count)}


def refuses(address):
    with socket.socket() as client:
        return client.connect_ex(address) == errno.ECONNREFUSED


def test_pods_that_do_not_exist_are_created_and_answer(cluster, services):
    cluster.put_service()
    web = services["shop/web"]
    assert refuses(web.address)
    web.pods = {"web-1": None, "web-2": lambda _request: "function"}
    assert answers(web) == {"web-1", "function"}
    assert [backend.name for backend in web.backends] == ["web-1", "web-2"]
    assert web.stats["web-1"].connections == 2
    assert repr(web).startswith("<Service shop/web:http at 127.0.0.1:")
    assert "2 Pods run here" in repr(services)


def test_pods_that_exist_run_and_are_as_before_at_the_end(cluster):
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


def test_pods_that_were_created_are_removed_at_the_end(cluster):
    cluster.put_service()
    with KubernetesServices(str(cluster.kubeconfig)) as services:
        services["shop/web"].pods = {"web-1": None, "web-2": None}
        services["shop/web"].drain(services["shop/web"].pods["web-2"])
        assert [*cluster.pods()] == ["web-1", "web-2"]
    assert cluster.pods() == {}


def test_pods_that_are_not_named_any_more_end_and_others_go_on(cluster, services):
    cluster.put_service()
    web = services["shop/web"]
    web.pods = {"web-1": echo, "web-2": None}
    with socket.create_connection(web.backends[0].address, timeout=5) as session:
        web.pods = {"web-1": echo, "web-3": None}
        assert [*web.pods] == ["web-1", "web-3"]
        web.pods = {**web.pods, "web-4": None}
        session.sendall(b"still there")
        assert session.recv(100) == b"still there"
    assert [*cluster.pods()] == ["web-1", "web-3", "web-4"]


def test_a_pod_may_be_made_of_something_else(cluster, services):
    cluster.put_service()
    web = services["shop/web"]
    web.pods = {"web-1": lambda _request: "old"}
    old = web.backends[0].address
    web.pods = {"web-1": lambda _request: "new"}
    assert answers(web) == {"new"}
    assert refuses(old)


def test_a_pod_is_not_made_of_another_one(cluster, services):
    cluster.put_service()
    web = services["shop/web"]
    web.pods = {"web-1": None}
    with pytest.raises(ValueError, match="Pod web-2 is made of <Pod shop/web-1"):
        web.pods = {"web-1": None, "web-2": web.pods["web-1"]}


def test_a_pod_that_is_not_ready_or_terminates_gets_no_new_connections(cluster, services):
    cluster.put_service()
    web = services["shop/web"]
    web.pods = {"web-1": None, "web-2": None, "web-3": None}
    web.pods["web-1"].is_ready = False
    web.drain(web.pods["web-2"])
    assert answers(web) == {"web-3"}


def test_a_pod_that_is_deleted_is_no_endpoint(cluster, services):
    cluster.put_service()
    web = services["shop/web"]
    web.pods = {"web-1": None, "web-2": None}
    cluster.delete_pod("web-1")
    web.eventually(lambda web: len(web.stats.endpoints) == 1)
    assert answers(web) == {"web-2"}


def test_each_port_may_be_served_by_something_else(cluster, services):
    ports = [{"name": "http", "port": 80, "targetPort": "web"}, {"name": "admin", "port": 81}]
    cluster.put_service(ports=ports)
    admin, web = services["shop/web:admin"], services["shop/web"]
    web.pods = {"web-1": {"http": None, "admin": lambda _request: "admin"}}
    assert (get(web), admin.pods) == ("web-1", {})
    assert services["shop/web"] is web
    assert get(admin) == "admin"
    assert (web.stats.connections, admin.stats.connections) == (1, 1)
    web.pods["web-1"].fault("refuse")
    assert web.faults["web-1"] == ["refuse"]


def test_ports_of_a_pod_have_one_address(cluster, services):
    ports = [{"name": "http", "port": 80}, {"name": "admin", "port": 81}]
    cluster.put_service(ports=ports)
    with pytest.raises(ValueError, match="Pod web-1: its ports are at several addresses"):
        services["shop/web"].pods = {"web-1": {"http": None, "admin": "127.9.9.9:1"}}


def test_a_program_may_be_a_pod(cluster, services):
    cluster.put_service()
    web = services["shop/web"]
    web.pods = {"web-1": [sys.executable, "-m", "http.server", "--bind=127.0.0.1", "{port}"]}
    assert "Directory listing" in get(web)


def test_a_service_that_is_written_later_is_waited_for(cluster, services):
    threading.Timer(0.05, cluster.put_service).start()
    assert services["shop/web"].address.ip == "127.0.0.1"


def test_what_is_not_served_is_named_with_the_cause(cluster, services, monkeypatch):
    monkeypatch.setattr(kubernetes_services, "EVENTUALLY_S", 0.05)
    cluster.put_service("headless", clusterIP="None")
    with pytest.raises(LookupError, match="shop/none is not served: there is no such Service"):
        services["shop/none"]
    with pytest.raises(LookupError, match=r"shop/headless is not served: .*headless"):
        services["shop/headless"]


def test_a_pod_that_is_never_ready_is_named_with_its_state(cluster, services, monkeypatch):
    cluster.put_service()
    web = services["shop/web"]
    web.pods = {"web-1": None}
    monkeypatch.setattr(kubernetes_services, "EVENTUALLY_S", 0.05)
    cluster.thread.do(cluster.api.be_silent)
    what = r"Pod web-1 is not ready, but after 0\.05 s its endpoint 127\..* of shop/web is ready"
    with pytest.raises(AssertionError, match=what):
        web.pods["web-1"].is_ready = False


def test_a_service_without_a_selector_or_pods_has_nothing_to_run(cluster, services):
    cluster.put_service("external", selector=None, clusterIP="10.96.0.11")
    cluster.put_service()
    with pytest.raises(ValueError, match="Service shop/external has no selector"):
        services.run_pods("shop/external")
    with pytest.raises(LookupError, match="no Pod in shop has the labels app=web"):
        services.run_pods("shop/web")


def test_a_service_that_is_gone_has_no_address(cluster, services):
    cluster.put_service()
    web = services["shop/web"]
    cluster.thread.do(lambda: cluster.api.delete("Service", "web", "shop"))
    web.eventually(lambda web: not web.views())
    assert repr(web) == "<Service shop/web:http, not served>"
    with pytest.raises(LookupError, match="shop/web is not served"):
        _ = web.address


def test_a_server_that_ends_first_leaves_no_backend(cluster):
    cluster.put_service()
    with KubernetesServices(str(cluster.kubeconfig)) as services:
        services["shop/web"].pods = {"web-1": None}
        address = services["shop/web"].backends[0].address
        cluster.stop()
    assert refuses(address)
    services.close()


def test_a_cluster_that_cannot_be_read_is_an_error_and_leaves_no_thread(cluster, monkeypatch):
    monkeypatch.setattr(kubernetes_services, "_ANSWER_S", 0.2)
    cluster.stop()
    before = threading.active_count()
    services = KubernetesServices(str(cluster.kubeconfig))
    with pytest.raises(SourceError, match=r"cannot read the cluster of .*Connection refused"):
        services.start()
    assert threading.active_count() == before


def test_a_report_has_the_pods_of_the_services_that_were_used_and_their_connections(
    cluster, services
):
    cluster.put_service()
    cluster.put_service("other", clusterIP="10.96.0.11")
    cluster.put_service("headless", clusterIP="None")
    web = services["shop/web"]
    web.pods = {"web-1": None, "web-2": None}
    web.pods["web-2"].stop()
    get(web)
    web.eventually(lambda web: web.decisions)
    text = describe(UsedServices(services))
    assert f"shop/web: backends web-1 at {web.backends[0].address}, web-2 at" in text
    assert "(stopped)" in text
    assert " → " in text
    assert "other" not in text
    assert "headless" not in text
