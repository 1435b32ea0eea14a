"""Reads the ICMP errors that the kernel keeps for a socket (IP_RECVERR).

    ICMP "host unreachable", ARP without an answer ──▶ error queue ──▶ the errno of a refusal

Without the option the kernel drops what may pass, such as "host unreachable", for datagrams; a
connect of TCP fails with it. With it, each error is queued, and EPOLLERR lasts until it is read.

Rule 1: an exceeded hop limit isn't a refusal: the client chooses the limit, and could have any
endpoint taken for dead.

Source: ip(7), IP_RECVERR; icmp_err_convert in net/ipv4/icmp.c, icmpv6_err_convert in
net/ipv6/icmp.c; RFC 792, RFC 4443.
"""

from __future__ import annotations

import _socket
import struct

IP_RECVERR = 11
IPV6_RECVERR = 25
_OPTIONS = {
    (_socket.IPPROTO_IP, IP_RECVERR),
    (_socket.IPPROTO_IPV6, IPV6_RECVERR),
}
# Struct sock_extended_err (linux/errqueue.h): errno, origin, type, code.
_ERROR = struct.Struct("=IBBB")
_FROM_ICMP, _FROM_ICMP6 = 2, 3
_EXCEEDED = {(_FROM_ICMP, 11), (_FROM_ICMP6, 3)}
# The error, and the address of the host that sent it.
_ANCILLARY_BYTES = 128
# So many are read in one turn; the rest is reported again.
_MOST = 16


def keep_icmp_errors(sock: _socket.socket) -> None:
    """Have the kernel report all ICMP errors about a connected datagram socket."""
    if sock.family == _socket.AF_INET6:
        sock.setsockopt(_socket.IPPROTO_IPV6, IPV6_RECVERR, 1)
    else:
        sock.setsockopt(_socket.IPPROTO_IP, IP_RECVERR, 1)


def take_icmp_errors(sock: _socket.socket) -> int | None:
    """Empty the error queue; return the last errno by which the other side has refused.

    Returns:
        0 if none of the errors is a refusal: a datagram was too large, or its hop limit exceeded;
        None if there was none.
    """
    found: int | None = None
    for _ in range(_MOST):
        try:
            _, ancillary, _, _ = sock.recvmsg(0, _ANCILLARY_BYTES, _socket.MSG_ERRQUEUE)
        except OSError:
            break
        found = found or 0
        for level, kind, value in ancillary:
            if (level, kind) in _OPTIONS and len(value) >= _ERROR.size:
                number, origin, type_, _ = _ERROR.unpack_from(value)
                is_icmp = origin in (_FROM_ICMP, _FROM_ICMP6)
                if is_icmp and (origin, type_) not in _EXCEEDED:
                    found = number
    return found
