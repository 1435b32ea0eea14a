"""toxiproxy's API in front of a real proxy, as its clients use it."""

import json
import time
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from userspace_proxy.testing.service_proxy import ServiceProxy


@pytest.fixture
def proxy():
    with ServiceProxy() as proxy:
        yield proxy


@pytest.fixture
def call(proxy):
    """Call toxiproxy's API."""
    host, port = proxy.serve_toxiproxy(("127.0.0.1", 0))

    def call(method, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        with urlopen(Request(f"http://{host}:{port}{path}", data, method=method), timeout=5) as got:
            text = got.read()
            return json.loads(text) if text else None

    return call


@pytest.fixture
def upstream(proxy):
    """The address of a server that answers ``origin-1``."""
    return str(proxy.service("origin", backends=1).backends[0].address)


def get(info):
    with urlopen(f"http://{info['listen']}/", timeout=5) as answer:
        return answer.read()


def test_a_proxy_passes_connections_on_and_has_toxics(call, upstream):
    info = call("POST", "/proxies", {"name": "Shop_db", "upstream": upstream})
    assert get(info) == b"origin-1\n"
    call("POST", "/proxies/Shop_db/toxics", {"type": "latency", "attributes": {"latency": 80}})
    began = time.monotonic()
    assert get(info) == b"origin-1\n"
    assert time.monotonic() - began >= 0.08
    call("DELETE", "/proxies/Shop_db/toxics/latency_downstream")
    call("POST", "/proxies/Shop_db/toxics", {"type": "reset_peer"})
    with pytest.raises(OSError, match="reset by peer"):
        get(info)
    call("POST", "/reset")
    assert get(info) == b"origin-1\n"


def test_a_proxy_that_is_disabled_refuses_and_returns(call, upstream):
    info = call("POST", "/proxies", {"name": "db", "upstream": upstream, "listen": "localhost:0"})
    call("POST", "/proxies/db", {"enabled": False})
    with pytest.raises(OSError, match="refused"):
        get(info)
    assert call("POST", "/proxies/db", {"enabled": True})["listen"] == info["listen"]
    assert get(info) == b"origin-1\n"
    call("DELETE", "/proxies/db")
    with pytest.raises(OSError, match="refused"):
        get(info)


def test_the_upstream_may_change_and_the_address_may_not(proxy, call, upstream):
    info = call("POST", "/proxies", {"name": "db", "upstream": upstream})
    other = proxy.service("other", backends=1).backends[0].address
    call("POST", "/proxies/db", {"upstream": str(other)})
    assert get(info) == b"other-1\n"
    with pytest.raises(HTTPError) as caught:
        call("POST", "/proxies/db", {"listen": "127.0.0.1:1"})
    caught.value.close()
    assert caught.value.code == 400


def test_names_that_differ_only_for_toxiproxy_are_two_proxies(call, upstream):
    for name in ("a_b", "a-b"):
        call("POST", "/proxies", {"name": name, "upstream": upstream})
    assert [get(info) for info in call("GET", "/proxies").values()] == [b"origin-1\n"] * 2
