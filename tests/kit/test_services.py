"""The behaviour of a test's Services that is common to all kinds."""

import socket

import pytest

from userspace_proxy.model import ServiceKey
from userspace_proxy_testing.backends import echo


def test_a_cluster_ip_may_be_chosen_and_backends_share_its_family(proxy):
    web = proxy.service("web", port=8080, cluster_ip="::1")
    assert web.host == "::1"
    assert web.url == f"http://[::1]:{web.port}"
    assert web.backends[0].address.ip == "::1"
    with socket.create_connection(web.address, timeout=60) as client:
        client.sendall(b"GET / HTTP/1.0\r\nConnection: close\r\n\r\n")
        assert client.makefile("rb").read().endswith(b"web-1\n")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        pytest.param(
            {"cluster_ip": "10.96.0.10"},
            "cluster_ip: 10.96.0.10 has no effect: without steering clients dial loopback "
            "(give one of 127.0.0.0/8, or ::1; service_network has ClusterIPs of every kind)",
            id="cluster-ip",
        ),
        pytest.param(
            {"path": "auto"},
            "path: auto has no effect: without steering all is userspace "
            "(service_network has nftables)",
            id="path",
        ),
        pytest.param(
            {"protocol": "UDP", "proxy_protocol": "v2"},
            "proxy_protocol: it has no effect: only TCP connections have a header",
            id="proxy-protocol-of-udp",
        ),
    ],
)
def test_an_argument_without_effect_is_rejected_and_replaces_no_service(proxy, arguments, said):
    web = proxy.service("web")
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the whole text is compared
        proxy.service("web", **arguments)
    assert str(caught.value) == said
    assert proxy.services == (web,)


def test_a_fault_without_endpoints_is_an_error(proxy):
    web = proxy.service("web", backends=0)
    with pytest.raises(LookupError, match="default/web has no endpoint that could suffer a fault"):
        web.fault("latency", latency=100)


def test_draining_an_excluded_backend_is_an_error(proxy):
    web = proxy.service("web", backends=2)
    web.endpoints = [web.backends[1]]
    with pytest.raises(LookupError, match="is no endpoint of default/web: endpoints were set"):
        web.drain(web.backends[0])
    web.drain(web.backends[1])
    assert [backend.state for backend in web.backends] == ["", "draining"]


def test_a_draining_backend_is_an_unusable_endpoint(proxy):
    web = proxy.service("web", backends=2)
    web.drain(web.backends[0])
    (port,) = (p for p in proxy.status().ports if p.plan.key.name.service == web.key)
    terminating = [e.address for e in port.endpoints if not e.is_usable]
    assert terminating == [str(web.backends[0].address)]


def test_a_removed_service_is_not_listed(proxy):
    web = proxy.service("web", namespace="shop")
    assert web.key == ServiceKey("shop", "web")
    web.remove()
    assert proxy.services == ()
    assert repr(web) == "<Service shop/web, not served>"


def test_removing_a_replaced_service_does_not_remove_its_replacement(proxy):
    first = proxy.service("web")
    second = proxy.service("web")
    first.remove()
    assert proxy.services == (second,)
    with socket.create_connection(second.address, timeout=60):
        pass


@pytest.mark.parametrize(("name", "meant"), [("prot", "port"), ("backend", "backends")])
def test_an_unknown_argument_is_an_error_with_a_suggestion(proxy, name, meant):
    web = proxy.service("web")
    with pytest.raises(TypeError, match=rf"argument '{name}' \(did you mean {meant}\?\)"):
        proxy.service("web", **{name: 80})
    assert proxy.services == (web,)


def test_an_invalid_argument_stops_the_started_backends(proxy):
    with pytest.raises(ValueError, match="port: 0 is not in"):
        proxy.service("web", port=0, backends=1)
    assert proxy.services == ()


@pytest.mark.parametrize("given", ["127.0.0.1:80", None, [None]], ids=["text", "none", "item"])
def test_invalid_endpoints_are_rejected_and_change_nothing(proxy, given):
    web = proxy.service("web")
    with pytest.raises(TypeError, match="expected"):
        web.endpoints = given
    assert web.endpoints == [web.backends[0].address]


def test_only_a_services_own_backends_can_be_drained(proxy):
    web, other = proxy.service("web"), proxy.service("other")
    with pytest.raises(LookupError, match="default/web has no backend <Backend other-1 at"):
        web.drain(other.backends[0])


def test_a_service_lists_only_its_own_decisions(proxy):
    first = proxy.service("web", backends=[echo])
    with socket.create_connection(first.address, timeout=60) as client:
        client.sendall(b"a")
        assert client.recv(1) == b"a"
    first.eventually(lambda web: web.decisions)
    with socket.create_server(("127.0.0.1", 0)) as elsewhere:
        first.endpoints = [elsewhere.getsockname()]
        with socket.create_connection(first.address, timeout=60):
            elsewhere.accept()[0].close()
            second = proxy.service("web")
        # The first Service's second connection ends after that Service was replaced.
        while len(first.decisions) < 2:
            proxy.settled()
    assert second.decisions == []
    with socket.create_connection(second.address, timeout=60):
        pass
    second.eventually(lambda web: len(web.decisions) == 1)
    assert len(first.decisions) == 2


def test_the_handle_of_a_replaced_service_has_no_effect(proxy):
    first = proxy.service("web")
    second = proxy.service("web")
    second.fault("refuse")
    for call in (
        lambda: first.fault("latency", latency=1),
        lambda: first.backends[0].fault("latency", latency=1),
        lambda: setattr(first, "next_endpoint", second.backends[0]),
        lambda: first.address,
        lambda: first.stats,
        lambda: first.faults,
    ):
        with pytest.raises(LookupError, match="default/web was removed or replaced"):
            call()
    first.heal()
    assert second.faults == {"web-1": ["refuse"]}
    assert repr(first) == "<Service default/web, not served>"
