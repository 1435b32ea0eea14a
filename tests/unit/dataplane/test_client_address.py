"""Dialling from clients' addresses, or from this node's address if that isn't possible."""

import asyncio
import contextlib
import errno
import socket
import struct
import subprocess
import sys

import pytest

from tests.netns import DEADLINE_S, Net
from userspace_proxy.dataplane import client_address as module
from userspace_proxy.dataplane.calls import SystemCalls
from userspace_proxy.dataplane.client_address import (
    ClientAddressDialer,
    ClientPorts,
    NodeAddressDialer,
    may_be_source,
)
from userspace_proxy.dataplane.engine import Engine
from userspace_proxy.dataplane.tuning import Tuning
from userspace_proxy.kernel.ephemeral import EphemeralPorts
from userspace_proxy.model import Handling, SocketAddress
from userspace_proxy.model.serving import Serving
from userspace_proxy.policy.locality import FIRST_PORT, LAST_PORT, Locality

TCP = socket.SOCK_STREAM | socket.SOCK_NONBLOCK
UDP = socket.SOCK_DGRAM | socket.SOCK_NONBLOCK
KERNEL = SystemCalls(1)
ALICE, ALICE_6 = "10.9.9.9", "fd00:9::9"
POD, POD_6, OTHER_POD = "10.1.0.1", "fd00:1::1", "10.1.0.2"
BOB = "10.9.9.10"
POD_DNS, OTHER_DNS = SocketAddress("10.1.0.8", 53), SocketAddress("10.1.0.9", 53)
BY_NAME = Serving(handling=Handling(found_by_name=("10.1.0.1", "203.0.113.1")))
KINDS = pytest.mark.parametrize("kind", [TCP, UDP], ids=["tcp", "udp"])


class Group:
    """Records the clients for which this node's address was used."""

    def __init__(self):
        self.left = []
        self.serving = Serving()
        self.detours = {}

    def left_client_address(self, endpoint, client, now):
        self.left.append((client, endpoint, now))


class Dialling:
    """A connection or flow of a client."""

    def __init__(self, client=ALICE):
        self.address = (client, 40000)
        self.group = Group()
        self.is_preserved = False


@pytest.fixture
def node():
    """A namespace that the test's thread enters; replies to clients' addresses return to it."""
    node = Net("node")
    # The kernel adds the route of an IPv6 address later, and drops packets until then.
    # Source: net/ipv6/addrconf.c, addrconf_dad_work().
    node.run("""
        ip route add local 10.1.0.0/24 dev lo
        ip route add local 10.9.9.0/24 dev lo
        ip -6 address add fd00:1::1/128 dev lo nodad
        ip -6 route replace local fd00:1::1 dev lo
        ip -6 route add local fd00:9::/64 dev lo""")
    with node:
        yield node
    node.close()


@pytest.fixture
def server(node, request):
    """Yield a function that opens servers, which are closed at the end of the test."""
    opened = []

    def open_server(kind, ip=POD):
        family = socket.AF_INET6 if ":" in ip else socket.AF_INET
        sock = socket.socket(family, kind & ~socket.SOCK_NONBLOCK)
        opened.append(sock)
        sock.settimeout(DEADLINE_S)
        sock.bind((ip, 0))
        if kind == TCP:
            sock.listen()
        return sock, SocketAddress(*sock.getsockname()[:2])

    yield open_server
    for sock in opened:
        sock.close()


@pytest.fixture
def dialer():
    """A dialer with one source port, for endpoints whose replies return through this node."""
    dialer = ClientAddressDialer(KERNEL, ClientPorts(61000, 61000))
    dialer.is_on = True
    dialer.locality = Locality({"10.1.0.0/24": 1})
    return dialer


def outcome(fd):
    """Return the socket, on failure a new one, and the errno or 0; the caller closes the socket."""
    if fd < 0:
        return socket.socket(), -fd
    sock = KERNEL.socket(fd)
    KERNEL.disown(fd)
    return sock, 0


def dial(dialer, kind, client, at):
    is_tcp = kind == TCP
    return outcome(dialer.dial(client, at, False) if is_tcp else dialer.dial_flow(client, at))


def dial_for(dialer, dialling, kind, at, now, *, may_preserve):
    return outcome(dialer.dial_for(dialling, at, now, may_preserve, False, kind == UDP))


def seen(server, kind, sock):
    """Return the client's address as the server sees it."""
    with socket.socket(fileno=sock.detach()) as dialling:
        dialling.settimeout(DEADLINE_S)
        if kind == TCP:
            accepted, peer = server.accept()
            accepted.close()
        else:
            dialling.send(b"question")
            _, peer = server.recvfrom(100)
        return peer[:2]


@KINDS
@pytest.mark.parametrize(("client", "pod"), [(ALICE, POD), (ALICE_6, POD_6)], ids=["v4", "v6"])
def test_a_preserved_client_address_uses_a_port_outside_the_ephemeral_range(
    server, kind, client, pod
):
    listener, at = server(kind, pod)
    sock, number = dial(ClientAddressDialer(KERNEL), kind, client, at)
    assert number in (0, errno.EINPROGRESS)
    ip, port = seen(listener, kind, sock)
    assert ip == client
    assert FIRST_PORT <= port <= LAST_PORT


@KINDS
@pytest.mark.parametrize(
    ("is_on", "networks", "may_preserve"),
    [
        pytest.param(False, {"10.1.0.0/24": 1}, True, id="off"),
        pytest.param(True, {}, True, id="replies-go-elsewhere"),
        pytest.param(True, {"10.1.0.0/24": 1}, False, id="not-for-this-service"),
    ],
)
def test_without_a_preserved_address_the_endpoint_sees_this_node(
    server, dialer, kind, is_on, networks, may_preserve
):
    listener, at = server(kind)
    dialer.is_on, dialer.locality = is_on, Locality(networks)
    dialling = Dialling()
    dialling.is_preserved = True
    sock, _ = dial_for(dialer, dialling, kind, at, 0.0, may_preserve=may_preserve)
    assert not dialling.is_preserved
    assert seen(listener, kind, sock)[0] != ALICE


@KINDS
def test_a_client_address_is_preserved_if_replies_return_to_this_node(server, dialer, kind):
    listener, at = server(kind)
    dialling = Dialling()
    sock, _ = dial_for(dialer, dialling, kind, at, 0.0, may_preserve=True)
    assert dialling.is_preserved
    assert seen(listener, kind, sock) == (ALICE, 61000)


@KINDS
def test_without_a_free_port_an_endpoint_not_yet_reached_is_not_dialled(server, dialer, kind):
    """A network policy may deny the client; a dial from this node's address would bypass it."""
    _, at = server(kind)
    held, _ = dial(dialer, kind, ALICE, at)
    dialling = Dialling()
    sock, number = dial_for(dialer, dialling, kind, at, 0.0, may_preserve=True)
    assert number == errno.EADDRNOTAVAIL
    assert dialling.group.left == []
    sock.close()
    held.close()


def test_a_port_held_by_another_program_is_not_free(server, dialer):
    _, at = server(TCP)
    with socket.create_server(("0.0.0.0", 61000)):
        assert dialer.dial(ALICE, at, False) == -errno.EADDRNOTAVAIL


def test_without_a_free_port_a_reached_endpoint_sees_this_node_for_a_minute(server, dialer):
    _, at = server(TCP)
    held, _ = dial(dialer, TCP, ALICE, at)
    dialer.open_connections.add(ALICE, at)
    first, second, later = Dialling(), Dialling(), Dialling()
    sock, _ = dial_for(dialer, first, TCP, at, 100.0, may_preserve=True)
    assert not first.is_preserved
    assert first.group.left == [(ALICE, at, 100.0)]
    sock.close()
    # Reset the connection, so that its port isn't left in TIME_WAIT.
    held.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    held.close()
    sock, _ = dial_for(dialer, second, TCP, at, 159.0, may_preserve=True)
    assert not second.is_preserved
    assert second.group.left == []
    sock.close()
    sock, _ = dial_for(dialer, later, TCP, at, 300.0, may_preserve=True)
    assert later.is_preserved
    sock.close()


@pytest.mark.parametrize(("now", "is_served"), [(159.0, True), (300.0, False)])
def test_an_endpoint_counts_as_reached_for_a_minute_after_the_connection(
    server, dialer, now, is_served
):
    _, at = server(TCP)
    held, _ = dial(dialer, TCP, ALICE, at)
    dialer.ended_connections.note(ALICE, at, 100.0)
    sock, number = dial_for(dialer, Dialling(), TCP, at, now, may_preserve=True)
    assert (number != errno.EADDRNOTAVAIL) is is_served
    sock.close()
    held.close()


def test_without_a_free_port_a_flow_to_a_reached_endpoint_sees_this_node(server, dialer):
    listener, at = server(UDP)
    held, _ = dial(dialer, UDP, ALICE, at)
    dialer.answered_flows.add(ALICE, at)
    for _ in range(2):
        dialling = Dialling()
        sock, _ = dial_for(dialer, dialling, UDP, at, 0.0, may_preserve=True)
        assert dialling.group.left
        assert not dialling.is_preserved
        assert seen(listener, UDP, sock)[0] != ALICE
    held.close()


def test_a_free_port_is_found_among_many_in_use(server):
    _, at = server(TCP)
    dialer = ClientAddressDialer(KERNEL, ClientPorts(61000, 61009))
    dialled = [dial(dialer, TCP, ALICE, at) for _ in range(8)]
    assert [number for _, number in dialled] == [0] * 8
    assert len({sock.getsockname()[1] for sock, _ in dialled}) == 8
    for sock, _ in dialled:
        sock.close()


def test_only_flows_to_different_endpoints_share_a_source_port(server, dialer):
    first, second = server(UDP)[1], server(UDP, OTHER_POD)[1]
    dialled = [dial(dialer, UDP, ALICE, at) for at in (first, second, first)]
    assert [number for _, number in dialled] == [0, 0, errno.EADDRNOTAVAIL]
    assert [sock.getsockname() for sock, _ in dialled[:2]] == [(ALICE, 61000)] * 2
    for sock, _ in dialled:
        sock.close()


def test_a_released_source_port_is_reused(server, dialer):
    _, at = server(UDP)
    for _ in range(2):
        sock, number = dial(dialer, UDP, ALICE, at)
        assert (number, sock.getsockname()) == (0, (ALICE, 61000))
        dialer.release(sock, ALICE, at)
        sock.close()


@pytest.mark.parametrize("version", ["10.1.0.1", "fd00:1::1"])
def test_without_capabilities_the_nodes_address_is_used_and_this_is_logged_once(node, version):
    script = f"""
import logging, socket
from types import SimpleNamespace
from userspace_proxy.dataplane.calls import SystemCalls
from userspace_proxy.dataplane.client_address import ClientAddressDialer
from userspace_proxy.model import SocketAddress
from userspace_proxy.model.serving import Serving
from userspace_proxy.policy.locality import Locality

logging.basicConfig(format="%(message)s")
calls = SystemCalls(1)
dialer, at = ClientAddressDialer(calls), SocketAddress({version!r}, 80)
dialer.is_on, dialer.locality = True, Locality({{"10.1.0.0/24": 1, "fd00:1::/64": 1}})
client = "10.9.9.9" if "." in at.ip else "fd00:9::9"
for is_flow in (False, True):
    group = SimpleNamespace(detours={{}}, serving=Serving())
    dialling = SimpleNamespace(address=(client, 1), group=group, is_preserved=True)
    fd = dialer.dial_for(dialling, at, 0.0, True, False, is_flow)
    if fd >= 0:
        calls.close(fd)
    print(dialling.is_preserved)
"""
    done = subprocess.run(
        ["setpriv", "--bounding-set=-all", "--inh-caps=-all", sys.executable, "-c", script],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == (
        "cannot dial from client addresses, so endpoints see this node's address: "
        "Operation not permitted\n"
    )
    assert done.stdout == "False\nFalse\n"


def test_a_detoured_endpoint_is_dialled_from_this_nodes_address():
    with socket.create_server(("127.0.0.1", 0)) as server:
        there = SocketAddress(*server.getsockname())
        dialling, at = Dialling(), SocketAddress("10.1.0.1", 80)
        dialling.group.detours = {at: there}
        dialer = ClientAddressDialer(KERNEL)
        sock, number = dial_for(dialer, dialling, TCP, at, 0.0, may_preserve=True)
        server.accept()[0].close()
        assert (number, sock.getpeername()) == (0, there)
        sock.close()
        assert dialling.is_preserved is False


@KINDS
def test_an_endpoint_by_name_at_an_address_of_this_node_is_not_dialled(server, dialer, kind):
    _, at = server(kind)
    dialling = Dialling()
    dialling.group.serving = BY_NAME
    sock, number = dial_for(dialer, dialling, kind, at, 0.0, may_preserve=True)
    assert number == errno.ECANCELED
    sock.close()
    assert not dialling.is_preserved
    # Endpoints that aren't listed by name may have this address, even in the same Service.
    dialling.group.serving = Serving(handling=Handling(found_by_name=("203.0.113.1",)))
    sock, _ = dial_for(dialer, dialling, kind, at, 0.0, may_preserve=True)
    assert dialling.is_preserved
    sock.close()


@KINDS
def test_an_endpoint_by_name_at_a_remote_address_is_dialled(node, dialer, kind):
    node.run("ip link add v0 type veth peer name v1; ip link set v0 up; ip link set v1 up")
    node.run("ip address add 192.0.2.1/32 dev v0; ip route add 203.0.113.0/24 dev v0")
    dialling = Dialling()
    dialling.group.serving = BY_NAME
    at = SocketAddress("203.0.113.1", 80)
    sock, number = dial_for(dialer, dialling, kind, at, 0.0, may_preserve=False)
    assert number in (0, errno.EINPROGRESS)
    sock.close()


@pytest.fixture
def few_ports():
    return ClientPorts(61000, 61002)


def test_source_ports_are_allocated_round_robin(few_ports):
    first = [few_ports.next() for _ in range(3)]
    assert sorted(first) == [61000, 61001, 61002]
    assert [few_ports.next() for _ in range(3)] == first


def test_endpoints_of_a_client_port_are_tracked_until_removed(few_ports):
    few_ports.take(ALICE, 61000, POD_DNS)
    few_ports.take(ALICE, 61000, OTHER_DNS)
    assert few_ports.endpoints(ALICE, 61000) == (POD_DNS, OTHER_DNS)
    few_ports.give(ALICE, 61000, POD_DNS)
    assert few_ports.endpoints(ALICE, 61000) == (OTHER_DNS,)
    few_ports.give(ALICE, 61000, OTHER_DNS)
    assert few_ports.endpoints(ALICE, 61000) == ()
    assert few_ports._endpoints == {}


def test_releasing_an_unknown_flow_releases_no_other_flow(few_ports):
    few_ports.take(ALICE, 61000, POD_DNS)
    few_ports.give(ALICE, 61000, OTHER_DNS)
    few_ports.give(BOB, 40000, POD_DNS)
    assert few_ports.endpoints(ALICE, 61000) == (POD_DNS,)


# The number of dials to an endpoint from ports that the kernel chooses: a quarter of the ephemeral
# range, which has 16 ports in these tests.
EASY = 4
OURS = range(61000, 61004)


@pytest.fixture
def ephemeral(monkeypatch, tmp_path):
    path = tmp_path / "ip_local_port_range"
    path.write_text("40000\t40015\n")
    monkeypatch.setattr(module, "EPHEMERAL", EphemeralPorts(path))


@pytest.fixture(params=["127.0.0.1", "::1"], ids=["v4", "v6"])
def listening(node, request):
    family = socket.AF_INET6 if ":" in request.param else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.settimeout(DEADLINE_S)
        listener.bind((request.param, 0))
        listener.listen()
        yield listener


@pytest.fixture
def from_node(node, ephemeral):
    return NodeAddressDialer(KERNEL, ClientPorts(OURS[0], OURS[-1]), 1)


def dial_from_node(from_node, at, now=0.0):
    fd = from_node.dial(at, now, False)
    sock = KERNEL.socket(fd)
    KERNEL.disown(fd)
    return socket.socket(fileno=sock.detach())


def source_port(from_node, listening, now=0.0):
    """Dial, and close this side first; return the source port that the server saw."""
    at = SocketAddress(*listening.getsockname()[:2])
    sock = dial_from_node(from_node, at, now)
    accepted, peer = listening.accept()
    with accepted:
        sock.close()
        assert accepted.recv(1) == b""
    return peer[1]


def are_ours(from_node, listening, count, now=0.0):
    return [source_port(from_node, listening, now) in OURS for _ in range(count)]


def test_an_endpoint_with_many_dials_is_dialled_from_explicitly_bound_ports(from_node, listening):
    assert are_ours(from_node, listening, EASY + 2) == [False] * EASY + [True] * 2


async def test_workers_divide_the_dials_from_kernel_chosen_ports(listening, ephemeral, monkeypatch):
    loop = asyncio.get_running_loop()
    with contextlib.closing(Engine(loop, Tuning(processes=EASY))) as engine:
        monkeypatch.setattr(sys.modules[__name__], "KERNEL", engine.reactor.calls)
        dialer = engine.client_dialer._node_dialer
        used = [source_port(dialer, listening) for _ in range(2)]
    assert [FIRST_PORT <= port <= LAST_PORT for port in used] == [False, True]


def test_ports_in_time_wait_are_reused(from_node, listening):
    are_ours(from_node, listening, EASY)
    used = [source_port(from_node, listening) for _ in range(3 * len(OURS))]
    assert sorted(used) == sorted([*OURS] * 3)


def test_bound_ports_are_used_until_an_endpoint_had_few_dials_for_a_minute(from_node, listening):
    are_ours(from_node, listening, EASY + 1, now=0.0)
    assert are_ours(from_node, listening, 1, now=60.0) == [True]
    assert are_ours(from_node, listening, 1, now=120.0) == [False]


def test_an_endpoint_with_few_dials_gets_kernel_chosen_ports(from_node, listening):
    are_ours(from_node, listening, EASY + 1)
    with socket.create_server(("127.0.0.1", 0)) as other:
        other.settimeout(DEADLINE_S)
        assert are_ours(from_node, other, 1) == [False]


def test_the_kernel_chooses_a_port_if_all_bound_ports_are_in_use(from_node, listening):
    taken = []
    try:
        for port in OURS:
            taken.append(socket.socket(listening.family, socket.SOCK_STREAM))
            taken[-1].bind(("::" if listening.family == socket.AF_INET6 else "0.0.0.0", port))
            taken[-1].listen()
        assert are_ours(from_node, listening, EASY + 2) == [False] * (EASY + 2)
    finally:
        for sock in taken:
            sock.close()


def test_ports_in_use_to_the_same_endpoint_are_skipped(from_node, listening):
    at = SocketAddress(*listening.getsockname()[:2])
    are_ours(from_node, listening, EASY)
    held = [dial_from_node(from_node, at) for _ in range(len(OURS) + 1)]
    found = [listening.accept() for _ in held]
    assert [peer[1] in OURS for _, peer in found] == [True] * len(OURS) + [False]
    for sock in (*held, *(accepted for accepted, _ in found)):
        sock.close()


def test_bound_ports_are_used_if_the_kernels_range_is_exhausted(node, from_node, listening):
    at = SocketAddress(*listening.getsockname()[:2])
    node.run("sysctl -qw net.ipv4.ip_local_port_range='40000 40001'")
    held = [dial_from_node(from_node, at) for _ in range(3)]
    found = [listening.accept() for _ in held]
    assert [peer[1] in OURS for _, peer in found] == [False, False, True]
    for sock in (*held, *(accepted for accepted, _ in found)):
        sock.close()


def test_a_dial_without_a_free_port_fails_with_eaddrnotavail(node, from_node, listening):
    at = SocketAddress(*listening.getsockname()[:2])
    node.run("sysctl -qw net.ipv4.ip_local_port_range='40000 40001'")
    held = [dial_from_node(from_node, at) for _ in range(2 + len(OURS))]
    assert from_node.dial(at, 0.0, False) == -errno.EADDRNOTAVAIL
    for sock in held:
        sock.close()


@pytest.mark.parametrize(
    ("port", "expected"), [(40000, True), (61000, True), (65535, True), (8080, False)]
)
def test_only_ephemeral_and_client_ports_may_be_source_ports(ephemeral, port, expected):
    assert may_be_source(port, 0.0) is expected
