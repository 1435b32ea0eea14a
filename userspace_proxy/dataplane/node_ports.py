"""Decides when dials from this node's address choose their own source port, and which.

The kernel chooses from the ephemeral range, and a port stays in TIME_WAIT for a minute. Once half
of the range is in use towards an endpoint, it considers thousands of ports for each dial, and the
loop waits: from 13,000 dials a second to 300, to all endpoints. A port that is bound can be used
again in TIME_WAIT, at once, if both sides have TCP timestamps.

Rule 1: the ports are those above the ephemeral range that clients' addresses use, too, so no
connection of another program has one.
Rule 2: only endpoints with many dials within a minute get them: others' dials save two calls.

Source: net/ipv4/inet_hashtables.c, __inet_hash_connect(); net/ipv4/tcp_ipv4.c, tcp_twsk_unique().
"""

from __future__ import annotations

import _socket
import errno

from ..model import SocketAddress
from ..policy.locality import FIRST_PORT, LAST_PORT
from .client_ports import ClientPorts
from .ephemeral import EPHEMERAL
from .sockets import family_of

# As long as TIME_WAIT (TCP_TIMEWAIT_LEN).
_WINDOW_S = 60.0
# The kernel looks for ports of one parity first, and slows down once these are in use.
_SHARE_OF_RANGE = 4
# Ports to try; without TCP timestamps all may be in TIME_WAIT.
_TRIES = 4
# Endpoints to count; beyond that counting begins anew.
_MAX_ENDPOINTS = 4096
_WILDCARDS = {_socket.AF_INET: "0.0.0.0", _socket.AF_INET6: "::"}
_TAKEN = (errno.EADDRINUSE, errno.EADDRNOTAVAIL)


class NodePorts:
    """Dials from this node's address of one data plane.

    Args:
        ports: Used in turn.
    """

    def __init__(self, ports: ClientPorts) -> None:
        self._ports = ports
        self._began_at = 0.0
        self._counts: dict[SocketAddress, int] = {}
        self._busy: frozenset[SocketAddress] = frozenset()
        """Endpoints that were busy in the last window."""

    def dial(self, kind: int, endpoint: SocketAddress, now: float) -> tuple[_socket.socket, int]:
        """Dial an endpoint with a non-blocking TCP socket.

        Returns the socket and the result of ``connect_ex``. Raises OSError if the kernel grants no
        socket.
        """
        if self._is_busy(endpoint, now):
            for _ in range(_TRIES):
                sock = _socket.socket(family_of(endpoint.ip), kind)
                number = self._connect_bound(sock, endpoint)
                if number not in _TAKEN:
                    return sock, number
                # A socket that is bound can't be bound again.
                sock.close()
        sock = _socket.socket(family_of(endpoint.ip), kind)
        return sock, sock.connect_ex(endpoint)

    def _is_busy(self, endpoint: SocketAddress, now: float) -> bool:
        counts = self._counts
        many = EPHEMERAL.count(now) // _SHARE_OF_RANGE
        if now - self._began_at >= _WINDOW_S or len(counts) >= _MAX_ENDPOINTS:
            self._busy = frozenset(known for known, count in counts.items() if count >= many)
            self._began_at = now
            counts.clear()
        count = counts[endpoint] = counts.get(endpoint, 0) + 1
        return count > many or endpoint in self._busy

    def _connect_bound(self, sock: _socket.socket, endpoint: SocketAddress) -> int:
        try:
            sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, 1)
            sock.bind((_WILDCARDS[sock.family], self._ports.next()))
            return sock.connect_ex(endpoint)
        except OSError as exc:
            # Another program listens there.
            if exc.errno == errno.EADDRINUSE:
                return exc.errno
            sock.close()
            raise


def may_be_source(port: int, now: float) -> bool:
    """Return whether a dial from this node's address may have a source port."""
    return FIRST_PORT <= port <= LAST_PORT or EPHEMERAL.includes(port, now)
