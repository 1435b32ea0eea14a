"""The packets that a filter admits, by interpreting its program and on real sockets."""

import contextlib
import errno
import ipaddress
import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from userspace_proxy.kernel import source_filter
from userspace_proxy.kernel.source_filter import (
    SO_ATTACH_FILTER,
    _program,
    admit,
    admit_all,
    admit_only,
    cannot_admit,
)
from userspace_proxy.model import Protocol, SocketAddress

from ..dataplane.peers import Peer, UdpPeer, address_of, dial

TCP, UDP = Protocol.TCP, Protocol.UDP
KINDS = {TCP: socket.SOCK_STREAM, UDP: socket.SOCK_DGRAM}
BOTH = pytest.mark.parametrize("protocol", list(Protocol))
ALICE, BOB = "127.0.0.2", "127.0.1.3"
EVERYBODY = 0xFFFFFFFF


def passes(program, source):
    """Run a program on a packet with this source; return whether the packet passes."""
    header = ipaddress.ip_address(source)
    packet = bytes(12 if header.version == 4 else 8) + header.packed
    accumulator = place = 0
    while True:
        code, jump_true, jump_false, k = program[place]
        place += 1
        if code == 0x20:
            accumulator = struct.unpack_from(">I", packet, k - 0xFFF00000)[0]
        elif code == 0x54:
            accumulator &= k
        elif code == 0x15:
            place += jump_true if accumulator == k else jump_false
        else:
            assert (code, k) in ((0x06, EVERYBODY), (0x06, 0))
            return k == EVERYBODY


@pytest.mark.parametrize(
    ("networks", "source", "expected"),
    [
        pytest.param(["203.0.113.7/32"], "203.0.113.7", True, id="v4-one-address"),
        pytest.param(["203.0.113.7/32"], "203.0.113.6", False, id="v4-another-address"),
        pytest.param(["203.0.112.0/23"], "203.0.113.255", True, id="v4-last-of-a-network"),
        pytest.param(["203.0.112.0/23"], "203.0.114.0", False, id="v4-behind-a-network"),
        pytest.param(["128.0.0.0/1"], "255.255.255.255", True, id="v4-half-of-all"),
        pytest.param(["128.0.0.0/1"], "127.255.255.255", False, id="v4-the-other-half"),
        pytest.param(["0.0.0.0/0"], "198.51.100.1", True, id="v4-all"),
        pytest.param(["::/0"], "198.51.100.1", False, id="v4-of-the-other-family"),
        pytest.param([], "198.51.100.1", False, id="v4-none"),
        pytest.param(["2001:db8::7/128"], "2001:db8::7", True, id="v6-one-address"),
        pytest.param(["2001:db8::7/128"], "2001:db8:1::7", False, id="v6-differs-in-word-1"),
        pytest.param(["2001:db8::7/128"], "2001:db8::1:0:7", False, id="v6-differs-in-word-2"),
        pytest.param(["2001:db8::7/128"], "2001:db8::6", False, id="v6-differs-in-word-3"),
        pytest.param(["2001:db8::/33"], "2001:db8:7fff::1", True, id="v6-beyond-a-word"),
        pytest.param(["2001:db8::/33"], "2001:db8:8000::1", False, id="v6-behind-a-network"),
        pytest.param(["2001:db8::/64"], "2001:db8::ffff:0:0:1", True, id="v6-two-words"),
        pytest.param(["fc00::/7"], "fdff::1", True, id="v6-less-than-a-word"),
        pytest.param(["::/0"], "2001:db8::1", True, id="v6-all"),
        pytest.param(["0.0.0.0/0"], "2001:db8::1", False, id="v6-of-the-other-family"),
    ],
)
def test_a_source_passes_the_filter_if_a_network_contains_it(networks, source, expected):
    program = _program(ipaddress.ip_address(source).version, networks)
    assert passes(program, source) == expected


def networks_of(addresses, bits):
    """Return a strategy that draws networks, half of them with long prefixes."""
    drawn = st.tuples(addresses, st.integers(0, bits) | st.integers(bits - 8, bits))
    return st.lists(drawn.map(lambda n: ipaddress.ip_network(n, strict=False)), max_size=12)


@pytest.mark.parametrize(("version", "bits"), [(4, 32), (6, 128)])
@given(data=st.data())
def test_the_source_filter_agrees_with_the_ipaddress_module(version, bits, data):
    addresses = st.ip_addresses(v=version)
    networks = data.draw(networks_of(addresses, bits))
    program = _program(version, [str(network) for network in networks])
    edges = [address for n in networks for address in (n[0], n[-1])]
    near = [e + step for e in edges for step in (-1, 0, 1) if 0 <= int(e) + step < 1 << bits]
    for source in {*near, *data.draw(st.lists(addresses, max_size=5))}:
        expected = any(source in network for network in networks)
        assert passes(program, str(source)) == expected, source


def test_nested_networks_add_no_instructions():
    many = [f"10.0.{number}.0/24" for number in range(256)]
    assert _program(4, many) == _program(4, ["10.0.0.0/16", "10.0.7.7/32"])


def listening(stack, protocol, ip="127.0.0.1", admits=()):
    """Return a socket that admits these networks."""
    family = socket.AF_INET6 if ":" in ip else socket.AF_INET
    sock = stack.enter_context(socket.socket(family, KINDS[protocol]))
    sock.setblocking(False)
    admit_only(sock, admits)
    sock.bind((ip, 0))
    if protocol is TCP:
        sock.listen()
    return sock


@pytest.fixture
def stack():
    with contextlib.ExitStack() as stack:
        yield stack


def knocks(stack, sock, client, to=None):
    """Return whether a client is admitted; on loopback a SYN or datagram arrives immediately."""
    at = SocketAddress(to, address_of(sock).port) if to else address_of(sock)
    if sock.type == socket.SOCK_DGRAM:
        stack.enter_context(contextlib.closing(UdpPeer(client, to=at))).send(b"knock")
        with contextlib.suppress(BlockingIOError):
            return sock.recv(100) == b"knock"
        return False
    peer = stack.enter_context(contextlib.closing(Peer(socket.socket(sock.family))))
    peer.sock.bind((client, 0))
    peer.sock.connect_ex(at)
    with contextlib.suppress(BlockingIOError):
        sock.accept()[0].close()
        return True
    assert peer.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0, "the SYN was refused"
    return False


@BOTH
@pytest.mark.parametrize(
    ("admits", "expected"),
    [
        pytest.param(["127.0.0.0/24"], (True, False), id="a-network"),
        pytest.param([f"{ALICE}/32", f"{BOB}/32"], (True, True), id="two-addresses"),
        pytest.param(["0.0.0.0/0"], (True, True), id="all"),
        pytest.param([], (False, False), id="none"),
        pytest.param(["::/0"], (False, False), id="the-other-family"),
        pytest.param(
            [*(f"203.0.{n // 128}.{n % 128 * 2}/32" for n in range(200)), f"{BOB}/32"],
            (False, True),
            id="many-networks",
        ),
    ],
)
def test_only_clients_in_the_networks_are_admitted(stack, protocol, admits, expected):
    sock = listening(stack, protocol, admits=admits)
    assert (knocks(stack, sock, ALICE), knocks(stack, sock, BOB)) == expected


@BOTH
@pytest.mark.parametrize(
    ("admits", "expected"),
    [
        pytest.param(["::1/128"], True, id="its-address"),
        pytest.param(["::/120"], True, id="its-network"),
        pytest.param(["::/0"], True, id="all"),
        pytest.param(["::2/128"], False, id="another-address"),
        pytest.param(["0.0.0.0/0"], False, id="the-other-family"),
        pytest.param([], False, id="none"),
    ],
)
def test_ipv6_clients_are_filtered(stack, protocol, admits, expected):
    assert knocks(stack, listening(stack, protocol, "::1", admits), "::1") == expected


@BOTH
def test_the_networks_of_a_listening_socket_can_be_changed(stack, protocol):
    sock = listening(stack, protocol, admits=[f"{ALICE}/32"])
    seen = []
    for networks in ([f"{BOB}/32"], None, [], None, None):
        admit(sock, networks)
        seen.append((knocks(stack, sock, ALICE), knocks(stack, sock, BOB)))
    assert seen == [(False, True), (True, True), (False, False), (True, True), (True, True)]


def test_admit_all_on_a_socket_without_a_filter_does_nothing(stack):
    admit_all(stack.enter_context(socket.socket()))


async def test_an_open_connection_continues_after_its_client_is_no_longer_admitted(stack):
    sock = listening(stack, TCP, admits=[f"{ALICE}/32"])
    client = stack.enter_context(contextlib.closing(await dial(address_of(sock), source=ALICE)))
    server = stack.enter_context(contextlib.closing(Peer(sock.accept()[0])))
    admit_only(sock, [])
    await client.send(b"still here")
    assert await server.read() == b"still here"


def test_too_many_networks_are_an_error_and_the_old_filter_stays_attached(stack):
    sock = listening(stack, UDP, admits=[f"{ALICE}/32"])
    too_many = [f"10.{n // 128}.{n % 128 * 2}.0/24" for n in range(2000)]
    with pytest.raises(OSError, match="too many source ranges"):
        admit_only(sock, too_many)
    assert (knocks(stack, sock, ALICE), knocks(stack, sock, BOB)) == (True, False)


def test_equal_networks_are_compiled_only_once_even_if_the_program_is_too_long(stack, monkeypatch):
    """A Service may have thousands of ports, and compiling 1,000 networks takes 24 ms."""
    compiled = []

    def compile_(version, networks):
        compiled.append(networks)
        return _program(version, networks)

    monkeypatch.setattr(source_filter, "_program", compile_)
    for _ in range(3):
        sock = listening(stack, TCP, admits=[f"{ALICE}/32", "198.51.100.77/32"])
        assert knocks(stack, sock, ALICE)
        with pytest.raises(OSError, match="too many source ranges"):
            admit_only(sock, [f"10.{n // 128}.{n % 128 * 2}.0/24" for n in range(1500)])
    assert [len(networks) for networks in compiled] == [2, 1500]


@pytest.mark.parametrize(
    ("number", "hint"),
    [
        (errno.EPERM, " (this kernel needs CAP_NET_ADMIN for that: run as root, or grant it)"),
        (errno.ENOMEM, " (list fewer networks, or raise the sysctl net.core.optmem_max)"),
        (errno.EINVAL, " (list fewer networks)"),
        (errno.ENOPROTOOPT, ""),
    ],
)
def test_a_rejected_filter_is_an_error_with_a_remedy(number, hint):
    error = cannot_admit(SocketAddress("10.96.0.1", 80), TCP, OSError(number, "Refused"))
    assert str(error) == f"cannot limit which clients reach 10.96.0.1:80/TCP: Refused{hint}"


def test_the_kernel_recognizes_the_attach_filter_option(stack):
    """Python's socket module has no constant for this option."""
    sock = stack.enter_context(socket.socket())
    with pytest.raises(OSError, match="Invalid argument"):
        sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, b"")
