"""Opens the listening sockets of the status servers."""

from __future__ import annotations

import asyncio
import errno
import socket

from ..errors import ListenError, shortage_hint
from ..kernel.interfaces import NO_IPV6
from ..model import SocketAddress

ListenAt = tuple[str, int] | socket.socket
"""Host and port (0 for any free port), or a socket that already listens."""

# How many connections may wait to be accepted while the event loop is busy.
BACKLOG = 128


async def open_socket(bind: ListenAt, *, what: str, flag: str) -> socket.socket:
    """Return a non-blocking listening socket; the caller closes it, even if given as ``bind``.

    On 0.0.0.0, as on ``::``, it listens on every address of both families, as in Go.

    Args:
        what: The purpose for the error message, such as ``health checks``.
        flag: The flag that sets the address, for the error message.

    Raises:
        ListenError: The address isn't available.
    """
    if isinstance(bind, socket.socket):
        bind.setblocking(False)
        return bind
    host, port = bind
    try:
        if host == "0.0.0.0" and (sock := _listen_on_all(port)):
            return sock
        return listen(*await _resolve(host, port))
    except OSError as exc:
        raise ListenError(
            f"cannot serve {what} on {SocketAddress(host, port)}",
            cause=str(exc.strerror),
            hint=_remedy(exc, flag),
        ) from exc


def address_of(sock: socket.socket) -> tuple[str, int]:
    """Return the address that a socket is bound to, without an IPv6 scope."""
    name = sock.getsockname()
    return str(name[0]), int(name[1])


def _listen_on_all(port: int) -> socket.socket | None:
    """Return a socket for both families, or None on a node without IPv6."""
    try:
        return listen(socket.AF_INET6, ("::", port))
    except OSError as exc:
        if exc.errno in NO_IPV6:
            return None
        raise


async def _resolve(host: str, port: int) -> tuple[int, tuple[object, ...]]:
    """Return the first family and address for a host name or address."""
    found = await asyncio.get_running_loop().getaddrinfo(
        host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    family, _, _, _, address = found[0]
    return family, address


def listen(family: int, address: tuple[object, ...], *, is_v6_only: bool = False) -> socket.socket:
    """Return a non-blocking listening socket, which the caller closes.

    Args:
        is_v6_only: Whether ``::`` leaves IPv4 clients to another socket.

    Raises:
        OSError: The address isn't available.
    """
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # [::] means every address of both families by default, as in Go.
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, is_v6_only)
        sock.bind(address)
        sock.listen(BACKLOG)
        sock.setblocking(False)
    except OSError:
        sock.close()
        raise
    return sock


def _remedy(exc: OSError, flag: str) -> str:
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
