"""Parses at which local address a datagram arrived, to reply from there, and its hop limit.

The kernel puts the local address first and the hop limit last.

Source: ip(7) IP_PKTINFO and IP_RECVTTL, ipv6(7) IPV6_PKTINFO and IPV6_RECVHOPLIMIT; the order is
    that of ip_cmsg_recv_offset() in net/ipv4/ip_sockglue.c and ip6_datagram_recv_ctl()'s.
"""

from __future__ import annotations

import _socket
import struct
import sys
from typing import NamedTuple

# Not in Python's socket module; linux/in.h and linux/in6.h.
IP_PKTINFO = 8
IPV6_PKTINFO = 50

ANCILLARY_BYTES = 128
"""Room for what the kernel adds to a datagram."""

# Addresses, or addresses and interfaces; a node has a handful.
_MAX_KNOWN = 1024

AncillaryItem = tuple[int, int, bytes]
"""One item of an :data:`Ancillary`."""

Ancillary = list[AncillaryItem]
"""Level, type and data, for ``sendmsg`` and from ``recvmsg``."""


def destination_of(ancillary: Ancillary) -> tuple[int, bytes] | None:
    """Return the type and bytes of the local address at which a datagram arrived.

    ``struct in_pktinfo`` is ifindex, spec_dst, addr; ``struct in6_pktinfo`` is addr, ifindex, which
    is kept with a link-local address.
    """
    for level, kind, data in ancillary:
        if level == _socket.IPPROTO_IP and kind == IP_PKTINFO:
            return IP_PKTINFO, data[4:8]
        if level == _socket.IPPROTO_IPV6 and kind == IPV6_PKTINFO:
            # A link-local address means nothing without its interface. REDIRECT uses one if a pod's
            # link has no other.
            is_link_local = data[0] == 0xFE and data[1] & 0xC0 == 0x80
            return IPV6_PKTINFO, data[: 20 if is_link_local else 16]
    return None


def reply_from(local: tuple[int, bytes] | None) -> Ancillary:
    """Return what makes a reply leave from there; interface 0: routing decides."""
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
    """A local address at which datagrams arrive."""

    key: bytes
    """Identifies it among those of one socket; empty if the kernel doesn't report it."""
    reply: Ancillary
    """Makes a reply leave from there."""


class Destinations:
    """The local addresses at which datagrams of one socket arrived; parsing one takes 0.4 µs."""

    def __init__(self) -> None:
        self.known: dict[AncillaryItem, Destination] = {}
        """By the kernel's first item; for others call :meth:`of`."""

    def of(self, ancillary: Ancillary) -> Destination:
        """Return the destination of a datagram, and add it to :attr:`known`."""
        local = destination_of(ancillary)
        destination = Destination(b"" if local is None else local[1], reply_from(local))
        if local is None or destination_of(ancillary[:1]) == local:
            if len(self.known) >= _MAX_KNOWN:
                self.known.clear()
            self.known[ancillary[0]] = destination
        return destination
