import asyncio
import errno
import os
import select
import socket
import sys

import pytest

from tests.netns import DEADLINE_S, Net
from tests.tcp_servers import serving
from userspace_proxy.kernel.socket_options import (
    _MAX_KNOWN,
    IP_PKTINFO,
    IP_TTL,
    IPV6_PKTINFO,
    IPV6_UNICAST_HOPS,
    Destinations,
    buffered_bytes,
    destination_of,
    hops_left,
    keep_icmp_errors,
    reply_from,
    reset,
    reset_no_more,
    reset_on_close,
    send_at_once,
    send_held,
    set_freebind,
    set_hop_limit,
    set_ip_option,
    take_icmp_errors,
)

ABSENT = {socket.AF_INET: "198.51.100.7", socket.AF_INET6: "2001:db8::7"}


@pytest.fixture(params=ABSENT, ids=["IPv4", "IPv6"])
def sock(request):
    with socket.socket(request.param) as sock:
        yield sock


def test_with_freebind_a_socket_can_bind_a_nonlocal_address(sock):
    address = ABSENT[sock.family], 0
    with pytest.raises(OSError, match="assign"):
        sock.bind(address)
    set_freebind(sock)
    sock.bind(address)
    assert sock.getsockname()[0] == address[0]


def test_the_hop_limit_option_of_the_family_is_set(sock):
    option = (
        (socket.IPPROTO_IPV6, IPV6_UNICAST_HOPS)
        if sock.family == socket.AF_INET6
        else (socket.IPPROTO_IP, IP_TTL)
    )
    set_hop_limit(sock, 7)
    assert sock.getsockopt(*option) == 7
    set_ip_option(sock, IP_TTL, IPV6_UNICAST_HOPS, 9)
    assert sock.getsockopt(*option) == 9


def test_received_bytes_count_as_buffered_until_read():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))
        assert buffered_bytes(receiver) == 0
        receiver.sendto(bytes(10_000), receiver.getsockname())
        assert buffered_bytes(receiver) >= 10_000
        receiver.recv(10_000)
        assert buffered_bytes(receiver) == 0


def test_held_bytes_are_sent_when_flushed():
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as sender,
        server.accept()[0] as receiver,
    ):
        receiver.setblocking(False)
        send_held(sender, b"held")
        # On loopback, a packet arrives before send() returns.
        try:
            receiver.recv(4)
        except BlockingIOError:
            pass
        else:
            raise AssertionError("the bytes weren't held")
        send_at_once(sender)
        assert receiver.recv(4) == b"held"


def test_setting_an_option_on_a_closed_socket_is_ignored():
    sock = socket.socket()
    sock.close()
    send_at_once(sock)


def test_the_peer_sees_a_reset_and_a_second_reset_is_ignored(run):
    async def main():
        async def accepted(_reader, writer):
            reset(writer)
            reset(writer)

        async with serving(accepted) as address:
            reader, writer = await asyncio.open_connection(*address)
            with pytest.raises(ConnectionResetError):
                await reader.read()
            writer.close()

    run(main())


@pytest.mark.parametrize("is_undone", [False, True])
def test_reset_on_close_sends_a_reset_unless_revoked(is_undone):
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(server.getsockname())
        accepted, _ = server.accept()
    with client:
        reset_on_close(accepted)
        if is_undone:
            reset_no_more(accepted)
        accepted.close()
        if is_undone:
            assert client.recv(1) == b""
        else:
            with pytest.raises(ConnectionResetError):
                client.recv(1)


def test_resetting_a_closed_socket_is_ignored():
    sock = socket.socket()
    sock.close()
    reset_on_close(sock)


# On this link, ARP is tried once and fails immediately.
QUICK = "sysctl -qw net.ipv4.neigh.eth9.mcast_solicit=1 net.ipv4.neigh.eth9.retrans_time_ms=10"
ROUTER, SILENT, BEHIND = "10.99.0.2", "10.99.0.77", "10.98.0.1"
MAC = "02:00:00:00:00:02"


@pytest.fixture
def node():
    node, router = Net("node"), Net("router")
    node.run(f"""
        ip link add eth9 type veth peer name far9 address {MAC}
        ip link set far9 netns /proc/{os.getpid()}/fd/{router.fd}
        ip link set eth9 up; ip address add 10.99.0.1/24 dev eth9; {QUICK}
        ip neighbour add {ROUTER} lladdr {MAC} dev eth9
        ip route add 10.98.0.0/16 via {ROUTER}; ip route add 10.97.0.0/16 via {ROUTER}
        """)
    router.run(f"""
        sysctl -qw net.ipv4.ip_forward=1
        ip link set far9 up; ip address add {ROUTER}/24 dev far9
        ip route add unreachable 10.98.0.0/16; ip route add 10.97.0.0/16 via 10.99.0.1
        """)
    for net, link in ((node, "eth9"), (router, "far9")):
        # Until the kernel has noticed that the link is up, it drops packets.
        net.run(f"until ip -brief link show {link} | grep -q ' UP '; do :; done")
    yield node
    node.close()
    router.close()


def error_of(node, ip, *, hops=64):
    """Return the socket error that a datagram to a port without a listener causes."""
    with node.udp() as sock:
        keep_icmp_errors(sock)
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, hops)
        sock.connect((ip, 53))
        sock.setblocking(False)
        assert take_icmp_errors(sock) is None
        sock.send(b"question")
        poll = select.poll()
        poll.register(sock, select.POLLERR)
        assert poll.poll(DEADLINE_S * 1000)
        found = take_icmp_errors(sock)
        assert poll.poll(0) == [], "an error is still queued"
        with pytest.raises(BlockingIOError):
            sock.recv(1)
        return found


@pytest.mark.parametrize(
    ("ip", "number"),
    [
        pytest.param(SILENT, errno.EHOSTUNREACH, id="no-host-answers-arp"),
        pytest.param(BEHIND, errno.EHOSTUNREACH, id="a-router-has-no-route"),
        pytest.param(ROUTER, errno.ECONNREFUSED, id="nothing-listens"),
    ],
)
def test_an_icmp_error_is_reported_as_its_errno(node, ip, number):
    assert error_of(node, ip) == number


def test_an_exceeded_hop_limit_does_not_count_as_a_refusal(node):
    assert error_of(node, "10.97.0.1", hops=1) == 0


def test_an_oversized_datagram_does_not_count_as_a_refusal(node):
    with node.udp() as sock:
        keep_icmp_errors(sock)
        # IP_MTU_DISCOVER, IP_PMTUDISC_DO: never fragment.
        sock.setsockopt(socket.IPPROTO_IP, 10, 2)
        sock.connect((ROUTER, 53))
        sock.setblocking(False)
        with pytest.raises(OSError, match="Message too long"):
            sock.send(bytes(3000))
        assert take_icmp_errors(sock) == 0


def test_icmpv6_errors_are_reported_as_their_errno(node):
    with node.udp(socket.AF_INET6) as sock:
        keep_icmp_errors(sock)
        sock.connect(("::1", 53))
        sock.setblocking(False)
        sock.send(b"question")
        poll = select.poll()
        poll.register(sock, select.POLLERR)
        assert poll.poll(DEADLINE_S * 1000)
        assert take_icmp_errors(sock) == errno.ECONNREFUSED


V4 = socket.inet_aton("192.0.2.1")
V6 = socket.inet_pton(socket.AF_INET6, "2001:db8::1")
INTERFACE = (7).to_bytes(4, "little")

ARRIVED_V4 = (socket.IPPROTO_IP, IP_PKTINFO, INTERFACE + V4 + socket.inet_aton("198.51.100.9"))
LINK_LOCAL = socket.inet_pton(socket.AF_INET6, "fe80::1")
ARRIVED_LINK_LOCAL = (socket.IPPROTO_IPV6, IPV6_PKTINFO, LINK_LOCAL + INTERFACE)
ARRIVED_V6 = (socket.IPPROTO_IPV6, IPV6_PKTINFO, V6 + INTERFACE)
HOPS = (socket.IPPROTO_IP, IP_TTL, (64).to_bytes(4, sys.byteorder))
OTHER = (socket.SOL_SOCKET, 29, b"a timestamp")


@pytest.mark.parametrize(
    ("ancillary", "local"),
    [
        pytest.param([ARRIVED_V4], (IP_PKTINFO, V4), id="ipv4"),
        pytest.param([OTHER, ARRIVED_V6], (IPV6_PKTINFO, V6), id="ipv6-behind-another"),
        pytest.param(
            [ARRIVED_LINK_LOCAL], (IPV6_PKTINFO, LINK_LOCAL + INTERFACE), id="with-its-interface"
        ),
        pytest.param([OTHER], None, id="missing"),
    ],
)
def test_the_destination_address_of_a_datagram_is_read(ancillary, local):
    assert destination_of(ancillary) == local


@pytest.mark.parametrize(
    ("local", "ancillary"),
    [
        ((IP_PKTINFO, V4), [(socket.IPPROTO_IP, IP_PKTINFO, bytes(4) + V4 + bytes(4))]),
        ((IPV6_PKTINFO, V6), [(socket.IPPROTO_IPV6, IPV6_PKTINFO, V6 + bytes(4))]),
        ((IPV6_PKTINFO, LINK_LOCAL + INTERFACE), [ARRIVED_LINK_LOCAL]),
        (None, []),
    ],
)
def test_a_reply_has_the_destination_as_source_and_an_interface_if_link_local(local, ancillary):
    assert reply_from(local) == ancillary


def test_the_key_of_a_destination_ignores_the_interface():
    destinations = Destinations()
    other_interface = (*ARRIVED_V4[:2], bytes(4) + ARRIVED_V4[2][4:])
    first = destinations.of([ARRIVED_V4])
    assert first == destinations.of([other_interface])
    assert first.reply == reply_from(destination_of([ARRIVED_V4]))
    assert destinations.known == {ARRIVED_V4: first, other_interface: first}


def test_a_destination_after_another_item_is_not_cached():
    destinations = Destinations()
    assert destinations.of([OTHER, ARRIVED_V6]).key == V6
    assert destinations.known == {}


def test_a_destination_is_cached_without_the_hop_limit():
    destinations = Destinations()
    first = destinations.of([ARRIVED_V4, HOPS])
    assert destinations.known == {ARRIVED_V4: first}


def test_without_a_destination_in_the_ancillary_data_the_key_is_empty():
    destinations = Destinations()
    first = destinations.of([HOPS])
    assert (first.key, first.reply) == (b"", [])
    assert destinations.known == {HOPS: first}


def test_the_hop_limit_of_a_datagram_is_read():
    assert hops_left(HOPS) == 64


def test_more_destinations_than_the_cache_holds_are_still_read_correctly():
    destinations = Destinations()
    for number in range(2 * _MAX_KNOWN):
        own = socket.inet_aton(f"10.0.{number >> 8}.{number & 255}")
        item = (socket.IPPROTO_IP, IP_PKTINFO, INTERFACE + own + V4)
        assert destinations.of([item]).key == own
        assert len(destinations.known) <= _MAX_KNOWN
