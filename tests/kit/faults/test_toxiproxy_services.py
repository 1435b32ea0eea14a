"""toxiproxy's API of a real proxy, as clients use it."""

import json
import socket
import time
from http.client import HTTPException
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from toxiproxy import Toxiproxy
from toxiproxy.api import APIConsumer
from toxiproxy.exceptions import InvalidToxic, NotFound, ProxyExists

from userspace_proxy_testing.backends import echo


@pytest.fixture
def call(proxy):
    host, port = proxy.serve_toxiproxy(("127.0.0.1", 0))

    def call(method, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = Request(f"http://{host}:{port}{path}", data, method=method)
        with urlopen(request, timeout=60) as got:
            text = got.read()
            return json.loads(text) if text else None

    return call


@pytest.fixture
def upstream(proxy):
    """The address of a server that answers ``origin-1``."""
    return str(proxy.service("origin", backends=1).backends[0].address)


def refused(call, *request):
    """Return the status and the error message of a failing call."""
    with pytest.raises(HTTPError) as caught:
        call(*request)
    with caught.value as answer:
        return answer.code, json.loads(answer.read())["error"]


def connect(info):
    host, port = info["listen"].split(":")
    return socket.create_connection((host, int(port)), timeout=60)


def get(info):
    with urlopen(f"http://{info['listen']}/", timeout=60) as answer:
        return answer.read()


def test_disabling_a_proxy_ends_its_open_connections(proxy, call):
    origin = proxy.service("origin", backends=[echo]).backends[0].address
    info = call("POST", "/proxies", {"name": "db", "upstream": str(origin)})
    with connect(info) as client:
        client.sendall(b"a")
        assert client.recv(1) == b"a"
        call("POST", "/proxies/db", {"enabled": False})
        with pytest.raises(ConnectionResetError):
            client.recv(1)


def test_a_new_upstream_ends_open_connections_but_removes_no_toxic(proxy, call):
    old, new = (proxy.service(name, backends=[echo]).backends[0].address for name in ("old", "new"))
    info = call("POST", "/proxies", {"name": "db", "upstream": str(old)})
    slow = {"type": "latency", "attributes": {"latency": 80}}
    call("POST", "/proxies/db/toxics", slow)
    with connect(info) as client:
        client.sendall(b"a")
        assert client.recv(1) == b"a"
        call("POST", "/proxies/db", {"upstream": str(new)})
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    with connect(info) as client:
        began = time.monotonic()
        client.sendall(b"b")
        assert client.recv(1) == b"b"
        assert time.monotonic() - began >= 0.08
    (port,) = [p for p in proxy.status().ports if p.plan.key.name.service.name == "db-1"]
    assert [e.address for e in port.endpoints] == [str(new)]


def test_a_proxy_moves_to_another_address_with_its_toxics(call, upstream):
    info = call("POST", "/proxies", {"name": "db", "upstream": upstream})
    call("POST", "/proxies/db/toxics", {"type": "reset_peer"})
    moved = call("POST", "/proxies/db", {"listen": "localhost:0"})
    assert moved["listen"] != info["listen"]
    assert [toxic["type"] for toxic in moved["toxics"]] == ["reset_peer"]
    with pytest.raises(OSError, match="reset by peer"):
        get(moved)
    with pytest.raises(OSError, match="refused"):
        get(info)


def test_after_a_rejected_address_a_proxy_serves_at_its_old_address(call, upstream):
    info = call("POST", "/proxies", {"name": "db", "upstream": upstream})
    taken = call("POST", "/proxies", {"name": "other", "upstream": upstream})["listen"]
    status, error = refused(call, "POST", "/proxies/db", {"listen": taken})
    assert (status, error) == (500, f"cannot listen on {taken}: proxy 'other' does")
    assert call("GET", "/proxies/db") == info
    assert get(info) == b"origin-1\n"


@pytest.mark.parametrize(
    ("listen", "remedy"),
    [("10.1.1.1:26379", "127.0.0.1:26379"), ("[fd00::10]:26379", "[::1]:26379")],
)
def test_only_loopback_listen_addresses_are_accepted(call, upstream, listen, remedy):
    upstream = upstream if listen[0] != "[" else "[::1]:80"
    _, error = refused(
        call, "POST", "/proxies", {"name": "db", "upstream": upstream, "listen": listen}
    )
    assert error == (
        f"cannot listen on {listen}: only loopback addresses are served here (choose {remedy})"
    )
    assert call("GET", "/proxies") == {}


def test_a_port_in_use_is_rejected(call, upstream):
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = f"127.0.0.1:{other.getsockname()[1]}"
        wanted = {"name": "db", "upstream": upstream, "listen": taken}
        status, error = refused(call, "POST", "/proxies", wanted)
    assert status == 500
    assert error.startswith(f"cannot listen on {taken}: ")
    assert call("GET", "/proxies") == {}


@pytest.mark.parametrize("host", ["", "0.0.0.0", "[::]", "localhost"])
def test_wildcard_and_localhost_addresses_listen_on_127_0_0_1(call, upstream, host):
    given = {"name": "db", "listen": f"{host}:0", "upstream": upstream}
    info = call("POST", "/proxies", given)
    assert info["listen"].startswith("127.0.0.1:")
    assert get(info) == b"origin-1\n"


@pytest.mark.parametrize(
    ("listen", "status", "words"),
    [
        pytest.param("db.example:0", 400, "db.example", id="name"),
        pytest.param("192.0.2.1:0", 500, "cannot listen on 192.0.2.1:0: Cannot assign", id="far"),
    ],
)
def test_a_host_name_or_nonlocal_address_is_rejected(call, upstream, listen, status, words):
    wanted = {"name": "db", "upstream": upstream, "listen": listen}
    found, error = refused(call, "POST", "/proxies", wanted)
    assert (found, words in error) == (status, True)


def test_an_upstream_name_is_stored_unresolved(call, upstream):
    name = upstream.replace("127.0.0.2", "localhost")
    info = call("POST", "/proxies", {"name": "db", "upstream": name})
    assert info["upstream"] == name


@pytest.mark.parametrize(
    ("upstream", "words"),
    [
        pytest.param("redis", "upstream 'redis': expected host:port", id="no-port"),
        pytest.param("127.0.0.1:99999", "with a port in 1–65535", id="port"),
        pytest.param("redis..local:6379", "'redis..local:6379' has no IPv4 address", id="name"),
        pytest.param("[::1]:6379", "upstream '[::1]:6379' has no IPv4 address", id="family"),
    ],
)
def test_an_undialable_upstream_is_rejected(call, upstream, words):
    status, error = refused(call, "POST", "/proxies", {"name": "db", "upstream": upstream})
    assert status == 400
    assert words in error


def test_bind_requires_an_address_and_port(proxy):
    with pytest.raises(TypeError, match="bind: expected a tuple of IP address and port, got 8474"):
        proxy.serve_toxiproxy(8474)


@pytest.fixture
def client(proxy):
    """toxiproxy's Python client; its host and port are class variables."""
    before = APIConsumer.host, APIConsumer.port
    client = Toxiproxy()
    client.update_api_consumer(*proxy.serve_toxiproxy(("127.0.0.1", 0)))
    yield client
    client.update_api_consumer(*before)


def fetch(proxy):
    with urlopen(f"http://{proxy.listen}/", timeout=60) as answer:
        return answer.read()


def test_a_client_library_creates_lists_and_destroys_proxies(client, upstream):
    assert client.running()
    assert json.loads(client.version()) == {"version": "2.9.0"}
    made = client.create(upstream=upstream, name="db")
    assert fetch(made) == b"origin-1\n"
    with pytest.raises(ProxyExists):
        client.create(upstream=upstream, name="db")
    found = client.get_proxy("db")
    assert vars(found) == vars(made)
    assert client.get_proxy("cache") is None
    client.create(upstream=upstream, name="cache", enabled=False)
    assert {name: proxy.enabled for name, proxy in client.proxies().items()} == {
        "db": True,
        "cache": False,
    }
    assert client.destroy(found)
    with pytest.raises(OSError, match="refused"):
        fetch(made)
    with pytest.raises(NotFound):
        found.destroy()
    client.destroy_all()
    assert client.proxies() == {}


def test_a_client_library_disables_and_enables_a_proxy(client, upstream):
    made = client.create(upstream=upstream, name="db")
    with made.down():
        assert not client.get_proxy("db").enabled
        with pytest.raises(OSError, match="refused"):
            fetch(made)
    assert fetch(made) == b"origin-1\n"


def test_a_client_library_adds_and_removes_toxics(client, upstream):
    made = client.create(upstream=upstream, name="db")
    made.add_toxic(type="latency", attributes={"latency": 80})
    made.add_toxic(name="cut", type="limit_data", stream="upstream", attributes={"bytes": 3})
    assert {name: vars(toxic) for name, toxic in made.toxics().items()} == {
        "latency_downstream": {
            "type": "latency",
            "stream": "downstream",
            "name": "latency_downstream",
            "toxicity": 1.0,
            "attributes": {"latency": 80, "jitter": 0},
        },
        "cut": {
            "type": "limit_data",
            "stream": "upstream",
            "name": "cut",
            "toxicity": 1.0,
            "attributes": {"bytes": 3},
        },
    }
    with pytest.raises((OSError, HTTPException)):
        fetch(made)
    assert made.destroy_toxic("cut")
    assert made.get_toxic("cut") is None
    began = time.monotonic()
    assert fetch(made) == b"origin-1\n"
    assert time.monotonic() - began >= 0.08
    with pytest.raises(InvalidToxic, match="did you mean latency"):
        made.add_toxic(type="latancy")


def test_populate_does_not_replace_matching_proxies(client, upstream):
    wanted = [{"name": "db", "upstream": upstream, "listen": "127.0.0.1:0"}]
    (made,) = client.populate(wanted)
    again = [{**wanted[0], "listen": made.listen}]
    assert client.populate(again) == []
    assert fetch(made) == b"origin-1\n"
