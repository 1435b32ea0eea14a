"""Opens sockets with the options that the data plane needs, and resets them.

Plain ``_socket.socket`` objects: the wrapper class in ``socket`` builds enums and
file objects that cost more than the system call (measured: about 3 µs an accept).
"""

from __future__ import annotations

import _socket
import contextlib
import errno
import socket
import struct
from collections.abc import Iterable

from ..errors import ListenError, ShortageError, shortage_hint
from ..model import Protocol, SocketAddress
from .source_filter import admit, cannot_admit
from .tuning import BACKLOG

# Not in Python's socket module; linux/in.h and linux/in6.h.
IP_FREEBIND = 15
IPV6_FREEBIND = 78
IP_TRANSPARENT = 19
IPV6_TRANSPARENT = 75
IP_PKTINFO = 8
IPV6_RECVPKTINFO = 49
IPV6_PKTINFO = 50
IP_TTL = 2
IP_RECVTTL = 12
IPV6_UNICAST_HOPS = 16
IPV6_RECVHOPLIMIT = 51
# asm-generic/socket.h, since Linux 4.12; linux/sock_diag.h.
SO_MEMINFO = 55
_MEMINFO = struct.Struct("=9I")
_DROPS = 8

_RESET = struct.pack("ii", 1, 0)
_UDP_BUFFER_BYTES = 4 * 1024 * 1024

EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.ENOSPC})
"""What the kernel says when we are out of descriptors or memory, whatever we dial."""

SHORTAGES = EXHAUSTED | {errno.EADDRNOTAVAIL, errno.EAGAIN}
"""What the kernel says when *we* are short of something; no endpoint is to blame."""


def family_of(ip: str) -> int:
    """Return AF_INET or AF_INET6."""
    return _socket.AF_INET6 if ":" in ip else _socket.AF_INET


def open_listening(
    protocol: Protocol,
    at: SocketAddress,
    *,
    freebind: bool,
    transparent: bool = False,
    share: bool = False,
    admits: Iterable[str] | None = None,
) -> _socket.socket:
    """Return a bound socket: listening for TCP, receiving for UDP; the caller closes it.

    Args:
        protocol: TCP or UDP.
        at: Where to bind; port 0 for any free one, 0.0.0.0 or :: for all addresses.
        freebind: Bind an address that this node doesn't have (yet).
        transparent: Set IP_TRANSPARENT, which takes NET_ADMIN or NET_RAW: what is steered is
            admitted to such sockets alone, and they answer from an address that the kernel's own
            stack doesn't call local. Accepted sockets are so, too.
        share: Others of this user may bind the same, too (SO_REUSEPORT).
        admits: Networks whose packets alone come in; None for all.

    Raises:
        ListenError: In the kernel's words.
    """
    kind = _socket.SOCK_STREAM if protocol is Protocol.TCP else _socket.SOCK_DGRAM
    family = family_of(at.ip)
    try:
        sock = _socket.socket(family, kind | _socket.SOCK_NONBLOCK | _socket.SOCK_CLOEXEC)
    except OSError as exc:
        raise cannot_listen(at, protocol, exc) from exc
    try:
        sock.setblocking(False)
        if family == _socket.AF_INET6:
            sock.setsockopt(_socket.IPPROTO_IPV6, _socket.IPV6_V6ONLY, 1)
        if freebind:
            set_freebind(sock, family)
        if transparent:
            # The table of `steering.client_address` takes packets to such sockets for replies to
            # clients' own addresses and delivers them to this node, as a listener's must be.
            set_transparent(sock, family)
        if share:
            sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEPORT, 1)
        if admits is not None:
            try:
                admit(sock, admits)
            except OSError as exc:
                sock.close()
                raise cannot_admit(at, protocol, exc) from exc
        if protocol is Protocol.TCP:
            # A restarted proxy takes its ports back while old connections linger.
            sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, 1)
            # Accepted sockets inherit both: no system call for each.
            sock.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_NODELAY, 1)
            sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_OOBINLINE, 1)
            _bind_for_good(sock, family, at, freebind=freebind)
            sock.listen(BACKLOG)
        else:
            sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_RCVBUF, _UDP_BUFFER_BYTES)
            _ask_for_hop_limits(sock, family)
            if is_wildcard(at.ip):
                _ask_for_destinations(sock, family)
            sock.bind(at)
    except OSError as exc:
        sock.close()
        raise cannot_listen(at, protocol, exc) from exc
    return sock


def stop_listening(sock: _socket.socket, *, keeps_port: bool) -> None:
    """Have a TCP socket refuse: the kernel answers with RST, to queued clients too.

    Idempotent; :func:`listen_again` undoes it.

    Args:
        sock: Bound by number.
        keeps_port: No other socket may bind the port meanwhile. Otherwise one with SO_REUSEADDR
            may, whatever copies of this socket other processes still have.

    Source: tcp(7) leaves it open; Linux's inet_shutdown disconnects a listening socket and keeps
        its bound port, and inet_csk_bind_conflict lets two sockets share a port on which neither
        listens only while both have SO_REUSEADDR.
    """
    try:
        sock.shutdown(_socket.SHUT_RDWR)
    except OSError as exc:
        if exc.errno != errno.ENOTCONN:
            raise
    sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, not keeps_port)


def listen_again(socks: Iterable[_socket.socket], at: SocketAddress) -> None:
    """Have TCP sockets of one port listen after :func:`stop_listening`, in this order.

    Raises:
        ListenError: One of them can't; those before it listen.
    """
    socks = tuple(socks)
    try:
        # Of all of them first: each other, and connections accepted here before, are in the way.
        for sock in socks:
            sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, 1)
        for sock in socks:
            sock.listen(BACKLOG)
    except OSError as exc:
        raise cannot_listen(at, Protocol.TCP, exc) from exc


def is_wildcard(ip: str) -> bool:
    """Return whether an address means all local addresses."""
    return ip in {"0.0.0.0", "::"}


def is_self_connected(sock: _socket.socket, endpoint: SocketAddress | None) -> bool:
    """Return whether a socket has connected to itself.

    A dial to a local port without a listener, from that very port out of the
    ephemeral range, is a TCP simultaneous open with oneself and succeeds; a UDP
    socket then receives what it sends.
    """
    if endpoint is None:
        return False
    try:
        ip, port = sock.getsockname()[:2]
    except OSError:
        return False
    return bool(port == endpoint.port and ip == endpoint.ip)


def is_connected(sock: _socket.socket) -> bool:
    """Return whether a dial has been answered, even if its event hasn't come yet."""
    try:
        sock.getpeername()
    except OSError:
        return False
    return True


def datagrams_lost(sock: _socket.socket) -> int:
    """Return how many datagrams the kernel has not put into a socket since it was made.

    Mostly because its buffer was full; also those that its source filter refused, and broken
    ones. The number has 32 bits. Source: sock_diag(7), SK_MEMINFO_DROPS.
    """
    raw = sock.getsockopt(_socket.SOL_SOCKET, SO_MEMINFO, _MEMINFO.size)
    return int(_MEMINFO.unpack(raw)[_DROPS])


def reset(sock: _socket.socket) -> None:
    """Make the close that follows send a RST, not a FIN."""
    with contextlib.suppress(OSError):
        sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_LINGER, _RESET)


def _bind_for_good(sock: _socket.socket, family: int, at: SocketAddress, *, freebind: bool) -> None:
    """Bind so that the port stays the socket's while it doesn't listen.

    A port that the kernel chose goes back when a listening socket is disconnected;
    one that was asked for by number stays (Linux's SOCK_BINDPORT_LOCK). So a free
    number is found with a socket of its own, and then asked for.
    """
    if at.port:
        sock.bind(at)
        return
    probe = _socket.socket(family, _socket.SOCK_STREAM)
    try:
        probe.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, 1)
        if freebind:
            set_freebind(probe, family)
        probe.bind(at)
        sock.bind(probe.getsockname())
    finally:
        probe.close()


def set_freebind(sock: _socket.socket, family: int) -> None:
    """Let a socket be bound to an address that this node doesn't have."""
    if family == _socket.AF_INET6:
        sock.setsockopt(_socket.IPPROTO_IPV6, IPV6_FREEBIND, 1)
    else:
        sock.setsockopt(_socket.IPPROTO_IP, IP_FREEBIND, 1)


def set_transparent(sock: _socket.socket, family: int) -> None:
    """Let a socket be bound to, and answer from, an address that isn't this node's.

    Raises:
        OSError: This process has neither NET_ADMIN nor NET_RAW.
    """
    # Source: ip_route_output_key_hash_rcu() in net/ipv4/route.c, which asks for any other
    # socket's source address in the table local.
    if family == _socket.AF_INET6:
        sock.setsockopt(_socket.IPPROTO_IPV6, IPV6_TRANSPARENT, 1)
    else:
        sock.setsockopt(_socket.IPPROTO_IP, IP_TRANSPARENT, 1)


def _ask_for_destinations(sock: _socket.socket, family: int) -> None:
    if family == _socket.AF_INET6:
        sock.setsockopt(_socket.IPPROTO_IPV6, IPV6_RECVPKTINFO, 1)
    else:
        sock.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)


def _ask_for_hop_limits(sock: _socket.socket, family: int) -> None:
    if family == _socket.AF_INET6:
        sock.setsockopt(_socket.IPPROTO_IPV6, IPV6_RECVHOPLIMIT, 1)
    else:
        sock.setsockopt(_socket.IPPROTO_IP, IP_RECVTTL, 1)


def set_hop_limit(sock: _socket.socket, hops: int) -> None:
    """Let packets of a socket pass so many hops, from 1 to 255."""
    if sock.family == _socket.AF_INET6:
        sock.setsockopt(_socket.IPPROTO_IPV6, IPV6_UNICAST_HOPS, hops)
    else:
        sock.setsockopt(_socket.IPPROTO_IP, IP_TTL, hops)


def cannot_listen(at: SocketAddress, protocol: Protocol, exc: OSError) -> ListenError:
    """Return the error for a socket that can't be opened, in the kernel's words."""
    kind = ShortageError if exc.errno in EXHAUSTED else ListenError
    return kind(f"cannot listen on {at}/{protocol}: {exc.strerror}", hint=_way_out(exc.errno, at))


def _way_out(number: int | None, at: SocketAddress) -> str:
    if number == errno.EADDRINUSE:
        return f"another program holds port {at.port}: see ss -lntup"
    if number == errno.EACCES:
        return f"port {at.port} needs CAP_NET_BIND_SERVICE"
    if number == errno.EADDRNOTAVAIL:
        return f"{at.ip} is not an address of this node"
    return shortage_hint(number)
