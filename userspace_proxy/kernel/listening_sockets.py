"""Opens, stops and restarts listening sockets, with the options that the data plane needs.

It also reserves UDP ports, and finds the address that a client of an accepted socket dialled.
Sockets are plain ``_socket.socket`` objects: the wrapper class in ``socket`` creates enums and file
objects, which cost more than the system call (measured: about 3 µs per accept).
"""

from __future__ import annotations

import _socket
import contextlib
import errno
import struct
from collections.abc import Iterable

from ..errors import ListenError, ShortageError, shortage_hint
from ..model import Protocol, SocketAddress
from ..model.failures import EXHAUSTED_ERRNOS
from .socket_options import IP_PKTINFO, set_freebind, set_ip_option, set_transparent
from .source_filter import admit, cannot_admit

# The values from linux/in.h and linux/in6.h, which Python's socket module lacks.
IPV6_RECVPKTINFO = 49
IP_RECVTTL = 12
IPV6_RECVHOPLIMIT = 51
# From linux/netfilter_ipv4.h and linux/netfilter_ipv6/ip6_tables.h: one number in both families.
SO_ORIGINAL_DST = 80
# From asm-generic/socket.h, since Linux 5.0. Unlike SO_BINDTODEVICE, it accepts unused indexes.
_SO_BINDTOIFINDEX = 62
# An unused interface index: the highest, because the kernel assigns indexes from 1 upwards.
_NO_INTERFACE = 0x7FFFFFFF
# Struct sockaddr_in and sockaddr_in6 up to the address.
_IPV4, _IPV4_BYTES = struct.Struct("!2xH4s"), 16
_IPV6, _IPV6_BYTES = struct.Struct("!2xH4x16s"), 28

_UDP_BUFFER_BYTES = 4 * 1024 * 1024
# The length of an accept queue; Linux limits it to net.core.somaxconn (4096 since 5.4).
_BACKLOG = 4096


def family_of(ip: str) -> int:
    """Return AF_INET or AF_INET6."""
    return _socket.AF_INET6 if ":" in ip else _socket.AF_INET


def hold_acks(sock: _socket.socket) -> None:
    """Delay ACKs until there is data, up to the kernel's limits: 40 ms, in a handshake 200 ms.

    Call it before ``connect``, but after ``listen``, which undoes it.
    """
    with contextlib.suppress(OSError):  # UDP sockets lack the option.
        sock.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_QUICKACK, 0)


def open_listening(
    protocol: Protocol,
    at: SocketAddress,
    *,
    freebind: bool,
    transparent: bool = False,
    share: bool = False,
    admits: Iterable[str] | None = None,
) -> _socket.socket:
    """Return a non-blocking socket that listens (TCP) or receives (UDP); the caller closes it.

    Args:
        at: The address to bind: port 0 is any free port; 0.0.0.0 and :: are all addresses.
        freebind: Whether the address may be one that this node doesn't have (yet).
        transparent: Whether this and accepted sockets receive steered packets, and answer from an
            address that isn't local: IP_TRANSPARENT requires CAP_NET_ADMIN or CAP_NET_RAW.
        share: Whether other sockets of this user may bind the same port (SO_REUSEPORT).
        admits: The networks whose packets are admitted; None for all.

    Raises:
        ListenError: The socket can't be opened; the message contains the kernel's reason.
    """
    is_tcp, family = protocol is Protocol.TCP, family_of(at.ip)
    kind = _socket.SOCK_STREAM if is_tcp else _socket.SOCK_DGRAM
    with contextlib.ExitStack() as closing:
        try:
            sock = _socket.socket(family, kind | _socket.SOCK_NONBLOCK | _socket.SOCK_CLOEXEC)
            closing.callback(sock.close)
            sock.setblocking(False)
            if family == _socket.AF_INET6:
                sock.setsockopt(_socket.IPPROTO_IPV6, _socket.IPV6_V6ONLY, 1)
            if freebind:
                set_freebind(sock)
            if transparent:
                set_transparent(sock)
            if share:
                sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEPORT, 1)
            if admits is not None:
                try:
                    admit(sock, admits)
                except OSError as exc:
                    raise cannot_admit(at, protocol, exc) from exc
            if is_tcp:
                _listen(sock, at, freebind=freebind)
            else:
                _receive(sock, at)
        except OSError as exc:
            raise cannot_listen(at, protocol, exc) from exc
        closing.pop_all()
    return sock


def _listen(sock: _socket.socket, at: SocketAddress, *, freebind: bool) -> None:
    # A restarted proxy must bind its ports again while old connections linger.
    sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, 1)
    # Accepted sockets inherit both options, so they need no system calls.
    sock.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_NODELAY, 1)
    sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_OOBINLINE, 1)
    if at.port:
        sock.bind(at)
    else:
        # Disconnecting a listening socket releases a port that the kernel chose for port 0, but not
        # an explicit port (Linux's SOCK_BINDPORT_LOCK). So another socket finds a free port first.
        with contextlib.closing(_socket.socket(sock.family, _socket.SOCK_STREAM)) as probe:
            probe.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, 1)
            if freebind:
                set_freebind(probe)
            probe.bind(at)
            sock.bind(probe.getsockname())
    sock.listen(_BACKLOG)
    hold_acks(sock)


def _receive(sock: _socket.socket, at: SocketAddress) -> None:
    sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_RCVBUF, _UDP_BUFFER_BYTES)
    set_ip_option(sock, IP_RECVTTL, IPV6_RECVHOPLIMIT)
    if is_wildcard(at.ip):
        set_ip_option(sock, IP_PKTINFO, IPV6_RECVPKTINFO)
    sock.bind(at)


def stop_listening(sock: _socket.socket, *, keeps_port: bool) -> None:
    """Make a TCP socket refuse clients: the kernel sends a RST, also to queued clients.

    Idempotent; :func:`listen_again` undoes it.

    Args:
        sock: The socket, bound to an explicit port; the kernel would release a port that it chose.
        keeps_port: Whether no other socket may bind the port until ``listen_again``. Otherwise a
            socket with SO_REUSEADDR may, even if other processes still have copies of this socket.

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
    """Make a port's TCP sockets listen again after :func:`stop_listening`, in the given order.

    Raises ListenError if a socket can't listen; earlier sockets then stay listening.
    """
    socks = tuple(socks)
    try:
        # Set the option on all sockets first: without it they conflict with each other, and with
        # accepted connections.
        for sock in socks:
            sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, 1)
        for sock in socks:
            sock.listen(_BACKLOG)
            hold_acks(sock)
    except OSError as exc:
        raise cannot_listen(at, Protocol.TCP, exc) from exc


def get_nothing(sock: _socket.socket) -> None:
    """Stop a bound UDP socket from receiving, keeping its port; undoing this requires CAP_NET_RAW.

    A socket that is bound to an interface index receives datagrams of that interface only, and no
    interface has the index used here. So the kernel answers a datagram with an ICMP port
    unreachable, and other programs still can't bind the port without an interface. Bind the socket
    first: binding then fails if a daemon has bound the port on one interface. Raises OSError if the
    kernel is too old.

    Source: net/ipv4/udp.c, udp_lib_lport_inuse() and compute_score(); net/core/sock.c,
        sock_bindtoindex_locked(), which takes no capability since Linux 5.7.
    """
    sock.setsockopt(_socket.SOL_SOCKET, _SO_BINDTOIFINDEX, _NO_INTERFACE)


def hold_port(at: SocketAddress, beside: Iterable[_socket.socket]) -> _socket.socket | None:
    """Return a socket that keeps a UDP port when its serving sockets close; None if impossible.

    Only sockets of one user with SO_REUSEPORT can share a port, so the serving sockets (``beside``)
    get that option, too, even if the result is None. The caller closes the returned socket.
    """
    with contextlib.ExitStack() as closing:
        try:
            for sock in beside:
                share_port(sock, is_shared=True)
            hold = open_listening(Protocol.UDP, at, freebind=True, share=True)
            closing.callback(hold.close)
            get_nothing(hold)
        except (OSError, ListenError):
            return None
        closing.pop_all()
    return hold


def share_port(sock: _socket.socket, *, is_shared: bool) -> None:
    """Allow or forbid other sockets of this user to bind a socket's port."""
    sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEPORT, is_shared)


def dialled_at(client: _socket.socket) -> SocketAddress | None:
    """Return the address that the client of an accepted TCP socket dialled.

    A redirected connection has a conntrack entry, which contains the address; without an entry it
    is the socket's own address. Returns None if the kernel reports neither.

    Source: Linux's getorigdst() in net/netfilter/nf_conntrack_proto.c, which answers for TCP only.
    """
    try:
        if client.family == _socket.AF_INET6:
            raw = client.getsockopt(_socket.IPPROTO_IPV6, SO_ORIGINAL_DST, _IPV6_BYTES)
            port, packed = _IPV6.unpack_from(raw)
        else:
            raw = client.getsockopt(_socket.IPPROTO_IP, SO_ORIGINAL_DST, _IPV4_BYTES)
            port, packed = _IPV4.unpack_from(raw)
    except OSError:
        with contextlib.suppress(OSError):
            return SocketAddress(*client.getsockname()[:2])
        return None
    return SocketAddress(_socket.inet_ntop(client.family, packed), port)


def is_wildcard(ip: str) -> bool:
    """Return whether an address means all local addresses."""
    return ip in {"0.0.0.0", "::"}


def is_self_connected(sock: _socket.socket, endpoint: SocketAddress) -> bool:
    """Return whether a socket has connected to itself.

    A dial to a local port without a listener, from that same ephemeral port, succeeds as TCP's
    simultaneous open; a UDP socket then receives its own datagrams.
    """
    try:
        return bool(sock.getsockname()[:2] == endpoint)
    except OSError:
        return False


def cannot_listen(at: SocketAddress, protocol: Protocol, exc: OSError) -> ListenError:
    """Return the error for a socket that can't be opened, with the kernel's reason."""
    hints = {
        errno.EADDRINUSE: f"another program holds port {at.port}: see ss -lntup",
        errno.EACCES: f"port {at.port} needs CAP_NET_BIND_SERVICE",
        errno.EADDRNOTAVAIL: f"{at.ip} is not an address of this node",
    }
    kind = ShortageError if exc.errno in EXHAUSTED_ERRNOS else ListenError
    hint = hints.get(exc.errno or 0) or shortage_hint(exc.errno)
    return kind(f"cannot listen on {at}/{protocol}", cause=exc.strerror or str(exc), hint=hint)
