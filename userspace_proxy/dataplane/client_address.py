"""Dials from the client's own address where replies return through this node.

    socket ── IP_TRANSPARENT ── bind (client, port) ── connect ──▶ endpoint

Rule 1: eligibility is decided before the dial (``policy.locality``). A failed dial isn't repeated
from this node's address: that would admit a client that a network policy denies.
Rule 2: ports are outside the client kernel's own range: the client may have dialled the same
endpoint from the same port, and replies to one connection would reach the other.
Rule 3: if the kernel denies such sockets, this node's address is used.
Rule 4: one port serves a client's dials to all endpoints. A UDP port belongs to one process: it is
bound without SO_REUSEADDR first, so no other process has it, and only flows to known, different
endpoints share it (``client_ports``).
Rule 5: before dialling an endpoint that was resolved by name, the kernel is asked whether its
address is this node's (``cluster.from_names``); for other endpoints this costs one comparison.
Rule 6: where all ports between a client and an endpoint are in use, this node's address is used
(with TCP for a minute), but only if the endpoint has just answered that client at its own address:
a client that a network policy denies can use up ports, too. A port in TIME_WAIT is in use unless
both sides have TCP timestamps.

Source: ip(7), IP_TRANSPARENT; Documentation/networking/tproxy.rst; net/ipv4/udp.c,
udp_lib_lport_inuse(): SO_REUSEADDR is read from both sockets when the second one binds;
net/ipv4/tcp_ipv4.c, tcp_twsk_unique().
"""

from __future__ import annotations

import _socket
import errno
from typing import Any, Protocol

from ..balance.client_endpoint_pairs import PairCounts, Pairs
from ..errors import UserspaceProxyError
from ..kernel.interface_addresses import OwnAddressCheck
from ..kernel.socket_options import set_transparent
from ..log_fields import FieldLogger
from ..model import SocketAddress
from ..policy.locality import Locality
from .client_ports import ClientPorts
from .endpoint_group import EndpointGroup
from .held_acks import hold_acks
from .node_address import NodeAddressDialer
from .sockets import family_of

_log = FieldLogger("userspace_proxy.dataplane")

# Ports to try to bind, 4 µs each. The first is usually free; the others are random, so with 90 % in
# use 97 % of dials find a free one.
_TRIES = 32
# Ports to consider for a UDP flow, 0.1 µs each; includes ports known to be in use.
_LOOKS = 64

_NO_SUCH_SOCKET = (errno.EPERM, errno.EACCES, errno.ENOPROTOOPT, errno.EOPNOTSUPP)


class _Dialling(Protocol):
    """The connection or flow for which an endpoint is dialled."""

    address: Any
    """The client's address; the IP address is the first item."""
    is_preserved: bool

    @property
    def group(self) -> EndpointGroup:
        """The endpoints of its Service port."""


class ClientAddressDialer:
    """Dials from the addresses of one data plane's clients, with the given ports."""

    def __init__(self, ports: ClientPorts | None = None, processes: int = 1) -> None:
        self.is_on = False
        """Replies to client addresses are routed to this node."""
        self.locality = Locality()
        self.answered_flows = PairCounts()
        """Flows from the client's address that the endpoint has answered."""
        self._open = PairCounts()
        """Open connections from the client's address."""
        self._ended = Pairs()
        """Pairs with a connection from the client's address that ended within the last minute."""
        self._out_of_ports = Pairs()
        """Pairs without a free TCP port within the last minute."""
        self._ports = ports or ClientPorts()
        self._node_dialer = NodeAddressDialer(self._ports, processes)
        self._has_failed = False
        self._own_addresses = OwnAddressCheck()

    def dial_for(
        self,
        dialling: _Dialling,
        kind: int,
        endpoint: SocketAddress,
        now: float,
        *,
        may_preserve: bool,
        holds_ack: bool = False,
    ) -> tuple[_socket.socket, int]:
        """Dial from the client's address if possible, else from this node's; sets ``is_preserved``.

        With ``may_preserve`` unset only this node's address is used; ``holds_ack`` is for streams
        (``held_acks``). Returns and raises like :meth:`dial`, except NoClientAddress.
        """
        by_name = dialling.group.serving.handling.found_by_name
        if endpoint.ip in by_name and self._own_addresses.has(endpoint.ip):
            dialling.is_preserved = False
            raise OSError(errno.ECANCELED, f"{endpoint.ip} is an address of this node")
        client, is_flow = dialling.address[0], bool(kind & _socket.SOCK_DGRAM)
        dialling.is_preserved = (
            self.is_on
            and may_preserve
            and not dialling.group.detours
            and self.locality.keeps_client(client, endpoint.ip)
            and (is_flow or not self._out_of_ports.has(client, endpoint, now))
        )
        if dialling.is_preserved:
            try:
                sock, number = self.dial(kind, client, endpoint, holds_ack=holds_ack)
            except NoClientAddress:
                dialling.is_preserved = False
            else:
                if number != errno.EADDRNOTAVAIL:
                    return sock, number
                # Connections that ended within the last minute may hold ports in TIME_WAIT.
                has_answered = (
                    self.answered_flows.has(client, endpoint)
                    if is_flow
                    else self._open.has(client, endpoint) or self._ended.has(client, endpoint, now)
                )
                if not has_answered:
                    return sock, number
                sock.close()
                dialling.is_preserved = False
                if not is_flow:
                    self._out_of_ports.note(client, endpoint, now)
                dialling.group.outcomes.left_client_address(endpoint, client, now)
        at = endpoint
        if dialling.group.detours:
            at = dialling.group.detours.get(endpoint, endpoint)
        if not is_flow:
            return self._node_dialer.dial(kind, at, now, holds_ack=holds_ack)
        sock = _socket.socket(family_of(at.ip), kind)
        return sock, sock.connect_ex(at)

    def dial(
        self, kind: int, client: str, endpoint: SocketAddress, *, holds_ack: bool = False
    ) -> tuple[_socket.socket, int]:
        """Dial an endpoint from a client's address with a non-blocking stream or datagram socket.

        Returns the socket and the result of ``connect_ex``; EADDRNOTAVAIL if no port was found. The
        caller closes the socket, after :meth:`release` if it is connected for datagrams.

        Raises NoClientAddress if the kernel denies a socket with the client's address, and OSError
        if it denies any socket.
        """
        port = self._ports.next()
        for _ in range(_TRIES):
            sock, number = self._try(kind, client, port, endpoint, holds_ack=holds_ack)
            if kind & _socket.SOCK_DGRAM or number not in (errno.EADDRINUSE, errno.EADDRNOTAVAIL):
                return sock, number
            # A bound socket can't be bound again.
            sock.close()
            port = self._ports.random()
        return self._try(kind, client, port, endpoint, holds_ack=holds_ack)

    def connection_joined(self, client: str, endpoint: SocketAddress) -> None:
        """Note that an endpoint has answered a connection from the client's address."""
        self._open.add(client, endpoint)

    def connection_ended(self, client: str, endpoint: SocketAddress, now: float) -> None:
        self._open.remove(client, endpoint)
        self._ended.note(client, endpoint, now)

    def release(self, sock: _socket.socket, client: str, endpoint: SocketAddress) -> None:
        """Release the port of a datagram socket that is about to be closed."""
        self._ports.give(client, sock.getsockname()[1], endpoint)

    def _try(
        self, kind: int, client: str, port: int, endpoint: SocketAddress, *, holds_ack: bool
    ) -> tuple[_socket.socket, int]:
        family = family_of(endpoint.ip)
        sock = _socket.socket(family, kind)
        try:
            set_transparent(sock)
            if kind & _socket.SOCK_DGRAM:
                return sock, self._connect_datagrams(sock, client, endpoint)
            # One port then serves a connection to each endpoint.
            sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, 1)
            if not _bind(sock, client, port):
                return sock, errno.EADDRNOTAVAIL
            if holds_ack:
                hold_acks(sock)
            return sock, sock.connect_ex(endpoint)
        except OSError as exc:
            sock.close()
            if exc.errno not in _NO_SUCH_SOCKET:
                raise
            if not self._has_failed:
                self._has_failed = True
                cause = exc.strerror or str(exc)
                _log.warning("endpoints see this node's address: %(cause)s", extra={"cause": cause})
            raise NoClientAddress(f"cannot dial from {client}: {exc.strerror}") from exc

    def _connect_datagrams(self, sock: _socket.socket, client: str, endpoint: SocketAddress) -> int:
        port = self._bind_datagrams(sock, client, endpoint)
        if not port:
            return errno.EADDRNOTAVAIL
        number = sock.connect_ex(endpoint)
        if not number:
            self._ports.take(client, port, endpoint)
        return number

    def _bind_datagrams(self, sock: _socket.socket, client: str, endpoint: SocketAddress) -> int:
        """Bind a free port, or share one of this process; returns 0 if there is none."""
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


def _bind(sock: _socket.socket, client: str, port: int) -> bool:
    """Bind a socket; returns False if the port is in use."""
    try:
        sock.bind((client, port))
    except OSError as exc:
        if exc.errno == errno.EADDRINUSE:
            return False
        raise
    return True


class NoClientAddress(UserspaceProxyError):
    """The kernel denies this process sockets with another host's address."""
