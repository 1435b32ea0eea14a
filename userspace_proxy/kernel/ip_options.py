"""Sets options of IP on sockets, which have a number for each family."""

from __future__ import annotations

import _socket

# Not in Python's socket module; linux/in.h and linux/in6.h.
IP_FREEBIND = 15
IPV6_FREEBIND = 78
IP_TRANSPARENT = 19
IPV6_TRANSPARENT = 75
IP_TTL = 2
IPV6_UNICAST_HOPS = 16

# Each dial from a client's address sets it.
_TRANSPARENT = {
    _socket.AF_INET: (_socket.IPPROTO_IP, IP_TRANSPARENT),
    _socket.AF_INET6: (_socket.IPPROTO_IPV6, IPV6_TRANSPARENT),
}


def set_freebind(sock: _socket.socket) -> None:
    """Let a socket be bound to an address that this node doesn't have."""
    set_ip_option(sock, IP_FREEBIND, IPV6_FREEBIND)


def set_transparent(sock: _socket.socket) -> None:
    """Let a socket be bound to, and answer from, an address that isn't this node's.

    Raises OSError without NET_ADMIN and NET_RAW. Source: ip_route_output_key_hash_rcu() in
    net/ipv4/route.c, which looks up the source address of any other socket in the table local.
    """
    sock.setsockopt(*_TRANSPARENT[sock.family], 1)


def set_hop_limit(sock: _socket.socket, hops: int) -> None:
    """Let a socket's packets pass that many hops, from 1 to 255."""
    set_ip_option(sock, IP_TTL, IPV6_UNICAST_HOPS, hops)


def set_ip_option(sock: _socket.socket, ipv4: int, ipv6: int, value: int = 1) -> None:
    """Set the option of the socket's family."""
    if sock.family == _socket.AF_INET6:
        sock.setsockopt(_socket.IPPROTO_IPV6, ipv6, value)
    else:
        sock.setsockopt(_socket.IPPROTO_IP, ipv4, value)
