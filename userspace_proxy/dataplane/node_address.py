"""Dials from this node's address, and chooses source ports itself for busy endpoints.

The kernel chooses from the ephemeral range, and a port stays in TIME_WAIT for a minute. Once half
of the range is in use towards an endpoint, it tries thousands of ports per dial, which blocks the
loop: dials to all endpoints drop from 13,000 a second to 300. A bound port can be reused at once in
TIME_WAIT, if both sides have TCP timestamps.

Rule 1: the ports are above the ephemeral range, as for client addresses, so connections of other
programs don't use them.
Rule 2: only endpoints with many dials within a minute get such a port: other dials save two calls.

Source: net/ipv4/inet_hashtables.c, __inet_hash_connect(); net/ipv4/tcp_ipv4.c, tcp_twsk_unique().
"""

from __future__ import annotations

import _socket
import errno

from ..kernel.ephemeral import EPHEMERAL
from ..model import SocketAddress
from ..policy.locality import FIRST_PORT, LAST_PORT
from .client_ports import ClientPorts
from .held_acks import hold_acks
from .sockets import family_of

# As long as TIME_WAIT (TCP_TIMEWAIT_LEN).
_WINDOW_S = 60.0
# The kernel tries ports of one parity first, and slows down once these are in use.
_SHARE_OF_RANGE = 4
# Attempts, and whether each binds a port: four ports, because without TCP timestamps all may be in
# TIME_WAIT; then the kernel's choice, which fails if other programs use its whole range.
_BOUND_FIRST = (True, True, True, True, False)
_BOUND_LAST = _BOUND_FIRST[::-1]
_MAX_ENDPOINTS = 4096


class NodeAddressDialer:
    """Dials for one of ``processes`` data planes, using ``ports`` in turn."""

    def __init__(self, ports: ClientPorts, processes: int) -> None:
        self._ports = ports
        self._share = _SHARE_OF_RANGE * processes
        self._began_at = 0.0
        self._counts: dict[SocketAddress, int] = {}
        self._busy: frozenset[SocketAddress] = frozenset()
        """The endpoints that were busy in the last window."""

    def dial(
        self, kind: int, endpoint: SocketAddress, now: float, *, holds_ack: bool = False
    ) -> tuple[_socket.socket, int]:
        """Dial an endpoint with a non-blocking TCP socket; for ``holds_ack`` see ``held_acks``.

        Returns the socket and the result of ``connect_ex``; EADDRNOTAVAIL, with a closed socket, if
        no port is free. Raises OSError if the kernel denies a socket.
        """
        for is_bound in _BOUND_FIRST if self._is_busy(endpoint, now) else _BOUND_LAST:
            sock = _open(kind, endpoint, holds_ack=holds_ack)
            has_port = not is_bound or self._bind(sock)
            number = sock.connect_ex(endpoint) if has_port else errno.EADDRNOTAVAIL
            if number != errno.EADDRNOTAVAIL:
                break
            # A bound socket can't be bound again.
            sock.close()
        return sock, number

    def _is_busy(self, endpoint: SocketAddress, now: float) -> bool:
        counts = self._counts
        many = EPHEMERAL.count(now) // self._share
        if now - self._began_at >= _WINDOW_S or len(counts) >= _MAX_ENDPOINTS:
            self._busy = frozenset(known for known, count in counts.items() if count >= many)
            self._began_at = now
            counts.clear()
        count = counts[endpoint] = counts.get(endpoint, 0) + 1
        return count > many or endpoint in self._busy

    def _bind(self, sock: _socket.socket) -> bool:
        """Bind the next port; returns False if another program listens there."""
        sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, 1)
        try:
            sock.bind(("", self._ports.next()))
        except OSError:
            return False
        return True


def _open(kind: int, endpoint: SocketAddress, *, holds_ack: bool) -> _socket.socket:
    sock = _socket.socket(family_of(endpoint.ip), kind)
    if holds_ack:
        hold_acks(sock)
    return sock


def may_be_source(port: int, now: float) -> bool:
    """Return whether a dial from this node's address may use a source port."""
    return FIRST_PORT <= port <= LAST_PORT or EPHEMERAL.includes(port, now)
