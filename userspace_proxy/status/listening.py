"""The listening sockets of the status servers."""

from __future__ import annotations

import asyncio
import errno
import socket

from ..errors import ListenError, shortage_hint

ListenAt = tuple[str, int] | socket.socket
"""Host and port (0: any free one), or a socket that already listens."""

# Connections that wait to be accepted while the event loop does something else.
BACKLOG = 128


async def open_socket(bind: ListenAt, *, what: str, flag: str) -> socket.socket:
    """Return a socket that listens.

    Args:
        bind: Where. A socket is handed back as it is, and from now on is ours to close.
        what: What is served there, for the error: ``health checks``.
        flag: The flag that chooses the address, for the error.

    Raises:
        ListenError: The address can't be had.
    """
    if isinstance(bind, socket.socket):
        bind.setblocking(False)
        return bind
    host, port = bind
    try:
        return listen(*await _resolve(host, port))
    except OSError as exc:
        # A resolver's error has its words in strerror as well, and no number of the kernel's.
        cause = exc.strerror or str(exc)
        raise ListenError(
            f"cannot serve {what} on {join_address(host, port)}: {cause}",
            hint=_way_out(exc, flag),
        ) from exc


def join_address(host: str, port: int) -> str:
    """Return ``127.0.0.1:80``, ``[::1]:80``."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def address_of(sock: socket.socket) -> tuple[str, int]:
    """Return the address that a socket is bound to, without an IPv6 scope."""
    name = sock.getsockname()
    return str(name[0]), int(name[1])


async def _resolve(host: str, port: int) -> tuple[int, tuple[object, ...]]:
    """Return the first family and address of a host name or address."""
    found = await asyncio.get_running_loop().getaddrinfo(
        host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    family, _, _, _, address = found[0]
    return family, address


def listen(family: int, address: tuple[object, ...], *, is_v6_only: bool = False) -> socket.socket:
    """Return a socket that listens, for an event loop; the caller closes it.

    Args:
        family: AF_INET or AF_INET6.
        address: What to bind.
        is_v6_only: ``::`` leaves IPv4 clients to another socket.

    Raises:
        OSError: The address can't be had.
    """
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # As in Go: [::] means every address of both families, unless the caller asks otherwise.
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, is_v6_only)
        sock.bind(address)
        sock.listen(BACKLOG)
        sock.setblocking(False)
    except OSError:
        sock.close()
        raise
    return sock


def _way_out(exc: OSError, flag: str) -> str:
    other = f"choose another address with {flag}"
    if isinstance(exc, socket.gaierror):
        return f"give an address of this node with {flag}"
    match exc.errno:
        case errno.EADDRINUSE:
            return f"stop the program that listens there, perhaps kube-proxy, or {other}"
        case errno.EADDRNOTAVAIL:
            return f"it is no address of this node: {other}"
        case errno.EACCES:
            return f"ports below 1024 need the capability NET_BIND_SERVICE: {other}"
    return shortage_hint(exc.errno) or other
