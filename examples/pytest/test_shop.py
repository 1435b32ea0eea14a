"""Tests of a program that talks to a Service: run them by ``pytest examples/pytest``.

No configuration is needed: the fixture ``service_proxy`` is part of the package.
"""

import socket
import time
from urllib.request import urlopen

import pytest

from userspace_proxy_testing import ProxiedService, ServiceProxy
from userspace_proxy_testing.backends import HttpRequest, echo, http


def fetch(service: ProxiedService, path: str = "/") -> str:
    """Fetch a page of a Service; represents the program under test."""
    with urlopen(service.url + path, timeout=5) as answer:
        return str(answer.read(), "utf-8").strip()


def test_backends_take_turns(service_proxy: ServiceProxy) -> None:
    """Two backends answer with their names."""
    web = service_proxy.service("web", backends=2)
    assert [fetch(web) for _ in range(4)] == ["web-1", "web-2", "web-1", "web-2"]


def test_a_dead_backend_fails_no_request(service_proxy: ServiceProxy) -> None:
    """The proxy dials the next backend, and counts the saved connection."""
    web = service_proxy.service("web", backends=2)
    web.backends[0].stop()
    assert [fetch(web) for _ in range(3)] == ["web-2"] * 3
    assert web.stats.saved == 1


def test_a_restarted_backend_is_used_again(service_proxy: ServiceProxy) -> None:
    """While all backends are stopped, the client is refused; then a backend is started again."""
    web = service_proxy.service("web", backends=1)
    web.backends[0].stop()
    with pytest.raises(OSError, match="reset by peer"):
        fetch(web)
    web.backends[0].start()
    web.eventually(lambda web: fetch(web) == "web-1")


def test_a_rolling_update_ends_no_connection(service_proxy: ServiceProxy) -> None:
    """The connections of a terminating backend stay open; new ones go to the other backend."""
    web = service_proxy.service("web", backends=[echo, echo])
    with socket.create_connection(web.address, timeout=5) as session:
        session.sendall(b"before")
        assert session.recv(100) == b"before"
        web.drain(web.backends[0])
        session.sendall(b"after")
        assert session.recv(100) == b"after"
        with socket.create_connection(web.address, timeout=5) as another:
            another.sendall(b"new")
            assert another.recv(100) == b"new"
    assert web.stats["web-2"].connections == 1


def test_a_function_answers_requests(service_proxy: ServiceProxy) -> None:
    """A function answers HTTP requests."""

    def price(request: HttpRequest) -> str:
        return f"price of {request.path.removeprefix('/')}: 7"

    shop = service_proxy.service("shop", backends=[price, http((503, "closed"))])
    assert fetch(shop, "/tea") == "price of tea: 7"


def test_a_latency_slows_one_backend_down(service_proxy: ServiceProxy) -> None:
    """One of two backends has a latency, with toxiproxy's names and attributes."""
    web = service_proxy.service("web", backends=2)
    web.backends[0].fault("latency", latency=100)
    times: list[float] = []
    for _ in range(2):
        began = time.monotonic()
        fetch(web)
        times.append(time.monotonic() - began)
    assert max(times) >= 0.1 > min(times)


def test_clients_find_a_service_by_its_dns_name(service_proxy: ServiceProxy) -> None:
    """The program under test dials the Service's DNS name in a cluster."""
    service_proxy.service("web", port=80, namespace="shop")
    with service_proxy.names("shop"), urlopen("http://web/", timeout=5) as answer:
        assert answer.read() == b"web-1\n"
