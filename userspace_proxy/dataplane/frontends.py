"""Finds the address that a client dialled, which kernel rules may have translated.

Source: Linux's getorigdst() in net/netfilter/nf_conntrack_proto.c, which answers for TCP only;
    linux/netfilter_ipv4.h and linux/netfilter_ipv6/ip6_tables.h.
"""

from __future__ import annotations

import _socket
import struct
from typing import NamedTuple

from ..model import SocketAddress

# The socket option's number in both families, which Python's socket module lacks.
SO_ORIGINAL_DST = 80
# Struct sockaddr_in and sockaddr_in6 up to the address.
_IPV4, _IPV4_BYTES = struct.Struct("!2xH4s"), 16
_IPV6, _IPV6_BYTES = struct.Struct("!2xH4x16s"), 28


class Announced(NamedTuple):
    """The contents of a PROXY header besides the client's address."""

    via: SocketAddress
    """The peer that sent the header."""
    frontend: SocketAddress
    """The address that the client dialled at the peer."""


def dialled_at(client: _socket.socket) -> SocketAddress | None:
    """Return the address that the client of an accepted TCP socket dialled.

    A redirected connection has a conntrack entry, which contains the address; without an entry it
    is the socket's own address. Returns None if the kernel reports neither.
    """
    is_ipv6 = client.family == _socket.AF_INET6
    try:
        if is_ipv6:
            raw = client.getsockopt(_socket.IPPROTO_IPV6, SO_ORIGINAL_DST, _IPV6_BYTES)
            port, packed = _IPV6.unpack_from(raw)
        else:
            raw = client.getsockopt(_socket.IPPROTO_IP, SO_ORIGINAL_DST, _IPV4_BYTES)
            port, packed = _IPV4.unpack_from(raw)
    except OSError:
        return _own_address(client)
    return SocketAddress(_socket.inet_ntop(client.family, packed), port)


def _own_address(client: _socket.socket) -> SocketAddress | None:
    try:
        ip, port = client.getsockname()[:2]
    except OSError:
        return None
    return SocketAddress(ip, port)
