"""The sockets of the status servers, and who may stay on them.

    open_socket() ──▶ socket ──create_server──▶ Door ──▶ aiohttp
                                                 └─ full, or nobody speaks: cut off

Rule 1: these ports are for probes and people; whatever happens on them, the
descriptors of the data plane are not eaten up.
"""

from __future__ import annotations

import asyncio
import errno
import socket

from aiohttp import web

from ..errors import ListenError

Bind = tuple[str, int] | socket.socket
"""Host and port (0: any free one), or a socket that already listens."""

# Far more than the kubelet, a few load balancers, Prometheus and people hold open.
MAX_CONNECTIONS = 128
# A probe speaks at once; the kubelet's own timeout is 1 s by default.
FIRST_REQUEST_S = 10.0
# The largest answer, the metrics of 10,000 Services, takes a few seconds.
REQUEST_S = 60.0
SWEEP_S = 5.0


async def open_socket(bind: Bind, *, what: str, flag: str) -> socket.socket:
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


class Door:
    """Lets clients in to one aiohttp server, within bounds.

    Used as the protocol factory of an asyncio server. :meth:`sweep` must be called
    every few seconds; :meth:`open` does so until :meth:`close`.

    Args:
        server: Makes the protocol of each connection and knows which are alive.
        limit: Connections at one time; one more is reset at once.
    """

    def __init__(self, server: web.Server, *, limit: int = MAX_CONNECTIONS) -> None:
        self._server = server
        self._limit = limit
        self._deadlines: dict[asyncio.BaseProtocol, float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def __call__(self) -> asyncio.BaseProtocol:
        """Return the protocol of a new connection."""
        if len(self._server.connections) >= self._limit:
            return _TurnAway()
        handler = self._server()
        self._deadlines[handler] = asyncio.get_running_loop().time() + FIRST_REQUEST_S
        return handler

    def heard(self, handler: asyncio.BaseProtocol) -> None:
        """Give a connection that sent a request the time to have it answered."""
        self._deadlines[handler] = asyncio.get_running_loop().time() + REQUEST_S

    @property
    def alive(self) -> list[asyncio.BaseProtocol]:
        """The connections that are open now."""
        return list(self._server.connections)

    def open(self) -> None:
        """Begin to sweep."""
        self._timer = asyncio.get_running_loop().call_later(SWEEP_S, self._sweep_and_go_on)

    def close(self) -> None:
        """Stop sweeping; connections stay as they are."""
        if self._timer is not None:
            self._timer.cancel()

    def sweep(self, now: float) -> None:
        """Reset the connections whose time is up, and forget those that are gone.

        An idle connection between two requests is aiohttp's to close, and it does so
        earlier.

        Args:
            now: The loop's time.
        """
        kept: dict[asyncio.BaseProtocol, float] = {}
        for handler in self._server.connections:
            kept[handler] = self._deadlines.get(handler, now + FIRST_REQUEST_S)
            if kept[handler] <= now and handler.transport is not None:
                handler.transport.abort()
        self._deadlines = kept

    def _sweep_and_go_on(self) -> None:
        self.sweep(asyncio.get_running_loop().time())
        self.open()


class _TurnAway(asyncio.Protocol):
    """A connection too many."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Part of Protocol."""
        if isinstance(transport, asyncio.WriteTransport):
            transport.abort()


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
            # As in Go: [::] means every address of both families, unless it is told otherwise.
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, is_v6_only)
        sock.bind(address)
        sock.listen(MAX_CONNECTIONS)
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
            return f"stop what listens there, perhaps kube-proxy, or {other}"
        case errno.EADDRNOTAVAIL:
            return f"it is no address of this node: {other}"
        case errno.EACCES:
            return f"ports below 1024 need the capability NET_BIND_SERVICE: {other}"
    return other
