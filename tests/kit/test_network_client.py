import errno
import socket
import sys

import pytest

from userspace_proxy.errors import SandboxError
from userspace_proxy_testing.backends import echo


def test_a_client_requests_urls_by_address_and_by_name(network):
    def page(request):
        return 404, f"no {request.path} for {request.headers['x-user']}"

    web = network.service("web", backends=[page], namespace="shop")
    client = network.client("shopper", namespace="shop")
    for url in (web.url, "http://web", "http://web.shop.svc.cluster.local"):
        answer = client.get(f"{url}/cart?a=b", headers={"X-User": "alice"})
        assert (answer.status, answer.text) == (404, "no /cart?a=b for alice")
        assert answer.headers["content-type"].startswith("text/plain")
    with pytest.raises(socket.gaierror, match="cannot look up 'web' in namespace default: "):
        network.client().get("http://web")


def test_a_program_does_not_use_an_http_proxy(network, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://proxy.example:3128")
    network.service("web", backends=1)
    program = "from urllib.request import urlopen; print(urlopen('http://web/').status)"
    assert network.client().run([sys.executable, "-c", program]).stdout == "200\n"


def test_an_https_url_is_rejected_with_advice_to_run_a_program(network):
    with pytest.raises(ValueError, match="expected http://HOST; run a program, such as curl"):
        network.client().get("https://web/")


def test_a_service_can_be_dialled_by_handle_address_and_name(network):
    web = network.service("echo", port=7, backends=[echo])
    client = network.client()
    for to in (web, tuple(web.address), str(web.address), "echo:7", ("echo.default", 7)):
        with client.connect(to) as sock:
            sock.sendall(b"hello")
            assert sock.recv(10) == b"hello"
            assert sock.getsockname()[0] == client.ip


def test_connect_returns_a_connected_udp_socket(network):
    dns = network.service("dns", port=53, protocol="UDP")
    client = network.client()
    for sock in (client.connect(dns), client.connect(dns.address, protocol="UDP")):
        with sock:
            sock.send(b"hello")
            assert sock.recv(100) == b"dns-1: hello"


@pytest.mark.parametrize(
    ("to", "given", "error", "words"),
    [
        pytest.param("web", {}, ValueError, "connect to 'web': expected a Service", id="no-port"),
        pytest.param("web:http", {}, ValueError, "'web:http': expected", id="port-by-name"),
        pytest.param(7, {}, TypeError, "connect to 7: expected a Service, host:port", id="number"),
        pytest.param(
            "127.0.0.1:1", {"protocol": "tcp"}, ValueError, "'tcp' is not TCP or UDP", id="protocol"
        ),
    ],
)
def test_an_invalid_connect_argument_is_named_in_the_error(network, to, given, error, words):
    with pytest.raises(error, match=words):
        network.client().connect(to, **given)


def test_the_kernel_refuses_a_service_without_endpoints(network):
    none = network.service("none", backends=0)
    with pytest.raises(ConnectionRefusedError):
        network.client().connect(none)


def test_a_clients_pod_can_be_configured(network):
    client = network.client("lonely")
    web = network.service("web")
    client.pod.configure(["route replace unreachable 10.96.0.0/12"])
    with pytest.raises(OSError, match="No route to host") as caught:
        client.connect(web)
    assert caught.value.errno == errno.EHOSTUNREACH


def test_programs_run_in_the_clients_pod_and_resolve_names(network):
    web = network.service("named", port=80)
    client = network.client()
    done = client.run(["getent", "hosts", "named"])
    assert done.stdout.split() == [web.host, "named.default.svc.cluster.local"]
    assert client.ip in client.run(["ip", "address"]).stdout
    assert client.run(["cat"], input="hello").stdout == "hello"


def test_a_failing_program_is_an_error_unless_check_is_false(network):
    failing = ["sh", "-c", "echo no such page >&2; exit 22"]
    with pytest.raises(SandboxError, match="no such page; status 22"):
        network.client().run(failing)
    assert network.client().run(failing, check=False).returncode == 22


def test_repr_shows_address_and_namespace(network):
    client = network.client("shopper", namespace="shop")
    assert repr(client) == f"<NetworkClient shopper at {client.ip}, namespace shop>"
