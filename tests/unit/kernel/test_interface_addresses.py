"""The addresses in a listing that belong to the node; tests/node changes addresses."""

import asyncio
import ipaddress
import socket
import struct

import pytest

from tests.netns import Net
from tests.unit.kernel.netlink.datagrams import Kernel, done, error, message
from userspace_proxy.errors import SteeringError
from userspace_proxy.kernel import interface_addresses
from userspace_proxy.kernel.interface_addresses import (
    NodeAddresses,
    OwnAddressCheck,
    list_addresses,
    read_addresses,
)
from userspace_proxy.kernel.netlink.messages import attribute
from userspace_proxy.kernel.node_listings import NodeListings

TENTATIVE, OPTIMISTIC, DAD_FAILED, PERMANENT = 0x40, 0x04, 0x08, 0x80
NEWADDR, NEWLINK = 20, 16


def address(*, local=None, peer=None, flags=PERMANENT, wide=True, link=1):
    """Return the body of an RTM_NEWADDR message."""
    packed = [ipaddress.ip_address(ip).packed if ip else None for ip in (peer, local)]
    family = socket.AF_INET6 if len(packed[0] or packed[1]) == 16 else socket.AF_INET
    body = struct.pack("=BBBBI", family, 24, flags & 0xFF, 0, link)
    body += b"".join(attribute(kind, ip) for kind, ip in zip((1, 2), packed, strict=True) if ip)
    return body + (
        attribute(3, b"eth0\0") + attribute(8, struct.pack("=I", flags)) if wide else b""
    )


def read(*bodies, kind=NEWADDR):
    """Return the node's addresses in a listing that has one datagram for each address."""
    with Kernel(*(message(kind, body) for body in bodies), done()) as kernel:
        return read_addresses(NodeListings(kernel.requests), 0.0)[0]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        pytest.param(address(local="10.1.0.1", peer="10.1.0.1"), ("10.1.0.1",), id="ipv4"),
        pytest.param(address(peer="fd00:1::1"), ("fd00:1::1",), id="ipv6"),
        pytest.param(address(peer="127.0.0.1"), ("127.0.0.1",), id="loopback"),
        pytest.param(address(peer="::1", wide=False), ("::1",), id="without-long-flags"),
        pytest.param(address(peer="fe80::1"), (), id="link-local"),
        pytest.param(address(peer="169.254.20.10"), ("169.254.20.10",), id="ipv4-link-local"),
        pytest.param(address(peer="fd00::1", flags=TENTATIVE), (), id="not-answering-yet"),
        pytest.param(
            address(peer="fd00::1", flags=TENTATIVE | OPTIMISTIC), ("fd00::1",), id="optimistic"
        ),
        pytest.param(address(peer="fd00::1", flags=DAD_FAILED), (), id="duplicate"),
    ],
)
def test_link_local_ipv6_tentative_and_duplicate_addresses_are_omitted(body, expected):
    assert read(body) == expected


def test_addresses_assigned_to_the_node_for_services_are_omitted(monkeypatch):
    monkeypatch.setattr(interface_addresses, "_LENDERS", ("no-such-interface", "lo"))
    assert socket.if_nametoindex("lo") == 1
    assert read(address(local="10.96.0.10"), address(local="10.1.0.1", link=2)) == ("10.1.0.1",)


def test_listed_addresses_are_sorted_and_unique():
    found = read(address(peer="10.2.0.1"), address(peer="10.1.0.1"), address(peer="10.2.0.1"))
    assert found == ("10.1.0.1", "10.2.0.1")


def test_a_rejected_listing_of_addresses_is_an_error():
    with Kernel(error(1)) as kernel, pytest.raises(PermissionError):
        read_addresses(NodeListings(kernel.requests), 0.0)


def test_unrelated_messages_and_messages_without_an_address_are_skipped():
    assert read(struct.pack("=BBBBI", 2, 24, 0, 0, 1)) == ()
    assert read(address(peer="10.1.0.1"), kind=NEWLINK) == ()


async def test_the_listed_addresses_include_loopback():
    addresses = NodeAddresses(asyncio.get_running_loop(), lambda: None)
    addresses.close()
    addresses.close()
    assert "127.0.0.1" in addresses.current
    assert list_addresses() == addresses.current


async def test_a_kernel_that_lists_no_addresses_is_an_error(monkeypatch):
    monkeypatch.setattr("userspace_proxy.kernel.followed_listing.NETLINK_ROUTE", 99)
    with pytest.raises(SteeringError, match="cannot list this node's addresses"):
        NodeAddresses(asyncio.get_running_loop(), lambda: None)


# The kernel adds the local route of an IPv6 address later (addrconf_dad_work in net/ipv6).
SETUP = """
ip link add v0 type veth peer name v1
ip link set v0 up
ip link set v1 up
ip address add 198.51.100.1/24 dev v0
ip address add 198.51.100.2/24 dev v0
ip -6 address add 2001:db8::1/64 dev v0 nodad
ip -6 route replace local 2001:db8::1 dev lo
ip route add 203.0.113.0/24 via 198.51.100.9
ip route add local 192.0.2.0/24 dev lo
ip route add blackhole 192.88.99.0/24
"""


@pytest.fixture
def net():
    made = Net("node")
    made.run(SETUP)
    yield made
    made.close()


@pytest.fixture
def check(net):
    return OwnAddressCheck()


@pytest.mark.parametrize(
    ("ip", "is_own"),
    [
        pytest.param("198.51.100.1", True, id="interface"),
        pytest.param("198.51.100.255", True, id="broadcast"),
        pytest.param("127.9.9.9", True, id="loopback"),
        pytest.param("192.0.2.77", True, id="local-route"),
        pytest.param("2001:db8::1", True, id="ipv6-interface"),
        pytest.param("::1", True, id="ipv6-loopback"),
        pytest.param("198.51.100.9", False, id="neighbour"),
        pytest.param("10.1.2.3", False, id="no-route"),
        pytest.param("192.88.99.1", False, id="blackhole"),
    ],
)
def test_addresses_with_a_local_or_broadcast_route_count_as_the_nodes_own(net, check, ip, is_own):
    with net:
        assert check.has(ip) is is_own


def test_an_address_counts_as_the_nodes_own_as_soon_as_it_is_added(net, check):
    with net:
        assert not check.has("198.51.100.9")
    net.run("ip address add 198.51.100.9/24 dev v0")
    assert check.has("198.51.100.9")


def test_if_the_kernel_does_not_respond_an_address_counts_as_the_nodes_own(monkeypatch):
    class Silent:
        @staticmethod
        def open(_protocol):
            raise TimeoutError("the kernel doesn't answer")

    monkeypatch.setattr(interface_addresses, "Requests", Silent)
    assert OwnAddressCheck().has("203.0.113.1")
