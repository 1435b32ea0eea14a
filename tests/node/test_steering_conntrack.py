"""Conntrack entries read by netlink, compared with conntrack(8)'s output."""

from __future__ import annotations

import contextlib
import socket
import struct

import pytest
import steering_nodes as nodes

from userspace_proxy.kernel.conntrack import (
    FULL_LISTING_ABOVE,
    Change,
    StaleEntries,
    list_entries,
    remove_entries,
)
from userspace_proxy.kernel.ctnetlink import (
    IPS_SEEN_REPLY,
    EntryFilter,
    pack_address,
    remove_request,
)
from userspace_proxy.kernel.netlink import Requests
from userspace_proxy.kernel.netlink.sockets import NETLINK_NETFILTER
from userspace_proxy.model import SocketAddress

pytestmark = [pytest.mark.netns, pytest.mark.needs("conntrack netlink")]
TCP, UDP = socket.IPPROTO_TCP, socket.IPPROTO_UDP
CLIENTS = 3000
DNS = SocketAddress("10.96.0.10", 53)
# Enough frontends that all entries are listed at once, and not by frontend.
MANY = [SocketAddress(f"10.96.1.{number}", 53) for number in range(FULL_LISTING_ABOVE + 1)]
WEB, LOST = SocketAddress("10.96.7.1", 80), SocketAddress("10.96.7.2", 80)
OTHER = SocketAddress("10.96.7.3", 80)
IPS = {4: (nodes.NODE_IP, "10.96.0.10"), 6: (nodes.NODE_IP6, "fd00:96::a")}
FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
# Enables connection tracking, and drops datagrams, so that no program answers.
TRACK = r"""
    nft add table inet track
    nft add chain inet track tracked { type filter hook output priority 0\; }
    nft add rule inet track tracked ct state invalid drop
    nft add chain inet track dns { type nat hook output priority -100\; }
    nft add rule inet track dns udp dport 5353 redirect to :36002
    # To send thousands may take longer than the 30 s after which the kernel forgets them.
    sysctl -qw net.netfilter.nf_conntrack_udp_timeout=600"""


@pytest.fixture
def node():
    """A node with connection tracking; the test's thread is in its namespace."""
    nodes.need_namespaces()
    cluster = nodes.Cluster()
    cluster.node.run(TRACK)
    with cluster.node:
        yield cluster.node
    cluster.close()


def send(node: nodes.Net, frontends: list[SocketAddress], times: int, version: int = 4) -> None:
    """Send datagrams to each frontend in turn, each datagram from its own source port."""
    for number in range(times):
        with node.udp(FAMILIES[version]) as client:
            client.bind((IPS[version][0], 20000 + number))
            client.sendto(b"question", frontends[number % len(frontends)])


def listed(node: nodes.Net, version: int, protocol: str = "udp") -> set[tuple[str, ...]]:
    """Return client, dialled address and reply source of each entry in conntrack(8)'s output."""
    text = node.run(f"conntrack -L -f ipv{version} -p {protocol} 2>/dev/null")
    found = set()
    for line in text.splitlines():
        words = [word.partition("=")[2] for word in line.split() if "=" in word]
        src, dst, sport, dport, from_ip, _, from_port, *_ = words
        found.add((src, sport, dst, dport, from_ip, from_port))
    return found


def forget(
    protocol: int, dialled: list[SocketAddress], *, before=(), now=None, version: int = 4
) -> int:
    with contextlib.closing(StaleEntries()) as entries:
        changes = [Change(protocol, one, before, now) for one in dialled]
        return entries.forget_changed(version, changes)


def ours(version: int, wanted: EntryFilter) -> set[tuple[str, ...]]:
    """Return the same as :func:`listed`, read by the product."""

    def show(packed: bytes) -> tuple[str, str]:
        ip = socket.inet_ntop(FAMILIES[version], packed[:-2])
        return ip, str(int.from_bytes(packed[-2:], "big"))

    with Requests.open(NETLINK_NETFILTER) as requests:
        return {
            (*show(entry.client), *show(entry.dialled), *show(entry.answered_from))
            for entry in list_entries(requests, version, wanted)
        }


@pytest.mark.parametrize("version", [4, 6])
def test_thousands_of_conntrack_entries_are_read_as_by_the_conntrack_tool(node, version):
    ip = IPS[version][1]
    send(node, [SocketAddress(ip, 53), SocketAddress(ip, 5353)], CLIENTS, version)
    read = ours(version, EntryFilter(socket.IPPROTO_UDP))
    assert len(read) >= CLIENTS
    assert read == listed(node, version)
    assert {entry[5] for entry in read if entry[3] == "5353"} == {"36002"}


@pytest.mark.kernel
@pytest.mark.parametrize(
    "targets",
    [pytest.param([DNS], id="filtered-listing"), pytest.param([DNS, *MANY], id="full-listing")],
)
def test_only_conntrack_entries_of_the_given_frontends_are_removed(node, targets):
    send(node, [DNS, SocketAddress(DNS.ip, 54), SocketAddress("10.96.0.11", 53)], CLIENTS)
    before = listed(node, 4)
    assert forget(UDP, targets, now=36002) == CLIENTS // 3
    gone = before - listed(node, 4)
    assert len(gone) == CLIENTS // 3
    assert {entry[2:4] for entry in gone} == {("10.96.0.10", "53")}


@pytest.mark.parametrize("version", [4, 6])
def test_only_outdated_conntrack_entries_are_deleted(node, version):
    steered = SocketAddress(IPS[version][1], 5353)
    send(node, [steered], 10, version)
    assert forget(UDP, [steered], now=36002, version=version) == 0
    assert forget(UDP, [steered], now=36003, version=version) == 10
    assert listed(node, version) == set()


def test_only_conntrack_entries_that_lead_to_the_old_port_of_a_frontend_are_deleted(node):
    send(node, [SocketAddress(DNS.ip, 5353)], 10)
    assert forget(UDP, [SocketAddress(DNS.ip, 5353)], before=(36003,)) == 0
    assert forget(UDP, [SocketAddress(DNS.ip, 5353)], before=(36002,)) == 10


def test_entries_that_have_expired_since_the_listing_are_skipped(node):
    wanted = EntryFilter(socket.IPPROTO_UDP, *DNS)
    send(node, [DNS], CLIENTS)
    with Requests.open(NETLINK_NETFILTER) as requests:
        removals = [remove_request(entry) for entry in list_entries(requests, 4, wanted)]
        remove_entries(requests, removals[::2])
        remove_entries(requests, removals)
        assert list(list_entries(requests, 4, wanted)) == []


def test_removing_a_conntrack_entry_removes_no_newer_entry_with_its_port(node):
    wanted = EntryFilter(socket.IPPROTO_UDP, *DNS)
    send(node, [DNS], 1)
    with Requests.open(NETLINK_NETFILTER) as requests:
        (before,) = list_entries(requests, 4, wanted)
        now = before
        # A new entry that reuses the memory of a freed entry has the same ID.
        while remove_request(now) == remove_request(before):
            node.run("conntrack -D -p udp")
            send(node, [DNS], 1)
            (now,) = list_entries(requests, 4, wanted)
        remove_entries(requests, [remove_request(before)])
        (after,) = list_entries(requests, 4, wanted)
    assert (after.client, after.dialled) == (before.client, before.dialled)


@pytest.mark.kernel
def test_only_conntrack_entries_of_unanswered_syns_to_the_frontends_are_removed(node):
    node.run(f"ip address add {WEB.ip} dev lo")
    with nodes.tcp_server(node, 80), node.tcp() as opened:
        opened.connect(WEB)
        with dialling(node, LOST), dialling(node, OTHER):
            assert forget(TCP, [WEB, LOST], now=36001) == 1
            dialled = {entry[2:4] for entry in listed(node, 4, "tcp")}
            assert dialled == {(WEB.ip, "80"), (OTHER.ip, "80")}


@pytest.mark.parametrize("frontends", [[WEB], [WEB, *MANY]], ids=["one", "many"])
def test_conntrack_entries_of_reset_connections_to_the_frontends_are_removed(node, frontends):
    node.run(f"ip address add {WEB.ip} dev lo; ip address add {OTHER.ip} dev lo")
    reset = struct.pack("ii", 1, 0)
    with nodes.tcp_server(node, 80) as server:
        for frontend in (WEB, OTHER):
            with node.tcp() as client:
                client.connect(frontend)
                with server.accept()[0] as accepted:
                    accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
        # The entry of a connection that was reset after a FIN is kept: it doesn't prevent a new
        # connection from the same port.
        with node.tcp() as ended:
            ended.connect(WEB)
            ended.shutdown(socket.SHUT_WR)
            with server.accept()[0] as accepted:
                accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
        with node.tcp() as opened:
            opened.connect(WEB)
            assert forget(TCP, frontends, before=(36002,), now=36001) == 1
            dialled = [entry[2] for entry in listed(node, 4, "tcp")]
            assert sorted(dialled) == [WEB.ip, WEB.ip, OTHER.ip]


def test_the_kernel_omits_conntrack_entries_with_an_excluded_status(node):
    node.run(f"ip address add {WEB.ip} dev lo")
    wanted = EntryFilter(socket.IPPROTO_TCP, without=IPS_SEEN_REPLY)
    with (
        nodes.tcp_server(node, 80),
        node.tcp() as opened,
        dialling(node, LOST),
        Requests.open(NETLINK_NETFILTER) as requests,
    ):
        opened.connect(WEB)
        entries = list(list_entries(requests, 4, wanted))
    assert [entry.dialled for entry in entries] == [pack_address(*LOST)]


def dialling(node: nodes.Net, frontend: SocketAddress) -> socket.socket:
    """Return a socket whose SYN is in flight to an address that no host has."""
    client = node.tcp()
    client.setblocking(False)
    client.connect_ex(frontend)
    return client
