"""Tracks the addresses of this node's interfaces; asks the kernel whether an address is local.

Addresses are listed in a thread, so that the loop never waits: see ``followed_listing``.

Source: rtnetlink(7), include/uapi/linux/if_addr.h.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import socket
from collections.abc import Callable, Container

from ..clocks import Clocks
from .followed_listing import FollowedListing
from .netlink import Requests, explained, rtnetlink
from .netlink.rtnetlink import ListedAddress
from .netlink.sockets import NETLINK_ROUTE
from .node_listings import NodeListings

_IFA_F_OPTIMISTIC = 0x04
_IFA_F_DADFAILED = 0x08
_IFA_F_TENTATIVE = 0x40
_LINK_LOCAL = ipaddress.IPv6Network("fe80::/10")

# Interfaces to which kube-proxy in mode ipvs, kube-router and NodeLocal DNSCache assign the cluster
# IPs of Services. Source: DefaultDummyDevice in pkg/proxy/ipvs; -interfacename of node-cache.
_LENDERS = ("kube-ipvs0", "kube-dummy-if", "nodelocaldns")

_GROUPS = (rtnetlink.GROUP_ADDRESS_4, rtnetlink.GROUP_ADDRESS_6)


class NodeAddresses:
    """The current addresses of this node.

    Args:
        changed: Called in the loop after :attr:`current` has changed.

    Raises:
        SteeringError: The kernel doesn't list addresses.
    """

    current: tuple[str, ...]
    """Addresses of all interfaces and both families in canonical form, sorted as text, with
    loopback. IPv6 link-local addresses are omitted, because a client must name an interface to dial
    them, as are addresses whose duplicate address detection has failed or isn't finished, and
    cluster IPs that other programs have assigned to interfaces."""

    def __init__(self, loop: asyncio.AbstractEventLoop, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._followed = FollowedListing(loop, "addresses", _GROUPS, read_addresses, self._take)
        self.current = self._followed.first

    def close(self) -> None:
        """Stop following; ``current`` stays as it is. Idempotent."""
        self._followed.close()

    def _take(self, addresses: tuple[str, ...]) -> None:
        if addresses != self.current:
            self.current = addresses
            self._changed()


def list_addresses() -> tuple[str, ...]:
    """List the addresses of this thread's network namespace, as in :attr:`NodeAddresses.current`.

    Raises:
        SteeringError: The kernel doesn't list them.
    """
    with explained("list this node's addresses"):
        return read_addresses(NodeListings.here(), Clocks.monotonic())[0]


def read_addresses(listings: NodeListings, since: float) -> tuple[tuple[str, ...], bool]:
    """List the addresses of a network namespace, as in :attr:`NodeAddresses.current`.

    Returns: The addresses, and whether they are current as of ``since`` (monotonic seconds).

    Raises:
        OSError: The kernel refused the listing.
    """
    listed = listings.addresses(since)
    lent = frozenset(map(_index, _LENDERS))
    found = {_read(one, lent) for one in listed.items}
    return tuple(sorted(found - {""})), listed.is_current


def _index(interface: str) -> int:
    """Return the index of an interface; 0 if there is no such interface."""
    try:
        return socket.if_nametoindex(interface)
    except OSError:
        return 0


def _read(address: ListedAddress, lent: Container[int]) -> str:
    """Return a listed address; empty if :attr:`NodeAddresses.current` omits it.

    Args:
        lent: Indexes of the interfaces whose addresses are cluster IPs of Services.
    """
    if address.link in lent:
        return ""
    flags = address.flags
    is_tentative = flags & _IFA_F_TENTATIVE and not flags & _IFA_F_OPTIMISTIC
    if not address.ip or is_tentative or flags & _IFA_F_DADFAILED:
        return ""
    is_link_local = ":" in address.ip and ipaddress.IPv6Address(address.ip) in _LINK_LOCAL
    return "" if is_link_local else address.ip


# An address without a route isn't local; a dial to it reports the kernel's reason.
_NO_ROUTE = frozenset({errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES, errno.EINVAL})


class OwnAddressCheck:
    """A query that asks the kernel whether it would deliver packets to an address locally.

    Unlike a list of addresses, the routing table includes secondary addresses, local routes to
    whole networks, broadcast addresses of links, and the latest changes. A query takes 8 µs.
    Source: rtnetlink(7), RTM_GETROUTE; ip-route(8) for the kinds of routes.

    The network namespace of the first calling thread applies. The socket is closed with the object.
    """

    def __init__(self) -> None:
        self._requests: Requests | None = None

    def has(self, ip: str) -> bool:
        """Return whether the kernel delivers an address locally; True if that is unknown."""
        try:
            if self._requests is None:
                self._requests = Requests.open(NETLINK_ROUTE)
            route = rtnetlink.read_route(self._requests.ask(rtnetlink.find_route(ip)))
        except OSError as exc:
            return exc.errno not in _NO_ROUTE
        return route.kind != rtnetlink.UNICAST

    def __del__(self) -> None:
        if self._requests is not None:
            self._requests.close()
