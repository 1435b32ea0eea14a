"""Reserves UDP ports with a bound socket that receives no datagrams: the kernel refuses clients.

A socket that is bound to an interface index receives datagrams of that interface only. No interface
has the index used here, so the kernel finds no socket for a datagram, and answers with an ICMP port
unreachable. Other programs still can't bind the port without an interface.

Source: net/ipv4/udp.c, udp_lib_lport_inuse() and compute_score(); net/core/sock.c,
    sock_bindtoindex_locked(), which takes no capability since Linux 5.7.
"""

from __future__ import annotations

import _socket
import contextlib
import socket
from collections.abc import Iterable

from ..kernel.socket_options import set_freebind
from ..model import SocketAddress
from .sockets import family_of

# The value from asm-generic/socket.h (since Linux 5.0), which Python's socket module lacks. Unlike
# SO_BINDTODEVICE this option doesn't check whether there is such an interface.
_SO_BINDTOIFINDEX = 62
# An unused interface index: the highest, because the kernel assigns indexes from 1 upwards.
_NO_INTERFACE = 0x7FFFFFFF


def get_nothing(sock: _socket.socket) -> None:
    """Stop a bound UDP socket from receiving, keeping its port; undoing this requires CAP_NET_RAW.

    Bind the socket first: binding then fails if a daemon has bound the port on one interface.
    Raises OSError if the kernel is too old.
    """
    sock.setsockopt(socket.SOL_SOCKET, _SO_BINDTOIFINDEX, _NO_INTERFACE)


def hold_port(at: SocketAddress, beside: Iterable[_socket.socket]) -> socket.socket | None:
    """Return a socket that keeps a UDP port when its serving sockets close; None if impossible.

    Only sockets of one user with SO_REUSEPORT can share a port, so the serving sockets (``beside``)
    get that option, too, even if the result is None. The caller closes the returned socket.
    """
    with contextlib.ExitStack() as stack:
        try:
            for sock in beside:
                share(sock, is_shared=True)
            family = family_of(at.ip)
            hold = stack.enter_context(socket.socket(family, socket.SOCK_DGRAM))
            if family == socket.AF_INET6:
                hold.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            set_freebind(hold)
            share(hold, is_shared=True)
            hold.bind(at)
            get_nothing(hold)
        except OSError:
            return None
        stack.pop_all()
    return hold


def share(sock: _socket.socket, *, is_shared: bool) -> None:
    """Allow or forbid other sockets of this user to bind a socket's port."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, is_shared)
