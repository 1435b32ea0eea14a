"""Finding the process that holds a port, with real sockets and processes."""

import contextlib
import os
import socket
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest

from tests.processes import started
from userspace_proxy.kernel import port_holders
from userspace_proxy.kernel.port_holders import (
    PortHolder,
    connected_at,
    held_ports,
    holders_at,
    owners_of,
    serves,
    who_holds,
)
from userspace_proxy.model import Frontend, IPFamily, Protocol, SocketAddress

OPEN = """
import socket, sys
sock = socket.socket(int(sys.argv[1]), int(sys.argv[2]))
if sys.argv[5:]:
    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(sys.argv[5]))
sock.bind((sys.argv[3], int(sys.argv[4])))
if sock.type == socket.SOCK_STREAM:
    sock.listen()
print(sock.getsockname()[1], flush=True)
sys.stdin.read()
"""
# A new namespace has no other socket, whatever port number the kernel chooses.
pytestmark = pytest.mark.usefixtures("node")
V4, V6 = socket.AF_INET, socket.AF_INET6
TCP, UDP = socket.SOCK_STREAM, socket.SOCK_DGRAM


@pytest.fixture
def daemon():
    """Yield a function that starts a process with one socket, and returns process and port."""
    stack = contextlib.ExitStack()

    def start(family, kind, ip, *options):
        # Fail here if the kernel lacks the address family.
        socket.socket(family, kind).close()
        arguments = [str(int(family)), str(int(kind)), ip, "0", *options]
        process = stack.enter_context(started([sys.executable, "-IS", "-c", OPEN, *arguments]))
        return process, int(process.stdout.readline())

    with stack:
        yield start


def named(process):
    comm = Path(f"/proc/{process.pid}/comm").read_text().strip()
    return PortHolder(comm, process.pid)


def own():
    return PortHolder(Path("/proc/self/comm").read_text().strip(), os.getpid())


@pytest.mark.parametrize(
    ("family", "kind", "ip", "asked"),
    [
        pytest.param(V4, TCP, "0.0.0.0", IPFamily.IPV4, id="tcp-everywhere"),
        pytest.param(V4, TCP, "127.0.0.1", IPFamily.IPV4, id="tcp-on-one-address"),
        pytest.param(V6, TCP, "::1", IPFamily.IPV6, id="tcp6"),
        pytest.param(V4, UDP, "127.0.0.1", IPFamily.IPV4, id="udp"),
        pytest.param(V6, UDP, "::", IPFamily.IPV6, id="udp6"),
        pytest.param(V6, TCP, "::", IPFamily.IPV4, id="ipv4-clients-of-a-tcp6-listener"),
        pytest.param(V6, UDP, "::", IPFamily.IPV4, id="ipv4-clients-of-a-udp6-socket"),
    ],
)
def test_the_process_that_holds_a_port_is_identified(daemon, family, kind, ip, asked):
    process, port = daemon(family, kind, ip, *(["0"] if ip == "::" else []))
    protocol = Protocol.TCP if kind == TCP else Protocol.UDP
    assert who_holds(protocol, port, asked) == named(process)


def test_an_ipv4_mapped_listener_serves_only_ipv4_clients(daemon):
    process, port = daemon(V6, TCP, "::ffff:127.0.0.1", "0")
    assert who_holds(Protocol.TCP, port, IPFamily.IPV4) == named(process)
    assert who_holds(Protocol.TCP, port, IPFamily.IPV6) is None


def test_tcp_and_udp_are_searched_separately(daemon):
    _, port = daemon(V4, TCP, "127.0.0.1")
    assert who_holds(Protocol.UDP, port, IPFamily.IPV4) is None


def test_a_port_of_an_exited_process_has_no_holder(daemon):
    process, port = daemon(V4, TCP, "127.0.0.1")
    process.kill()
    process.wait(30)
    assert who_holds(Protocol.TCP, port, IPFamily.IPV4) is None


def test_a_connected_udp_client_is_not_a_holder():
    with socket.socket(V4, UDP) as client, socket.socket(V4, UDP) as peer:
        peer.bind(("127.0.0.1", 0))
        client.connect(peer.getsockname())
        assert who_holds(Protocol.UDP, client.getsockname()[1], IPFamily.IPV4) is None


def test_a_tcp_connection_does_not_hold_a_port():
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as client,
    ):
        assert who_holds(Protocol.TCP, client.getsockname()[1], IPFamily.IPV4) is None


def test_a_shared_socket_is_attributed_to_its_first_process():
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        started(["cat"], pass_fds=[server.fileno()]),
    ):
        port = server.getsockname()[1]
        (held,) = (h for h in held_ports(Protocol.TCP) if serves(h, port, IPFamily.IPV4))
        owner = owners_of({held.inode})[held.inode]
    assert owner.pid == os.getpid()


def test_this_process_is_found_even_if_other_processes_have_many_descriptors(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        count = len(list(Path("/proc/self/fd").iterdir()))
        monkeypatch.setattr(port_holders, "DESCRIPTORS_MAX", count)
        inode = os.fstat(server.fileno()).st_ino
        assert owners_of({inode, 0}) == {inode: own(), 0: port_holders.NOT_FOUND}


def test_many_descriptors_of_one_process_do_not_hide_the_holder(daemon, monkeypatch):
    process, port = daemon(V4, TCP, "127.0.0.1")
    monkeypatch.setattr(port_holders, "OF_PROCESS_MAX", 4)
    assert who_holds(Protocol.TCP, port, IPFamily.IPV4) == named(process)


def test_without_sockets_no_owners_are_found():
    assert owners_of(()) == {}
    assert owners_of({0}) == {}


@pytest.mark.parametrize("kind", [TCP, UDP])
@pytest.mark.parametrize(
    ("family", "ip", "held", "free"),
    [
        (V4, "127.0.0.3", ("127.0.0.3", "0.0.0.0", "::"), ("127.0.0.4", "::1")),
        (V4, "0.0.0.0", ("127.0.0.3", "0.0.0.0", "::"), ("::1",)),
        (V6, "::1", ("::1", "::"), ("127.0.0.1", "0.0.0.0")),
        (V6, "::", ("::1", "::", "127.0.0.1", "0.0.0.0"), ()),
        (V6, "::ffff:127.0.0.3", ("127.0.0.3", "0.0.0.0", "::"), ("127.0.0.4", "::1")),
    ],
)
def test_a_socket_holds_the_addresses_that_others_cannot_bind(daemon, kind, family, ip, held, free):
    process, port = daemon(family, kind, ip)
    protocol = Protocol.TCP if kind == TCP else Protocol.UDP
    addresses = [SocketAddress(each, port) for each in (*held, *free)]
    holders = holders_at(addresses, protocol)
    assert holders == dict.fromkeys(addresses[: len(held)], named(process))
    for at in addresses:
        with socket.socket(V6 if ":" in at.ip else V4, kind) as other:
            may_not = pytest.raises(OSError, match="in use") if at in holders else nullcontext()
            with may_not:
                other.bind(tuple(at))


@pytest.mark.parametrize(
    ("holder", "words"),
    [
        (PortHolder("nginx", 812), "nginx (pid 812)"),
        (PortHolder("", 812), "pid 812"),
        (PortHolder("another program"), "another program"),
    ],
)
def test_a_holder_is_formatted_with_name_and_pid(holder, words):
    assert str(holder) == words


@pytest.mark.parametrize(
    ("family", "ip"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")]
)
def test_a_frontend_with_an_open_connection_is_in_use(node, family, ip):
    with socket.create_server((ip, 0), family=family) as server:
        port = server.getsockname()[1]
        web, other = Frontend(ip, port, Protocol.TCP), Frontend(ip, 1, Protocol.TCP)
        assert {web, other} & connected_at({web.ip}) == set()
        with socket.create_connection((ip, port)):
            accepted, _ = server.accept()
            assert {web, other} & connected_at(["10.96.7.1", "fd00:96::1", web.ip]) == {web}
            assert connected_at({"10.96.7.1", "fd00:96::1"}) == set()
            accepted.close()
