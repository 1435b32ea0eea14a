"""One Service of a fake cluster, and its Pods."""

import socket

import pytest

from userspace_proxy_testing.backends import echo

from .clusters import answers, get, refuses


def test_missing_pods_are_created_and_serve(cluster, services):
    cluster.put_service()
    web = services["shop/web"]
    assert refuses(web.address)
    web.pods = {"web-1": None, "web-2": lambda _request: "function"}
    assert answers(web) == {"web-1", "function"}
    assert [backend.name for backend in web.backends] == ["web-1", "web-2"]
    assert web.stats["web-1"].connections == 2
    assert repr(web).startswith("<Service shop/web:http at 127.0.0.1:")
    assert "2 Pods run here" in repr(services)


def test_pods_missing_from_an_assignment_end_and_other_pods_continue(cluster, services):
    cluster.put_service()
    web = services["shop/web"]
    web.pods = {"web-1": echo, "web-2": None}
    with socket.create_connection(web.backends[0].address, timeout=60) as session:
        web.pods = {"web-1": echo, "web-3": None}
        assert [*web.pods] == ["web-1", "web-3"]
        web.pods = {**web.pods, "web-4": None}
        session.sendall(b"still there")
        assert session.recv(100) == b"still there"
    assert [*cluster.pods()] == ["web-1", "web-3", "web-4"]


def test_a_pods_backend_can_be_replaced(cluster, services):
    cluster.put_service()
    web = services["shop/web"]
    web.pods = {"web-1": lambda _request: "old"}
    old = web.backends[0].address
    web.pods = {"web-1": lambda _request: "new"}
    assert answers(web) == {"new"}
    assert refuses(old)


def test_a_pod_of_another_name_is_rejected_as_a_backend(cluster, services):
    cluster.put_service()
    web = services["shop/web"]
    web.pods = {"web-1": None}
    with pytest.raises(ValueError, match="Pod web-2 is made of <Pod shop/web-1"):
        web.pods = {"web-1": None, "web-2": web.pods["web-1"]}


def test_an_unready_or_terminating_pod_receives_no_new_connections(cluster, services):
    cluster.put_service()
    web = services["shop/web"]
    web.pods = {"web-1": None, "web-2": None, "web-3": None}
    web.pods["web-1"].is_ready = False
    web.drain(web.pods["web-2"])
    assert answers(web) == {"web-3"}


def test_a_deleted_pod_is_no_longer_an_endpoint(cluster, services):
    cluster.put_service()
    web = services["shop/web"]
    web.pods = {"web-1": None, "web-2": None}
    cluster.delete_pod("web-1")
    web.eventually(lambda web: len(web.stats.endpoints) == 1)
    assert answers(web) == {"web-2"}


def test_each_port_of_a_pod_may_have_its_own_backend(cluster, services):
    ports = [{"name": "http", "port": 80, "targetPort": "web"}, {"name": "admin", "port": 81}]
    cluster.put_service(ports=ports)
    admin, web = services["shop/web:admin"], services["shop/web"]
    web.pods = {"web-1": {"http": None, "admin": lambda _request: "admin"}}
    assert get(web) == "web-1"
    assert admin.pods == web.pods
    assert [backend.name for backend in admin.backends] == ["web-1"]
    assert services["shop/web"] is web
    assert get(admin) == "admin"
    assert (web.stats.connections, admin.stats.connections) == (1, 1)
    web.pods["web-1"].fault("refuse")
    assert web.faults["web-1"] == ["refuse"]


def test_a_service_without_a_selector_or_pods_cannot_run_pods(cluster, services):
    cluster.put_service("external", selector=None, clusterIP="10.96.0.11")
    cluster.put_service()
    with pytest.raises(ValueError, match="Service shop/external has no selector"):
        services.run_pods("shop/external")
    with pytest.raises(LookupError, match="no Pod in shop has the labels app=web"):
        services.run_pods("shop/web")


def test_a_misspelt_attribute_is_an_error(cluster, services):
    cluster.put_service()
    with pytest.raises(AttributeError, match="has no attribute 'pod'"):
        services["shop/web"].pod = {"web-1": None}


def test_a_deleted_service_has_no_address(cluster, services):
    cluster.put_service()
    web = services["shop/web"]
    cluster.thread.do(lambda: cluster.api.delete("Service", "web", "shop"))
    web.eventually(lambda web: not web.views())
    assert repr(web) == "<Service shop/web:http, not served>"
    with pytest.raises(LookupError, match="shop/web is not served"):
        _ = web.address
