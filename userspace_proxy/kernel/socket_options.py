"""Provides socket options and other socket functions that Python's socket module lacks.

    ICMP "host unreachable", ARP without an answer ──▶ error queue ──▶ the errno of a refusal

Without IP_RECVERR, a datagram socket doesn't report errors that may be transient, such as "host
unreachable", with which a TCP connect fails. With this option, each error is queued, and EPOLLERR
lasts until the error is read.

With IP_PKTINFO, a datagram comes with the local address on which it arrived, which is the source
address of replies. In the ancillary data, the kernel puts the local address first, and the hop
limit last.

Rule 1: an exceeded hop limit isn't a refusal: the client chooses the limit, and could make any
endpoint look dead.

Source: ip(7), IP_RECVERR, IP_PKTINFO and IP_RECVTTL; ipv6(7), IPV6_PKTINFO and
IPV6_RECVHOPLIMIT; ip_cmsg_recv_offset() in net/ipv4/ip_sockglue.c, ip6_datagram_recv_ctl() for the
order; icmp_err_convert in net/ipv4/icmp.c, icmpv6_err_convert in net/ipv6/icmp.c; RFC 792 and
RFC 4443.
"""

from __future__ import annotations

import _socket
import asyncio
import contextlib
import socket
import struct
import sys
from typing import NamedTuple

# The numbers from linux/in.h and linux/in6.h.
IP_FREEBIND = 15
IPV6_FREEBIND = 78
IP_TRANSPARENT = 19
IPV6_TRANSPARENT = 75
IP_TTL = 2
IPV6_UNICAST_HOPS = 16
IP_PKTINFO = 8
IPV6_PKTINFO = 50
IP_RECVERR = 11
IPV6_RECVERR = 25
ANCILLARY_BYTES = 128
"""The buffer size for ancillary data of a datagram or error, such as the sender's address."""

# The option that every dial from a client's address sets.
_TRANSPARENT = {
    _socket.AF_INET: (_socket.IPPROTO_IP, IP_TRANSPARENT),
    _socket.AF_INET6: (_socket.IPPROTO_IPV6, IPV6_TRANSPARENT),
}


def set_freebind(sock: _socket.socket) -> None:
    """Let a socket bind to an address that this node doesn't have."""
    set_ip_option(sock, IP_FREEBIND, IPV6_FREEBIND)


def set_transparent(sock: _socket.socket) -> None:
    """Let a socket bind to, and answer from, an address of another host.

    Raises:
        OSError: This process has neither CAP_NET_ADMIN nor CAP_NET_RAW.

    Source: ip_route_output_key_hash_rcu() in net/ipv4/route.c, which looks up the source address of
    any other socket in the local table.
    """
    sock.setsockopt(*_TRANSPARENT[sock.family], 1)


def set_hop_limit(sock: _socket.socket, hops: int) -> None:
    """Set the TTL or hop limit of a socket's packets, from 1 to 255."""
    set_ip_option(sock, IP_TTL, IPV6_UNICAST_HOPS, hops)


def set_ip_option(sock: _socket.socket, ipv4: int, ipv6: int, value: int = 1) -> None:
    """Set the option that corresponds to the socket's family."""
    if sock.family == _socket.AF_INET6:
        sock.setsockopt(_socket.IPPROTO_IPV6, ipv6, value)
    else:
        sock.setsockopt(_socket.IPPROTO_IP, ipv4, value)


_ERRORS = {(_socket.IPPROTO_IP, IP_RECVERR), (_socket.IPPROTO_IPV6, IPV6_RECVERR)}
# The start of struct sock_extended_err (linux/errqueue.h): errno, origin, type, code.
_ERROR = struct.Struct("=IBBB")
_FROM_ICMP, _FROM_ICMP6 = 2, 3
_EXCEEDED = {(_FROM_ICMP, 11), (_FROM_ICMP6, 3)}
# The maximum number of errors read per call; epoll reports the rest again.
_MOST = 16


def keep_icmp_errors(sock: _socket.socket) -> None:
    """Make the kernel report all ICMP errors about a connected datagram socket."""
    set_ip_option(sock, IP_RECVERR, IPV6_RECVERR)


def take_icmp_errors(sock: _socket.socket) -> int | None:
    """Read the error queue; return the errno of the last refusal.

    Returns:
        0 if no error is a refusal: a local error (too large a datagram), or an exceeded hop limit.
        None if the queue was empty.
    """
    found: int | None = None
    for _ in range(_MOST):
        try:
            _, ancillary, _, _ = sock.recvmsg(0, ANCILLARY_BYTES, _socket.MSG_ERRQUEUE)
        except OSError:
            break
        found = found or 0
        for level, kind, value in ancillary:
            if (level, kind) in _ERRORS and len(value) >= _ERROR.size:
                number, origin, type_, _ = _ERROR.unpack_from(value)
                is_icmp = origin in (_FROM_ICMP, _FROM_ICMP6)
                if is_icmp and (origin, type_) not in _EXCEEDED:
                    found = number
    return found


# The numbers from asm-generic/socket.h (since Linux 4.12) and linux/sock_diag.h.
SO_MEMINFO = 55
_MEMINFO = struct.Struct("=9I")
_RECEIVED, _TO_SEND, _DROPS = 0, 5, 8


def packets_lost(sock: _socket.socket) -> int:
    """Return how many packets for a socket the kernel has dropped since the socket's creation.

    These are packets that the source filter dropped, datagrams that didn't fit into the buffer,
    SYNs that didn't fit into the queue, and corrupt packets. The counter has 32 bits; reading it
    takes less than 1 µs.

    Source: sock_diag(7), SK_MEMINFO_DROPS; tcp_v4_rcv() in net/ipv4/tcp_ipv4.c for filters of
        listening sockets.
    """
    raw = sock.getsockopt(_socket.SOL_SOCKET, SO_MEMINFO, _MEMINFO.size)
    return int(_MEMINFO.unpack(raw)[_DROPS])


def buffered_bytes(sock: _socket.socket) -> int:
    """Return the kernel memory of a socket's receive and send buffers in bytes.

    Source: sock_diag(7), SK_MEMINFO_RMEM_ALLOC and SK_MEMINFO_WMEM_QUEUED.
    """
    figures = _MEMINFO.unpack(sock.getsockopt(_socket.SOL_SOCKET, SO_MEMINFO, _MEMINFO.size))
    return int(figures[_RECEIVED] + figures[_TO_SEND])


# The flag's value in linux/socket.h.
_MSG_MORE = 0x8000


def send_held(sock: _socket.socket, data: bytes) -> None:
    """Send bytes, which the kernel holds back to share a packet with the bytes of the next call."""
    sock.send(data, _MSG_MORE)


def send_at_once(sock: _socket.socket) -> None:
    """Send the bytes held back, and disable Nagle's algorithm.

    Idempotent; errors of a socket that was just closed are ignored.
    """
    with contextlib.suppress(OSError):
        sock.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_NODELAY, 1)


# SO_LINGER with zero time: closing sends a reset. Source: socket(7).
_RESET = struct.pack("ii", 1, 0)
_NO_RESET = struct.pack("ii", 0, 0)


def reset(writer: asyncio.StreamWriter) -> None:
    """Close a connection with a RST; unsent data is discarded."""
    sock = writer.get_extra_info("socket")
    if sock is not None:
        reset_on_close(sock)
    writer.transport.abort()


def stay_unseen(sock: _socket.socket) -> None:
    """Let a reset end this socket's dial before the listening program accepts it.

    With delayed ACKs, the last ACK of the handshake isn't sent immediately. A reset that is sent
    instead closes the connection in the peer's kernel, before ``accept``. On Linux 6.18, with both
    options (SO_LINGER, TCP_QUICKACK), 0 of 50 dials were accepted; with only one, 50 of 50. After
    200 ms (measured; TCP_DELACK_MAX) the kernel sends the ACK, and a reset is too late.

    Source: tcp(7), TCP_QUICKACK; Linux's tcp_rcv_synsent_state_process.
    """
    reset_on_close(sock)
    if hasattr(socket, "TCP_QUICKACK"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 0)


def reset_on_close(sock: _socket.socket) -> None:
    """Make closing a socket reset its connection."""
    # uvloop raises ValueError once the socket is closed.
    with contextlib.suppress(OSError, ValueError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)


def reset_no_more(sock: _socket.socket) -> None:
    """Undo :func:`reset_on_close`: closing sends a FIN again."""
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_RESET)


# The maximum number of cached local addresses, with or without an interface; a node has a few.
_MAX_KNOWN = 1024

AncillaryItem = tuple[int, int, bytes]
"""One item of :data:`Ancillary`."""

Ancillary = list[AncillaryItem]
"""Level, type and data, as for ``sendmsg`` and from ``recvmsg``."""


def destination_of(ancillary: Ancillary) -> tuple[int, bytes] | None:
    """Return type and bytes of the local address on which a datagram arrived; None if unknown.

    ``struct in_pktinfo`` is ifindex, spec_dst, addr; ``struct in6_pktinfo`` is addr, ifindex; the
    bytes of a link-local address include the index.
    """
    for level, kind, data in ancillary:
        if level == _socket.IPPROTO_IP and kind == IP_PKTINFO:
            return IP_PKTINFO, data[4:8]
        if level == _socket.IPPROTO_IPV6 and kind == IPV6_PKTINFO:
            # A link-local address is ambiguous without its interface, so keep the index. REDIRECT
            # translates to a link-local address if a pod's link has no other address.
            is_link_local = data[0] == 0xFE and data[1] & 0xC0 == 0x80
            return IPV6_PKTINFO, data[: 20 if is_link_local else 16]
    return None


def reply_from(local: tuple[int, bytes] | None) -> Ancillary:
    """Return ancillary data that sets the source of a reply; empty if the address is unknown."""
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
    """A local address on which datagrams arrive."""

    key: bytes
    """Identifies the address within one socket; empty if the kernel doesn't report it."""
    reply: Ancillary
    """The ancillary data for a reply from this address."""


class Destinations:
    """The local addresses on which datagrams of one socket arrived, cached to avoid parsing."""

    def __init__(self) -> None:
        self.known: dict[AncillaryItem, Destination] = {}
        """Destinations by the first item from the kernel; for unknown items call :meth:`of`."""

    def of(self, ancillary: Ancillary) -> Destination:
        """Return a datagram's destination; cache it if the first item, or no item, contains it."""
        local = destination_of(ancillary)
        destination = Destination(b"" if local is None else local[1], reply_from(local))
        if local is None or destination_of(ancillary[:1]) == local:
            if len(self.known) >= _MAX_KNOWN:
                self.known.clear()
            self.known[ancillary[0]] = destination
        return destination
