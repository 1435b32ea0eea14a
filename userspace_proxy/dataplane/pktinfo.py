"""Which local address a datagram arrived at, how its reply leaves from there, and its hop limit.

The kernel puts the local address first and the hop limit last.

Source: ip(7) IP_PKTINFO and IP_RECVTTL, ipv6(7) IPV6_PKTINFO and IPV6_RECVHOPLIMIT; the order is
that of ip_cmsg_recv_offset() in net/ipv4/ip_sockglue.c and ip6_datagram_recv_ctl()'s.
"""

from __future__ import annotations

import _socket
import struct
import sys
from typing import NamedTuple

from .sockets import IP_PKTINFO, IPV6_PKTINFO

ANCILLARY_BYTES = 128
"""Room for what the kernel says beside a datagram."""

# Addresses by interfaces; a node has a handful.
_MAX_KNOWN = 1024

AncillaryItem = tuple[int, int, bytes]
"""One item of an :data:`Ancillary`."""

Ancillary = list[AncillaryItem]
"""As ``sendmsg`` takes it and ``recvmsg`` gives it: level, type, data."""


def destination_of(ancillary: Ancillary) -> tuple[int, bytes] | None:
    """Return the type and address of the local address that a datagram arrived at.

    A link-local one has its interface behind it.

    ``struct in_pktinfo``: ifindex, spec_dst, addr; ``struct in6_pktinfo``: addr, ifindex.
    """
    for level, kind, data in ancillary:
        if level == _socket.IPPROTO_IP and kind == IP_PKTINFO:
            return IP_PKTINFO, data[4:8]
        if level == _socket.IPPROTO_IPV6 and kind == IPV6_PKTINFO:
            # A link-local address says nothing without its interface: REDIRECT takes one where
            # a pod's link has no other.
            is_link_local = data[0] == 0xFE and data[1] & 0xC0 == 0x80
            return IPV6_PKTINFO, data[: 20 if is_link_local else 16]
    return None


def reply_from(local: tuple[int, bytes] | None) -> Ancillary:
    """Make what lets a reply leave from there; interface 0: routing decides."""
    if local is None:
        return []
    kind, ip = local
    if kind == IP_PKTINFO:
        return [(_socket.IPPROTO_IP, IP_PKTINFO, struct.pack("=I4s4s", 0, ip, bytes(4)))]
    return [(_socket.IPPROTO_IPV6, IPV6_PKTINFO, ip.ljust(20, b"\0"))]


def hops_left(hop_limit: AncillaryItem) -> int:
    """Return the TTL or hop limit with which a datagram arrived."""
    return int.from_bytes(hop_limit[2], sys.byteorder)


class Destination(NamedTuple):
    """A local address that datagrams arrive at."""

    key: bytes
    """Tells it from the others of one socket; empty where the kernel doesn't say."""
    reply: Ancillary
    """What lets a reply leave from there."""


class Destinations:
    """The local addresses that the datagrams of one socket arrived at.

    Each datagram says it in the same few bytes, so they are read once (some 0.4 µs).
    """

    def __init__(self) -> None:
        self.known: dict[AncillaryItem, Destination] = {}
        """By the kernel's first item; who finds none here asks :meth:`of`."""

    def of(self, ancillary: Ancillary) -> Destination:
        """Return the destination of a datagram, and know it the next time."""
        local = destination_of(ancillary)
        destination = Destination(b"" if local is None else local[1], reply_from(local))
        if local is None or destination_of(ancillary[:1]) == local:
            if len(self.known) >= _MAX_KNOWN:
                self.known.clear()
            self.known[ancillary[0]] = destination
        return destination
