"""What a failing test's report shows."""

import socket

import pytest

from userspace_proxy_testing.report import describe
from userspace_proxy_testing.service_proxy import ServiceProxy


def test_it_shows_each_service_with_its_cause_its_backends_and_its_last_connections():
    with ServiceProxy() as proxy:
        web = proxy.service("web", backends=1)
        idle = proxy.service("idle", backends=1)
        with socket.create_connection(web.address, timeout=60) as client:
            client.sendall(b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n")
            while client.recv(1000):
                pass
        web.eventually(lambda web: web.decisions)
        web.backends[0].stop()
        with (
            pytest.raises(ConnectionResetError),
            socket.create_connection(web.address, timeout=60) as client,
        ):
            client.recv(1)
        text = describe(proxy)
    assert "refuses connections: nothing listens on port" in text
    assert f"default/web: backends web-1 at {web.backends[0].address} (stopped)" in text
    assert f"→ {web.backends[0].address}: complete" in text
    assert f"default/idle: backends idle-1 at {idle.backends[0].address}\n  no connection" in text


def test_endpoints_that_are_not_its_backends_are_shown():
    with ServiceProxy() as proxy:
        web = proxy.service("web", backends=1)
        web.endpoints = []
        none = describe(proxy)
        web.endpoints = ["127.0.0.1:9"]
        other = describe(proxy)
    first = f"default/web: backends web-1 at {web.backends[0].address}"
    assert f"{first}\n  endpoints: none\n" in none
    assert f"{first}\n  endpoints: 127.0.0.1:9\n" in other
