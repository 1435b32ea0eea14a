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
from .calls import SystemCalls
from .client_ports import ClientPorts
from .sockets import family_of

# How long dials are counted: as long as TIME_WAIT lasts (TCP_TIMEWAIT_LEN).
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

    def __init__(self, calls: SystemCalls, ports: ClientPorts, processes: int) -> None:
        self._calls = calls
        self._ports = ports
        self._share = _SHARE_OF_RANGE * processes
        self._began_at = 0.0
        self._counts: dict[SocketAddress, int] = {}
        self._busy: frozenset[SocketAddress] = frozenset()
        """The endpoints that were busy in the last window."""

    def dial(self, endpoint: SocketAddress, now: float, holds_ack: bool) -> int:
        """Dial an endpoint; for ``holds_ack`` see ``held_acks``.

        Returns the descriptor of a TCP socket that connects, which the caller closes, or an errno
        below 0; -EADDRNOTAVAIL if no port is free.
        """
        calls, family, found = self._calls, family_of(endpoint.ip), -errno.EADDRNOTAVAIL
        for is_bound in _BOUND_FIRST if self._is_busy(endpoint, now) else _BOUND_LAST:
            fd = calls.open_stream(family)
            if fd < 0:
                return fd
            if holds_ack:
                calls.set_option(fd, _socket.IPPROTO_TCP, _socket.TCP_QUICKACK, 0)
            if is_bound and self._bind(fd) < 0:
                # Another program listens there.
                calls.close(fd)
                continue
            found = finish_dial(calls, fd, endpoint)
            if found != -errno.EADDRNOTAVAIL:
                break
        return found

    def _is_busy(self, endpoint: SocketAddress, now: float) -> bool:
        counts = self._counts
        many = EPHEMERAL.count(now) // self._share
        if now - self._began_at >= _WINDOW_S or len(counts) >= _MAX_ENDPOINTS:
            self._busy = frozenset(known for known, count in counts.items() if count >= many)
            self._began_at = now
            counts.clear()
        count = counts[endpoint] = counts.get(endpoint, 0) + 1
        return count > many or endpoint in self._busy

    def _bind(self, fd: int) -> int:
        """Bind the next port; return 0, or an errno below 0."""
        self._calls.set_option(fd, _socket.SOL_SOCKET, _socket.SO_REUSEADDR, 1)
        return self._calls.bind(fd, "", self._ports.next())


def finish_dial(calls: SystemCalls, fd: int, endpoint: SocketAddress) -> int:
    """Connect a socket; return its descriptor, or an errno below 0, and close it."""
    number = calls.connect(fd, endpoint.ip, endpoint.port)
    if number in (0, -errno.EINPROGRESS):
        return fd
    calls.close(fd)
    return number


def may_be_source(port: int, now: float) -> bool:
    """Return whether a dial from this node's address may use a source port."""
    return FIRST_PORT <= port <= LAST_PORT or EPHEMERAL.includes(port, now)
