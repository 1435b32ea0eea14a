import http.server
import sys
import threading

import pytest

from tests.processes import started
from tests.unit.port_numbers import free_port
from tests.unit.status.views import make_calm_view
from tests.users import OTHER_UID, as_another_user
from userspace_proxy.cli import admin
from userspace_proxy.cli.admin import (
    AdminAddress,
    NotAnswered,
    address_of,
    find_admin,
    parse_server,
)
from userspace_proxy.cli.command import Given
from userspace_proxy.config import Settings
from userspace_proxy.config.load import load_settings
from userspace_proxy.errors import ConfigError, UserspaceProxyError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10.0.0.1:80", "10.0.0.1:80"),
        ("[::1]:80", "[::1]:80"),
        (":8080", "127.0.0.1:8080"),
        ("localhost", "localhost:10249"),
        ("http://127.0.0.1:41000/", "127.0.0.1:41000"),
    ],
)
def test_the_server_flag_accepts_an_address_or_a_url(text, expected):
    assert str(parse_server(text)) == expected


@pytest.mark.parametrize("text", ["https://10.0.0.1", "10.0.0.1:x", "10.0.0.1/api", "[::1", "::1"])
def test_an_invalid_server_address_is_rejected(text):
    with pytest.raises(ConfigError, match="is not the address of a status page"):
        parse_server(text)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], "127.0.0.1:10249"),
        (["--metrics-bind-address=0.0.0.0:9000"], "127.0.0.1:9000"),
        (["--metrics-bind-address=[::]:9000"], "[::1]:9000"),
        (["--metrics-bind-address=192.0.2.1"], "192.0.2.1:10249"),
    ],
)
def test_commands_query_the_status_address_that_the_settings_define(words, expected):
    assert str(address_of(load_settings(words).settings)) == expected
    assert str(find_admin(Given({}, settings=tuple(words)))) == expected


def test_commands_read_the_status_address_from_the_configuration_file(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(
        "apiVersion: kubeproxy.config.k8s.io/v1alpha1\n"
        "kind: KubeProxyConfiguration\n"
        "metricsBindAddress: 127.0.0.1:9001\n"
    )
    assert str(find_admin(Given({"config": str(path)}))) == "127.0.0.1:9001"
    assert str(find_admin(Given({"config": str(path), "server": ":1"}))) == "127.0.0.1:1"


@pytest.mark.parametrize("bound", ["disabled", "fd://3"])
def test_a_status_page_that_is_disabled_or_has_no_known_address_cannot_be_queried(bound):
    settings = load_settings([f"--metrics-bind-address={bound}"]).settings
    with pytest.raises(ConfigError, match=r"disabled|fd://3"):
        address_of(settings)


def test_a_status_response_contains_the_text_and_the_level(serve_view):
    admin = parse_server(serve_view(make_calm_view()).removeprefix("--server="))
    answer = admin.get("/", accept="text/plain", service="shop/web")
    assert answer.body.startswith(b"node-a  nftables  2 Service ports")
    assert answer.level == "ok"


def test_a_connection_error_includes_the_address_and_the_remedy():
    port = free_port()
    with pytest.raises(NotAnswered) as caught:
        AdminAddress("127.0.0.1", port).get("/", accept="text/plain")
    assert str(caught.value) == (
        f"no userspace-proxy answers at 127.0.0.1:{port}: Connection refused (start one, or name "
        "the address of its status page: --server=ADDRESS)"
    )


@pytest.fixture
def other_server():
    """Yield a function that starts a loopback server with a fixed response."""
    servers = []

    def start(status=200, body=b"hello", **headers):
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response_only(status)
                for name, value in headers.items():
                    self.send_header(name.replace("_", "-"), value)
                self.end_headers()
                self.wfile.write(body)

        server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever).start()
        servers.append(server)
        return AdminAddress(*server.server_address)

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_another_program_at_the_address_is_not_mistaken_for_a_proxy(other_server):
    with pytest.raises(NotAnswered, match="another program does"):
        other_server(Server="nginx").get("/", accept="text/plain")


def test_a_response_above_the_size_limit_is_rejected(other_server, monkeypatch):
    monkeypatch.setattr(admin, "_MAX_BYTES", 100)
    with pytest.raises(NotAnswered, match="has more than 100 bytes"):
        other_server(200, b"x" * 101, Server="userspace-proxy").get("/", accept="text/plain")


@pytest.mark.parametrize("status", [400, 404, 405])
def test_a_long_error_response_is_truncated(other_server, status):
    with pytest.raises(UserspaceProxyError) as caught:
        other_server(status, b"x" * 100_000, Server="userspace-proxy").get("/", accept="text/plain")
    assert "xx…" in str(caught.value)
    assert len(str(caught.value)) < 400
    assert "--search" not in str(caught.value)
    assert not isinstance(caught.value, admin.NoSuchService)


ANOTHER_USER = f"""
import http.server, os
class Handler(http.server.BaseHTTPRequestHandler):
    def version_string(self):
        return "userspace-proxy"
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.end_headers()
        self.wfile.write(b"all is well")
    def log_message(self, *_args):
        pass
# HTTPServer looks up names in files that this user can't read.
http.server.HTTPServer.server_bind = http.server.socketserver.TCPServer.server_bind
os.seteuid({OTHER_UID})
server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
print(server.server_address[1], flush=True)
server.serve_forever()
"""


@as_another_user
def test_another_users_process_is_trusted_only_with_an_explicit_server_flag():
    with started([sys.executable, "-c", ANOTHER_USER]) as process:
        at = f"127.0.0.1:{int(process.stdout.readline())}"
        found = find_admin(Given({}, settings=(f"--metrics-bind-address={at}",)))
        with pytest.raises(NotAnswered, match=f"a process of user {OTHER_UID} does"):
            found.get("/", accept="text/plain")
        named = find_admin(Given({"server": at}))
        assert named.get("/", accept="text/plain").text == "all is well"


def test_a_non_text_response_is_attributed_to_another_version(other_server):
    admin = other_server(Server="userspace-proxy", Content_Type="text/html")
    with pytest.raises(UserspaceProxyError, match="of another version"):
        admin.get("/", accept="text/plain")


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        pytest.param(
            500,
            b"500 Internal Server Error\n\nServer got itself in trouble",
            "500 Internal Server Error; see the proxy's log",
            id="a-bug",
        ),
        pytest.param(405, b"405: Method Not Allowed", "405 Method Not Allowed", id="a-refusal"),
    ],
)
def test_a_generic_error_page_is_reported_only_by_its_status(other_server, status, body, said):
    admin = other_server(status, body, Server="userspace-proxy")
    with pytest.raises(UserspaceProxyError) as caught:
        admin.get("/", accept="text/plain")
    assert str(caught.value) == f"cannot read / at {admin}: {said}"


def test_the_default_server_address_equals_the_default_setting():
    assert str(parse_server("127.0.0.1")) == str(address_of(Settings()))
