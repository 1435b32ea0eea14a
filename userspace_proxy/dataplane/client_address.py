"""Dials from the client's own address where replies return through this node.

    socket ── IP_TRANSPARENT ── bind (client, port) ── connect ──▶ endpoint

Rule 1: eligibility is decided before the dial (``policy.locality``); a dial that fails changes
nothing, or a client that a network policy denies would be admitted at this node's address.
Rule 2: ports are outside the client kernel's own range: the same client may have dialled the same
endpoint from the same port itself, and the replies to one would reach the other.
Rule 3: if the kernel denies such sockets, this node's address is used.
Rule 4: one port serves a client's dials to all endpoints. With UDP it is a process's own: it is
bound without SO_REUSEADDR first, so no other process has it, and shared only by flows to known,
different endpoints (``client_ports``).
Rule 5: where all ports between a client and an endpoint are in use, this node's address is used
for a minute, but only if the endpoint has just answered that client at its own: a client that a
network policy keeps from the endpoint can use up ports, too. A port in TIME_WAIT is in use unless
both sides have TCP timestamps.

Source: ip(7), IP_TRANSPARENT; Documentation/networking/tproxy.rst; net/ipv4/udp.c,
udp_lib_lport_inuse(): SO_REUSEADDR counts as it is on both sides when the second one binds;
net/ipv4/tcp_ipv4.c, tcp_twsk_unique().
"""

from __future__ import annotations

import _socket
import errno
import logging

from ..model import SocketAddress
from ..policy.locality import Locality
from .client_ports import ClientPorts
from .pairs import PairCounts, Pairs
from .sockets import family_of, set_transparent

_log = logging.getLogger("userspace_proxy.dataplane")

# Of those ports. The first in turn is free as a rule; the others are random ones, so that with nine
# tenths in use 97 % of dials find one. 4 µs each.
_TRIES = 32
# At ports for a UDP flow, those included that are known to be taken: 0.1 µs each.
_LOOKS = 64

_NO_SUCH_SOCKET = (errno.EPERM, errno.EACCES, errno.ENOPROTOOPT, errno.EOPNOTSUPP)


class ClientAddressDialer:
    """Which clients of one data plane keep their address, and how it is done.

    Args:
        ports: Those to bind to; None: its own.
    """

    def __init__(self, ports: ClientPorts | None = None) -> None:
        self.is_on = False
        """Answers are caught on this node; else no client's address is kept."""
        self.locality = Locality()
        self.answered_flows = PairCounts()
        """Of flows at the client's own address that the endpoint has answered."""
        self._open = PairCounts()
        """Of connections at the client's own address that the endpoint has answered."""
        self._ended = Pairs()
        """Those whose connections at the client's own address ended within the last minute."""
        self.out_of_ports = Pairs()
        """Those between which no port was left within the last minute."""
        self._ports = ports or ClientPorts()
        self._has_failed = False

    def dial(self, kind: int, client: str, endpoint: SocketAddress) -> tuple[_socket.socket, int]:
        """Dial an endpoint in a client's name.

        Args:
            kind: As for a socket: a non-blocking stream or datagram.
            client: Its IP address.
            endpoint: Of the same family.

        Returns:
            The socket, and what ``connect_ex`` said. The caller closes it, a datagram socket by
            way of :meth:`let_go`. EADDRNOTAVAIL: all ports between the two seem to be in use.

        Raises:
            NoClientAddress: The kernel gives no such socket; nothing was sent.
            OSError: It gives none at all.
        """
        port = self._ports.next()
        for _ in range(_TRIES):
            sock, number = self._try(kind, client, port, endpoint)
            if kind & _socket.SOCK_DGRAM or number not in (errno.EADDRINUSE, errno.EADDRNOTAVAIL):
                return sock, number
            # A socket that is bound can't be bound again.
            sock.close()
            port = self._ports.random()
        return self._try(kind, client, port, endpoint)

    def connection_joined(self, client: str, endpoint: SocketAddress) -> None:
        """Note that an endpoint has answered a connection at the client's own address."""
        self._open.add(client, endpoint)

    def connection_ended(self, client: str, endpoint: SocketAddress, now: float) -> None:
        """Note the end of a connection that had joined."""
        self._open.remove(client, endpoint)
        self._ended.note(client, endpoint, now)

    def has_answered(self, client: str, endpoint: SocketAddress, now: float) -> bool:
        """Return whether an endpoint has had connections with a client at the client's address.

        Those that ended within the last minute count: they may keep ports in TIME_WAIT.
        """
        return self._open.has(client, endpoint) or self._ended.knows(client, endpoint, now)

    def let_go(self, sock: _socket.socket, client: str, endpoint: SocketAddress) -> None:
        """Give back the port of a datagram socket that is about to be closed."""
        self._ports.give(client, sock.getsockname()[1], endpoint)

    def _try(
        self, kind: int, client: str, port: int, endpoint: SocketAddress
    ) -> tuple[_socket.socket, int]:
        family = family_of(endpoint.ip)
        sock = _socket.socket(family, kind)
        try:
            set_transparent(sock, family)
            if kind & _socket.SOCK_DGRAM:
                return sock, self._connect_datagrams(sock, client, endpoint)
            return sock, self._connect_stream(sock, client, port, endpoint)
        except OSError as exc:
            sock.close()
            if exc.errno in _NO_SUCH_SOCKET:
                self._tell(exc)
                raise NoClientAddress from exc
            raise

    def _connect_stream(
        self, sock: _socket.socket, client: str, port: int, endpoint: SocketAddress
    ) -> int:
        # One port serves as many connections as there are endpoints.
        sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, 1)
        return sock.connect_ex(endpoint) if _bind(sock, client, port) else errno.EADDRNOTAVAIL

    def _connect_datagrams(self, sock: _socket.socket, client: str, endpoint: SocketAddress) -> int:
        port = self._bind_of_ours(sock, client, endpoint)
        if not port:
            return errno.EADDRNOTAVAIL
        number = sock.connect_ex(endpoint)
        if not number:
            self._ports.take(client, port, endpoint)
        return number

    def _bind_of_ours(self, sock: _socket.socket, client: str, endpoint: SocketAddress) -> int:
        """Bind a datagram socket to one of our ports; returns the port, or 0: they are taken."""
        ports, tries = self._ports, _TRIES
        for _ in range(_LOOKS):
            port = ports.next()
            known = ports.endpoints(client, port)
            if known:
                if endpoint not in known:
                    sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, 1)
                    if _bind(sock, client, port):
                        return port
                    sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, 0)
            elif tries:
                tries -= 1
                if _bind(sock, client, port):
                    sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, 1)
                    return port
        return 0

    def _tell(self, exc: OSError) -> None:
        if not self._has_failed:
            self._has_failed = True
            _log.warning(
                "endpoints see this node's address", extra={"cause": exc.strerror or str(exc)}
            )


def _bind(sock: _socket.socket, client: str, port: int) -> bool:
    """Bind a socket; False when the port is taken, and the socket is as it was."""
    try:
        sock.bind((client, port))
    except OSError as exc:
        if exc.errno == errno.EADDRINUSE:
            return False
        raise
    return True


class NoClientAddress(Exception):
    """The kernel gives this process no socket with another's address."""
