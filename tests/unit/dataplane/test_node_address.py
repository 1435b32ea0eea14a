"""Source ports of dials from this node's address, with real sockets."""

import asyncio
import contextlib
import errno
import socket
import sys

import pytest

from tests.netns import DEADLINE_S
from userspace_proxy.dataplane import node_address as module
from userspace_proxy.dataplane.calls import SystemCalls
from userspace_proxy.dataplane.client_ports import ClientPorts
from userspace_proxy.dataplane.engine import Engine
from userspace_proxy.dataplane.node_address import NodeAddressDialer, may_be_source
from userspace_proxy.dataplane.tuning import Tuning
from userspace_proxy.kernel.ephemeral import EphemeralPorts
from userspace_proxy.model import SocketAddress
from userspace_proxy.policy.locality import FIRST_PORT, LAST_PORT

KERNEL = SystemCalls(1)
# The test's file says that the ephemeral range has 16 ports, and the fifth dial is one too many.
EASY = 4
OURS = range(61000, 61004)
# No other test has these ports in the node's namespace.
pytestmark = pytest.mark.usefixtures("node")


@pytest.fixture(autouse=True)
def ephemeral(monkeypatch, tmp_path):
    path = tmp_path / "ip_local_port_range"
    path.write_text("40000\t40015\n")
    monkeypatch.setattr(module, "EPHEMERAL", EphemeralPorts(path))


@pytest.fixture(params=["127.0.0.1", "::1"], ids=["v4", "v6"])
def server(request):
    family = socket.AF_INET6 if ":" in request.param else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.settimeout(DEADLINE_S)
        listener.bind((request.param, 0))
        listener.listen()
        yield listener


@pytest.fixture
def ports():
    return NodeAddressDialer(KERNEL, ClientPorts(OURS[0], OURS[-1]), 1)


def dial(ports, at, now=0.0):
    fd = ports.dial(at, now, False)
    sock = KERNEL.socket(fd)
    KERNEL.disown(fd)
    return socket.socket(fileno=sock.detach())


def source_port(ports, server, now=0.0):
    """Dial, have this side close first, and return the port that the server saw."""
    at = SocketAddress(*server.getsockname()[:2])
    sock = dial(ports, at, now)
    accepted, peer = server.accept()
    with accepted:
        sock.close()
        assert accepted.recv(1) == b""
    return peer[1]


def are_ours(ports, server, count, now=0.0):
    return [source_port(ports, server, now) in OURS for _ in range(count)]


def test_an_endpoint_with_many_dials_gets_ports_of_its_own(ports, server):
    assert are_ours(ports, server, EASY + 2) == [False] * EASY + [True] * 2


async def test_workers_share_the_kernels_ports(server, monkeypatch):
    loop = asyncio.get_running_loop()
    with contextlib.closing(Engine(loop, Tuning(processes=EASY))) as engine:
        monkeypatch.setattr(sys.modules[__name__], "KERNEL", engine.reactor.calls)
        dialer = engine.client_dialer._node_dialer
        used = [source_port(dialer, server) for _ in range(2)]
    assert [FIRST_PORT <= port <= LAST_PORT for port in used] == [False, True]


def test_ports_in_time_wait_are_used_again(ports, server):
    are_ours(ports, server, EASY)
    used = [source_port(ports, server) for _ in range(3 * len(OURS))]
    assert sorted(used) == sorted([*OURS] * 3)


def test_an_endpoint_stays_busy_until_a_minute_with_few_dials(ports, server):
    are_ours(ports, server, EASY + 1, now=0.0)
    assert are_ours(ports, server, 1, now=60.0) == [True]
    assert are_ours(ports, server, 1, now=120.0) == [False]


def test_another_endpoint_has_the_kernels_ports(ports, server):
    are_ours(ports, server, EASY + 1)
    with socket.create_server(("127.0.0.1", 0)) as other:
        other.settimeout(DEADLINE_S)
        assert are_ours(ports, other, 1) == [False]


def test_without_a_free_port_the_kernel_chooses_one(ports, server):
    taken = []
    try:
        for port in OURS:
            taken.append(socket.socket(server.family, socket.SOCK_STREAM))
            taken[-1].bind(("::" if server.family == socket.AF_INET6 else "0.0.0.0", port))
            taken[-1].listen()
        assert are_ours(ports, server, EASY + 2) == [False] * (EASY + 2)
    finally:
        for sock in taken:
            sock.close()


def test_ports_in_use_to_the_same_endpoint_are_passed_over(ports, server):
    at = SocketAddress(*server.getsockname()[:2])
    are_ours(ports, server, EASY)
    held = [dial(ports, at) for _ in range(len(OURS) + 1)]
    found = [server.accept() for _ in held]
    assert [peer[1] in OURS for _, peer in found] == [True] * len(OURS) + [False]
    for sock in (*held, *(accepted for accepted, _ in found)):
        sock.close()


def test_ports_that_others_have_used_up_are_replaced_by_bound_ones(node, ports, server):
    at = SocketAddress(*server.getsockname()[:2])
    node.run("sysctl -qw net.ipv4.ip_local_port_range='40000 40001'")
    held = [dial(ports, at) for _ in range(3)]
    found = [server.accept() for _ in held]
    assert [peer[1] in OURS for _, peer in found] == [False, False, True]
    for sock in (*held, *(accepted for accepted, _ in found)):
        sock.close()


def test_a_dial_without_a_free_port_fails_with_eaddrnotavail(node, ports, server):
    at = SocketAddress(*server.getsockname()[:2])
    node.run("sysctl -qw net.ipv4.ip_local_port_range='40000 40001'")
    held = [dial(ports, at) for _ in range(2 + len(OURS))]
    assert ports.dial(at, 0.0, False) == -errno.EADDRNOTAVAIL
    for sock in held:
        sock.close()


@pytest.mark.parametrize(
    ("port", "expected"), [(40000, True), (61000, True), (65535, True), (8080, False)]
)
def test_only_some_ports_are_sources_of_dials(port, expected):
    assert may_be_source(port, 0.0) is expected
