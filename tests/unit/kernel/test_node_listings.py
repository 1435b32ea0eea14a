"""When a listing of the kernel is requested again, and which values are used until then."""

from __future__ import annotations

import ipaddress
import socket
import struct
import weakref

import pytest

from tests.netns import Net
from tests.unit.kernel.netlink.datagrams import INTERRUPTED, Kernel, done, message
from userspace_proxy.kernel import node_listings
from userspace_proxy.kernel.netlink import rtnetlink
from userspace_proxy.kernel.netlink.messages import attribute
from userspace_proxy.kernel.netlink.sockets import LISTINGS
from userspace_proxy.kernel.node_listings import NodeListings

NEW_ADDRESS = 20
CART, SHOP = "10.1.0.1", "10.1.0.2"


class Clock:
    """The clocks of a thread; each listing advances its CPU time."""

    def __init__(self, takes_s: float = 0.0) -> None:
        self.now, self._cpu, self._takes_s = 100.0, 0.0, takes_s

    def __call__(self) -> float:
        return self.now

    def cpu(self) -> float:
        self._cpu += self._takes_s
        return self._cpu


def address(ip: str) -> bytes:
    body = struct.pack("=BBBBI", socket.AF_INET, 32, 0x80, 0, 1)
    return body + attribute(2, ipaddress.ip_address(ip).packed)


def answers(*listings: list[str], interrupted: bool = False, first: int = 1) -> list[bytes]:
    """Return datagrams that list addresses, with the sequence numbers of the requests."""
    flags = INTERRUPTED if interrupted else 2
    found = []
    for number, ips in enumerate(listings, first):
        found += [message(NEW_ADDRESS, address(ip), number=number, flags=flags) for ip in ips]
        found.append(done(number))
    return found


def ips(listed) -> list[str]:
    return [one.ip for one in listed.items]


def test_watchers_of_the_same_change_share_a_listing():
    clock = Clock()
    with Kernel(*answers([CART])) as kernel:
        listings = NodeListings(kernel.requests, clock, clock.cpu)
        first, second = (listings.addresses(99.0) for _ in range(2))
    assert (ips(first), first.is_current) == ([CART], True)
    assert second.items is first.items


@pytest.mark.parametrize(
    ("takes_s", "rest_s"),
    [
        pytest.param(0.2, 1.0, id="once-a-second"),
        pytest.param(0.02, 0.4, id="a-twentieth-of-a-cpu"),
    ],
)
def test_a_listing_requested_too_early_has_the_previous_values(takes_s, rest_s):
    clock = Clock(takes_s)
    with Kernel(*answers([CART], [CART, SHOP])) as kernel:
        listings = NodeListings(kernel.requests, clock, clock.cpu)
        listings.addresses(99.0)
        clock.now = 99.99 + rest_s
        early = listings.addresses(clock.now)
        clock.now = 100.01 + rest_s
        due = listings.addresses(clock.now)
    assert (ips(early), early.is_current) == ([CART], False)
    assert (ips(due), due.is_current) == ([CART, SHOP], True)


def test_a_quick_listing_is_repeated_without_a_pause():
    clock = Clock(0.001)
    with Kernel(*answers([CART], [CART, SHOP])) as kernel:
        listings = NodeListings(kernel.requests, clock, clock.cpu)
        listings.addresses(99.0)
        clock.now = 100.001
        after = listings.addresses(clock.now)
    assert (ips(after), after.is_current) == ([CART, SHOP], True)


def test_an_always_interrupted_listing_has_the_previous_values_and_is_retried_later():
    """With 20 new pods a second, all listings may be interrupted; this must not end the proxy."""
    clock = Clock()
    disturbed = answers(*[[SHOP]] * LISTINGS, interrupted=True, first=2)
    with Kernel(*answers([CART]), *disturbed, *answers([SHOP], first=LISTINGS + 2)) as kernel:
        listings = NodeListings(kernel.requests, clock, clock.cpu)
        listings.addresses(99.0)
        kept = listings.addresses(clock.now + 1)
        clock.now += 1
        later = listings.addresses(clock.now)
    assert (ips(kept), kept.is_current) == ([CART], False)
    assert (ips(later), later.is_current) == ([SHOP], True)


def test_the_first_listing_is_used_even_if_interrupted():
    disturbed = answers(*[[CART]] * LISTINGS, interrupted=True)
    with Kernel(*disturbed) as kernel:
        first = NodeListings(kernel.requests).addresses(99.0)
    assert (ips(first), first.is_current) == ([CART], False)


def test_only_changed_messages_are_parsed(monkeypatch):
    parsed = []
    read_address = rtnetlink.read_address
    monkeypatch.setattr(
        node_listings.rtnetlink,
        "read_address",
        lambda message: parsed.append(message.body) or read_address(message),
    )
    clock = Clock()
    with Kernel(*answers([CART], [CART, SHOP], [CART])) as kernel:
        listings = NodeListings(kernel.requests, clock, clock.cpu)
        found = []
        for _ in range(3):
            clock.now += 1
            found.append(ips(listings.addresses(clock.now)))
    assert found == [[CART], [CART, SHOP], [CART]]
    assert parsed == [address(CART), address(SHOP)]


def test_an_unchanged_listing_is_the_same_object():
    clock = Clock()
    with Kernel(*answers([CART], [CART])) as kernel:
        listings = NodeListings(kernel.requests, clock, clock.cpu)
        before = listings.addresses(clock.now).items
        clock.now += 1
        assert listings.addresses(clock.now).items is before


@pytest.fixture
def other_node():
    node = Net("node")
    yield node
    node.close()


def test_threads_share_the_listings_of_a_network_namespace_while_in_use(other_node):
    here = NodeListings.here()
    assert NodeListings.here() is here
    with other_node:
        there = NodeListings.here()
        assert there is not here
        assert there is NodeListings.here()
    left = weakref.ref(there)
    del there
    assert left() is None
