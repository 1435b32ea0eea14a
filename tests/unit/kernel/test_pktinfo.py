"""The local address of a datagram, read and written as the kernel has it."""

import socket
import sys

import pytest

from userspace_proxy.kernel.pktinfo import (
    _MAX_KNOWN,
    IP_PKTINFO,
    IPV6_PKTINFO,
    Destinations,
    destination_of,
    hops_left,
    reply_from,
)
from userspace_proxy.kernel.socket_options import IP_TTL

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
def test_the_local_address_is_read(ancillary, local):
    assert destination_of(ancillary) == local


@pytest.mark.parametrize(
    ("local", "ancillary"),
    [
        pytest.param(
            (IP_PKTINFO, V4),
            [(socket.IPPROTO_IP, IP_PKTINFO, bytes(4) + V4 + bytes(4))],
            id="ipv4-any-interface",
        ),
        pytest.param(
            (IPV6_PKTINFO, V6),
            [(socket.IPPROTO_IPV6, IPV6_PKTINFO, V6 + bytes(4))],
            id="ipv6-any-interface",
        ),
        pytest.param(
            (IPV6_PKTINFO, LINK_LOCAL + INTERFACE), [ARRIVED_LINK_LOCAL], id="link-local-by-its-own"
        ),
        pytest.param(None, [], id="a-bound-socket-needs-none"),
    ],
)
def test_a_reply_leaves_from_there_by_any_interface(local, ancillary):
    assert reply_from(local) == ancillary


def test_a_destination_is_known_by_its_address_whatever_the_interface():
    destinations = Destinations()
    other_interface = (*ARRIVED_V4[:2], bytes(4) + ARRIVED_V4[2][4:])
    first = destinations.of([ARRIVED_V4])
    assert first == destinations.of([other_interface])
    assert first.reply == reply_from(destination_of([ARRIVED_V4]))
    assert destinations.known == {ARRIVED_V4: first, other_interface: first}


def test_a_destination_behind_another_item_is_not_cached():
    destinations = Destinations()
    assert destinations.of([OTHER, ARRIVED_V6]).key == V6
    assert destinations.known == {}


def test_a_destination_is_remembered_without_the_hop_limit():
    destinations = Destinations()
    first = destinations.of([ARRIVED_V4, HOPS])
    assert destinations.known == {ARRIVED_V4: first}


def test_a_bound_socket_has_one_destination():
    destinations = Destinations()
    first = destinations.of([HOPS])
    assert (first.key, first.reply) == (b"", [])
    assert destinations.known == {HOPS: first}


def test_the_hop_limit_is_read():
    assert hops_left(HOPS) == 64


def test_no_more_destinations_are_remembered_than_a_node_may_have():
    destinations = Destinations()
    for number in range(3000):
        local = number.to_bytes(4, "big")
        item = (socket.IPPROTO_IP, IP_PKTINFO, INTERFACE + local + local)
        assert destinations.of([item]).key == local
    assert len(destinations.known) <= 1024


def test_of_twice_as_many_addresses_as_are_remembered_each_has_its_destination():
    destinations = Destinations()
    for number in range(2 * _MAX_KNOWN):
        own = socket.inet_aton(f"10.0.{number >> 8}.{number & 255}")
        item = (socket.IPPROTO_IP, IP_PKTINFO, INTERFACE + own + V4)
        assert destinations.of([item]).key == own
        assert len(destinations.known) <= _MAX_KNOWN
