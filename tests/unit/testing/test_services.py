"""What Services of a test are, whatever serves them; test_service_proxy.py tries the rest."""

import socket

import pytest

from userspace_proxy.model import ServiceKey
from userspace_proxy.testing.service_proxy import ServiceProxy
from userspace_proxy.testing.services import Services


@pytest.fixture
def proxy():
    with ServiceProxy() as proxy:
        yield proxy


def test_the_base_serves_nothing():
    base = Services()
    assert base.services == ()
    with pytest.raises(NotImplementedError):
        base.service("web", backends=0)


def test_a_cluster_ip_may_be_chosen_and_its_backends_have_its_family(proxy):
    web = proxy.service("web", port=8080, cluster_ip="::1")
    assert web.host == "::1"
    assert web.url == f"http://[::1]:{web.port}"
    assert web.backends[0].address.ip == "::1"
    with socket.create_connection(web.address, timeout=5) as client:
        client.sendall(b"GET / HTTP/1.0\r\nConnection: close\r\n\r\n")
        assert client.makefile("rb").read().endswith(b"web-1\n")


def test_a_terminating_endpoint_is_put_as_serving(proxy):
    web = proxy.service("web", backends=2)
    web.drain(web.backends[0])
    (port,) = (p for p in proxy.status().ports if p.plan.key.name.service == web.key)
    terminating = [e.verdict.address for e in port.endpoints if not e.verdict.is_usable]
    assert terminating == [web.backends[0].address]


def test_a_service_that_was_removed_is_not_listed(proxy):
    web = proxy.service("web", namespace="shop")
    assert web.key == ServiceKey("shop", "web")
    web.remove()
    assert proxy.services == ()
    assert repr(web) == "<Service shop/web, not served>"


def test_what_replaced_it_stays_when_it_is_removed_again(proxy):
    first = proxy.service("web")
    second = proxy.service("web")
    first.remove()
    assert proxy.services == (second,)
    with socket.create_connection(second.address, timeout=5):
        pass
