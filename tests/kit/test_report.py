"""The report of a failing test."""

import contextlib
import socket

import pytest

from userspace_proxy.causes.endpoints import refuses
from userspace_proxy.causes.say import say
from userspace_proxy_testing import report
from userspace_proxy_testing.backends import echo
from userspace_proxy_testing.report import describe
from userspace_proxy_testing.service_proxy import ServiceProxy


def test_the_report_shows_each_services_cause_backends_and_last_connections():
    with ServiceProxy() as proxy:
        web = proxy.service("web", backends=1)
        idle = proxy.service("idle", backends=1)
        idle_address = idle.address
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
    assert say(refuses(web.backends[0].address)) in text
    assert f"default/web: backends web-1 at {web.backends[0].address} (stopped)" in text
    assert f"→ {web.backends[0].address}: complete" in text
    assert "\n  web-1 saw: GET / → 200\n" in text
    assert text.endswith(
        f"default/idle: backends idle-1 at {idle.backends[0].address}\n"
        f"  clients dial {idle_address}\n"
        "  no connection has ended"
    )


def test_open_connections_are_shown_by_endpoint():
    with ServiceProxy() as proxy:
        web = proxy.service("web", backends=[echo, echo])
        web.fault("timeout")
        with contextlib.ExitStack() as clients:
            for _ in range(3):
                client = clients.enter_context(socket.create_connection(web.address, timeout=60))
                client.sendall(b"hello")
            web.eventually(lambda web: web.stats.active == 3)
            text = describe(proxy)
    assert "\n  still open: 3 connections: 2 to web-1, 1 to web-2\n" in text


def test_only_the_last_few_connections_and_requests_are_shown():
    with ServiceProxy() as proxy:
        web = proxy.service("web")
        for number in range(12):
            with socket.create_connection(web.address, timeout=60) as client:
                client.sendall(b"GET /%d HTTP/1.1\r\nConnection: close\r\n\r\n" % number)
                while client.recv(65536):
                    pass
        web.eventually(lambda web: len(web.decisions) == 12)
        text = describe(proxy)
        first, *_, last = map(str, web.decisions)
    assert (f"  {first}\n" in text, f"  {last}\n" in text) == (False, True)
    assert "\n  web-1 saw after 2 others: GET /2 → 200, " in text
    assert "GET /11 → 200" in text


def test_an_unserved_service_has_no_address():
    class Removed:
        """A Service that its test has removed."""

        @property
        def address(self):
            raise LookupError("default/web was removed or replaced")

    assert report._address(Removed()) == "nothing: default/web was removed or replaced"


def test_endpoints_that_differ_from_the_backends_are_shown():
    with ServiceProxy() as proxy:
        web = proxy.service("web", backends=1)
        web.endpoints = []
        none = describe(proxy)
        web.endpoints = ["127.0.0.1:9"]
        other = describe(proxy)
    first = f"default/web: backends web-1 at {web.backends[0].address}"
    assert f"{first}\n  endpoints: none\n" in none
    assert f"{first}\n  endpoints: 127.0.0.1:9\n" in other
