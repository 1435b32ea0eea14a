"""The PROXY protocol with HAProxy and nginx: as endpoints, and HAProxy as a load balancer in front.

    pod ───────────────────────────▶ node-1 ──header──▶ HAProxy or nginx in a pod
    laptop ─▶ HAProxy ──header──▶ node-1 ──header──▶ HAProxy or nginx in a pod

Both endpoints answer with the contents of the header.
"""

import os

import pytest

from tests.cluster.waiting import wait_for
from tests.node.clients import http_get
from tests.node.testbed import Testbed, steerings
from tests.promises.specs import PROXY_PROTOCOL, Port, Spec
from tests.promises.world import FLAGS, ManifestWorld

pytestmark = pytest.mark.netns

WEB = Spec(
    "web",
    ["10.96.9.1", "fd00:10:96::91"],
    [Port(80, target=9080, node_port=30180)],
    more={"type": "NodePort"},
)
LAPTOPS = "198.51.100.0/24,fd00:198:51:100::/64"
HAPROXY = """
defaults
  mode http
  timeout connect 5s
  timeout client 30s
  timeout server 30s
frontend announced
  bind 0.0.0.0:9080 accept-proxy
  bind :::9080 v6only accept-proxy
  http-request return content-type text/plain lf-string "%[src] %[src_port] %[dst] %[dst_port]"
"""
NGINX = """
user root;
daemon off;
pid {folder}/pid;
error_log stderr;
events {{}}
http {{
  access_log off;
  client_body_temp_path {folder};
  fastcgi_temp_path {folder};
  proxy_temp_path {folder};
  scgi_temp_path {folder};
  uwsgi_temp_path {folder};
  server {{
    listen 9080 proxy_protocol;
    listen [::]:9080 proxy_protocol ipv6only=on;
    location / {{
      default_type text/plain;
      set $client "$proxy_protocol_addr $proxy_protocol_port";
      return 200 "$client $proxy_protocol_server_addr $proxy_protocol_server_port";
    }}
  }}
}}
"""
IN_FRONT = """
defaults
  mode tcp
  timeout connect 5s
  timeout client 30s
  timeout server 30s
listen v1
  bind 127.0.0.1:9001
  bind ::1:9001
  server node {node}:30180 send-proxy
listen v2
  bind 127.0.0.1:9002
  bind ::1:9002
  server node {node}:30180 send-proxy-v2
listen v1-over-ipv6
  bind 127.0.0.1:9003
  server node [{node6}]:30180 send-proxy
"""
PATH = {**os.environ, "PATH": f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"}


@pytest.fixture(scope="module", params=steerings("nftables", "iptables", "local"))
def world(request, tmp_path_factory):
    """A node that accepts headers from laptops, with HAProxy and nginx in pods."""
    folder = tmp_path_factory.mktemp("servers")
    flags = (*FLAGS, f"--accept-proxy-protocol={LAPTOPS}", "--connection-log=1", "--workers=2")
    with Testbed(tmp_path_factory.mktemp("agent"), request.param, *flags) as testbed:
        world = ManifestWorld(testbed)
        start_haproxy(testbed.pod("one"), folder / "endpoint.cfg", HAPROXY)
        (folder / "nginx.conf").write_text(NGINX.format(folder=folder))
        nginx = ["nginx", "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", "stderr"]
        testbed.pod("two").popen(nginx, env=PATH)
        node = {"node": world.ip("node-1"), "node6": world.ip("node-1", v6=True)}
        laptop = testbed["laptop"].host
        start_haproxy(laptop, folder / "front.cfg", IN_FRONT.format(**node))
        yield world


def start_haproxy(host, path, text):
    path.write_text(text.lstrip())
    host.popen(["haproxy", "-db", "-q", "-f", str(path)], env=PATH)


@pytest.fixture(autouse=True)
def hang_up(world):
    yield
    world.hang_up()


def announced(world, client, address):
    """Return the contents of the header that an endpoint got, once a request succeeds."""
    said = []

    def is_answered():
        try:
            status, body = http_get(world.testbed[client].tcp(address[0]), address, "/")
        except OSError:
            return False
        said[:] = body.split()
        return status == 200

    wait_for("an answer", is_answered, hint=world.agent.log)
    return said


@pytest.mark.parametrize("server", ["one", "two"], ids=["HAProxy", "nginx"])
@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize("v6", [False, True], ids=["IPv4", "IPv6"])
def test_an_endpoint_receives_the_addresses_of_client_and_frontend(world, server, version, v6):
    pod = world.ip(server, v6=v6)
    world.put(WEB.but(annotations={PROXY_PROTOCOL: version}).at(pod))
    frontend = WEB.ips[v6]
    ip, _, at, port = announced(world, "pod", (frontend, 80))
    assert (ip, at, port) == (world.ip("pod", v6=v6), frontend, "80")


@pytest.mark.parametrize("server", ["one", "two"], ids=["HAProxy", "nginx"])
@pytest.mark.parametrize(
    ("port", "v6"), [(9001, False), (9002, False), (9003, True)], ids=["v1", "v2", "v1-over-IPv6"]
)
def test_the_client_announced_by_a_load_balancer_is_passed_on(world, server, port, v6):
    world.put(WEB.but(annotations={PROXY_PROTOCOL: "v2"}).at(world.ip(server, v6=v6)))
    ip, own, at, dialled = announced(world, "laptop", ("127.0.0.1", port))
    assert (ip, at, dialled) == ("127.0.0.1", "127.0.0.1", str(port))
    laptop = world.ip("laptop", v6=v6)
    via = f"via=[{laptop}]:" if v6 else f"via={laptop}:"
    line = f"client=127.0.0.1:{own} frontend=127.0.0.1:{port} {via}"
    wait_for("the log line", lambda: line in world.agent.log(), hint=world.agent.log)


def test_a_load_balancer_without_the_header_is_reset_and_counted(world):
    world.put(WEB.at(world.ip("three")))
    before = sum(port["bad_headers"] for port in world.shown("web"))
    sock = world.testbed["laptop"].dial((world.ip("node-1"), 30180))
    sock.sendall(b"GET / HTTP/1.1\r\n\r\n")
    with pytest.raises(ConnectionResetError):
        sock.recv(1)
    assert sum(port["bad_headers"] for port in world.shown("web")) == before + 1
    line = f"from {world.ip('laptop')} without a valid PROXY header: it begins with other bytes"
    wait_for("the line in the log", lambda: line in world.agent.log())

    def is_shown():
        said = f"were reset, the last one of {world.ip('laptop')}"
        return any(said in port["state"]["sentence"] for port in world.shown("web"))

    wait_for("the state", is_shown)
