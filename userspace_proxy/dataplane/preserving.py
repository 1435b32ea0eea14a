"""Dials that bear the client's own address, where its answers come back through this node.

    socket ── IP_TRANSPARENT ── bind (client, port) ── connect ──▶ endpoint

Rule 1: who may is known before the dial (``policy.places``); that a dial fails changes nothing,
or whoever is denied by a network policy would be let in by this node's address.
Rule 2: ports are none that the client's own kernel takes, as long as there are some: the same
client may have dialled the same endpoint from the same port itself, and the answers to one of
the two would come to the other.
Rule 3: where the kernel gives no such socket at all, this node's address is used.

Source: ip(7), IP_TRANSPARENT; Documentation/networking/tproxy.rst.
"""

from __future__ import annotations

import _socket
import contextlib
import errno
import logging
import random

from ..model import SocketAddress
from ..policy.places import Networks, Places
from .sockets import family_of

_log = logging.getLogger("userspace_proxy.dataplane")

# Not in Python's socket module; linux/in.h and linux/in6.h.
_IP_TRANSPARENT = 19
_IPV6_TRANSPARENT = 75
_IP_BIND_ADDRESS_NO_PORT = 24

# Above what Linux takes for connections of its own unless told otherwise: 32768 to 60999.
FIRST_PORT, LAST_PORT = 61000, 65535
# Of those ports: they are taken in turn, so where some are in use many are.
_TRIES = 4

_NO_SUCH_SOCKET = (errno.EPERM, errno.EACCES, errno.ENOPROTOOPT, errno.EOPNOTSUPP)


class Preserving:
    """What one data plane knows of whose address may be kept, and how it is done."""

    def __init__(self) -> None:
        self.is_on = False
        """Answers are caught on this node; else nobody's address is kept."""
        self.places = Places()
        self._port = random.randint(FIRST_PORT, LAST_PORT)
        self._has_failed = False

    def set(self, networks: Networks | None) -> None:
        """Take where networks are; None: nobody's address is kept from now on."""
        self.is_on = networks is not None
        self.places = Places(networks)

    def dial(self, kind: int, client: str, endpoint: SocketAddress) -> tuple[_socket.socket, int]:
        """Dial an endpoint in a client's name.

        Args:
            kind: As for a socket: a non-blocking stream or datagram.
            client: Its IP address.
            endpoint: Of the same family.

        Returns:
            The socket, which the caller closes, and what ``connect_ex`` said. EADDRNOTAVAIL also
            means that all ports between the two are in use.

        Raises:
            NoClientAddress: The kernel gives no such socket; nothing was sent.
            OSError: It gives none at all.
        """
        family = family_of(endpoint.ip)
        for left in range(_TRIES, -1, -1):
            sock = _socket.socket(family, kind)
            try:
                if not left:
                    return sock, self._connect(sock, family, client, 0, endpoint)
                number = self._connect(sock, family, client, self._next_port(), endpoint)
            except OSError as exc:
                sock.close()
                if exc.errno in _NO_SUCH_SOCKET:
                    self._tell(exc)
                    raise NoClientAddress from exc
                raise
            if number not in (errno.EADDRINUSE, errno.EADDRNOTAVAIL):
                return sock, number
            # A socket that is bound can't be bound again.
            sock.close()
        raise AssertionError("the last try returns")

    def _connect(
        self, sock: _socket.socket, family: int, client: str, port: int, endpoint: SocketAddress
    ) -> int:
        if family == _socket.AF_INET6:
            sock.setsockopt(_socket.IPPROTO_IPV6, _IPV6_TRANSPARENT, 1)
        else:
            sock.setsockopt(_socket.IPPROTO_IP, _IP_TRANSPARENT, 1)
        if sock.type & _socket.SOCK_STREAM and not sock.type & _socket.SOCK_DGRAM:
            # One port serves as many connections as there are endpoints.
            sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, 1)
            if not port:
                with contextlib.suppress(OSError):
                    sock.setsockopt(_socket.IPPROTO_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
        try:
            sock.bind((client, port))
        except OSError as exc:
            if exc.errno == errno.EADDRINUSE:
                return errno.EADDRNOTAVAIL
            raise
        return sock.connect_ex(endpoint)

    def _next_port(self) -> int:
        self._port = self._port + 1 if self._port < LAST_PORT else FIRST_PORT
        return self._port

    def _tell(self, exc: OSError) -> None:
        if not self._has_failed:
            self._has_failed = True
            _log.warning(
                "endpoints see this node's address", extra={"cause": exc.strerror or str(exc)}
            )


class NoClientAddress(Exception):
    """The kernel gives this process no socket with another's address."""
