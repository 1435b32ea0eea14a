"""The contract of the kernel path, for rules and hooks: programs' view of their sockets."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.node.clients import DEADLINE_S
from tests.node.endpoints import VERSIONS
from tests.node.socket_lb import (
    MARKS,
    MODES,
    REFUSED,
    Address,
    Dial,
    SocketNode,
    Web,
    answer,
    disconnect,
    mapped,
    outcome,
    socket_node,
)

pytestmark = MARKS

THREADS, DIALS = 8, 40
REQUEST = b"GET / HTTP/1.1\r\nHost: web\r\n\r\n"
FAST_OPEN_CLIENT, FAST_OPEN_SERVER = 1, 2


# Prints the endpoint's name.
MULTIPATH = """
import socket, sys
host, port = sys.argv[1], int(sys.argv[2])
family = socket.AF_INET6 if ":" in host else socket.AF_INET
with socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_MPTCP) as sock:
    sock.connect((host, port))
    sock.sendall(b"GET / HTTP/1.0\\r\\n\\r\\n")
    print(sock.makefile().read().split()[-1])
"""


class Site:
    """A node with two Services that have endpoints, and a Service without endpoints."""

    def __init__(self, node: SocketNode, stack: contextlib.ExitStack) -> None:
        self.node = node
        self.client = node["pod"]
        one, two, three = self.backends = node.add_backends("one", "two", "three")
        self.web, self.other = Web("web", 10, (one, two)), Web("other", 11, (three,))
        self.empty = Web("empty", 12)
        # These sockets are created before the agent's start, but connected later.
        self.early = {v: stack.enter_context(self.new(v)) for v in VERSIONS}
        self.direct = stack.enter_context(Dial(self.client, one.at(4)).connect())
        node.start(self.web, self.other, self.empty)

    def new(self, version: int) -> Dial:
        return Dial(self.client, self.web.cluster_ip(version))

    def dial(self, version: int) -> Dial:
        return self.new(version).connect()

    def own_ip(self, version: int) -> str:
        return str(self.client.host.ip if version == 4 else self.client.host.ip6)


@pytest.fixture(scope="module", params=MODES)
def site(request, tmp_path_factory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("agent")
    with socket_node(folder, request.param) as node, contextlib.ExitStack() as stack:
        yield Site(node, stack)


by_version = pytest.mark.parametrize("version", VERSIONS)


def test_connections_and_sockets_older_than_the_agent_continue(site):
    for version, dial in site.early.items():
        dial.connect()
        assert dial.peer == site.web.cluster_ip(version)
        assert dial.ask() in ("one", "two")
        assert dial.way == site.node.way
    assert site.direct.ask() == "one"
    assert site.direct.peer == site.backends[0].at(4)


def test_hooks_apply_to_containers_started_after_the_agent(site):
    cgroup = site.node.cgroup and site.node.cgroup / "late"
    late = site.node.add_container("late", cgroup)
    with Dial(late, site.web.cluster_ip(4)).connect() as dial:
        assert dial.ask() in ("one", "two")
        assert dial.way == site.node.way


@by_version
@pytest.mark.parametrize("client", ["pod", "node-1"])
def test_the_peer_of_a_socket_is_the_dialled_address(site, client, version):
    for kind in ("cluster IP", "node port", "load balancer", "external IP"):
        address = site.node.at(kind, site.web, version)
        with Dial(site.node[client], address).connect() as dial:
            assert dial.peer == address
            assert dial.way == site.node.way


def test_a_dial_to_an_ipv4_mapped_address_has_that_address_as_its_peer(site):
    address = mapped(site.web.cluster_ip(4))
    with Dial(site.client, address).connect() as dial:
        assert dial.peer == address
        assert dial.ask() in ("one", "two")


@by_version
def test_a_nonblocking_socket_is_writable_once_connected(site, version):
    with site.new(version) as dial:
        assert connect_later(dial.sock, dial.address) == 0
        assert dial.peer == dial.address
        assert dial.ask() in ("one", "two")


@by_version
def test_a_refusal_is_reported_to_a_nonblocking_socket(site, version):
    with site.new(version) as dial:
        assert connect_later(dial.sock, site.empty.cluster_ip(version)) == errno.ECONNREFUSED


@by_version
def test_tcp_fast_open_works_through_the_hooks(site, version):
    both = FAST_OPEN_CLIENT | FAST_OPEN_SERVER
    for host in (site.client.host, *(one.host for one in site.backends)):
        host.configure(sysctls=[f"net/ipv4/tcp_fastopen={both}"])
    for _ in range(4):
        with site.new(version) as dial:
            dial.sock.setblocking(True)
            assert dial.sock.sendto(REQUEST, socket.MSG_FASTOPEN, dial.address) == len(REQUEST)
            assert answer(dial.sock)[0] in ("one", "two")
            assert dial.peer == dial.address
            assert dial.way == site.node.way


@by_version
def test_a_bound_socket_dials_from_its_address(site, version):
    own = site.own_ip(version), 41000 + version
    with site.new(version) as dial:
        dial.sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        dial.sock.bind(own)
        dial.connect().sock.sendall(REQUEST)
        assert dial.sock.getsockname()[:2] == own
        assert answer(dial.sock)[1] == own[0]
        assert dial.way == site.node.way


@by_version
def test_many_threads_can_dial_concurrently(site, version):
    def dial(_number: int) -> str:
        with site.dial(version) as one:
            assert one.peer == one.address
            return one.ask()

    with ThreadPoolExecutor(THREADS) as threads:
        assert {*threads.map(dial, range(THREADS * DIALS))} == {"one", "two"}


@by_version
def test_a_disconnected_socket_may_dial_again(site, version):
    with site.dial(version) as dial:
        assert dial.ask() in ("one", "two")
        for address, names in (
            (site.other.cluster_ip(version), {"three"}),
            (site.backends[0].at(version), {"one"}),
            (site.web.cluster_ip(version), {"one", "two"}),
        ):
            disconnect(dial.sock)
            with pytest.raises(OSError, match=os.strerror(errno.ENOTCONN)):
                dial.sock.getpeername()
            dial.sock.connect(address)
            assert dial.peer == address
            assert dial.ask() in names


@by_version
def test_a_socket_refused_by_a_service_has_a_directly_dialled_endpoint_as_its_peer(site, version):
    endpoint = site.backends[0].at(version)
    with site.new(version) as dial:
        # A non-blocking socket reports its own error once.
        dial.sock.setblocking(True)
        with pytest.raises(ConnectionRefusedError):
            dial.sock.connect(site.empty.cluster_ip(version))
        dial.sock.connect(endpoint)
        assert dial.peer == endpoint


@pytest.mark.kernel
@by_version
def test_a_node_port_on_a_loopback_address_is_served_on_the_node_and_in_no_pod(site, version):
    port, loopback = site.web.node_port, "127.0.0.1" if version == 4 else "::1"
    with Dial(site.node["node-1"], (loopback, port)).connect() as dial:
        assert dial.ask() in ("one", "two")
        assert dial.way == "rules"
    for ip in (loopback, "0.0.0.0" if version == 4 else "::", "::ffff:127.0.0.1"):
        assert outcome(site.client, (ip, port)) == REFUSED


@by_version
def test_multipath_tcp_is_served(site, version):
    site.client.host.configure(sysctls=["net/mptcp/enabled=1"])
    ip, port = site.web.cluster_ip(version)
    said = site.client.host.run([sys.executable, "-IS", "-c", MULTIPATH, ip, str(port)]).stdout
    assert said.strip() in ("one", "two")


@by_version
def test_udp_replies_come_from_the_dialled_address(site, version):
    address = site.web.cluster_ip(version)
    with contextlib.closing(site.client.udp(address)) as sock:
        sock.send(b"hello")
        assert sock.recv(100).endswith(b": hello")
        assert sock.getpeername()[:2] == address


def connect_later(sock: socket.socket, address: Address) -> int:
    """Connect without blocking; return the error that the socket reports later, or 0."""
    sock.setblocking(False)
    assert sock.connect_ex(address) in (errno.EINPROGRESS, 0)
    select.select([], [sock], [], DEADLINE_S)
    sock.settimeout(DEADLINE_S)
    return sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
