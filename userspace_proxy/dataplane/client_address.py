"""Dials from the client's address if replies return through this node, else from the node's.

    socket ── IP_TRANSPARENT ── bind (client, port) ── connect ──▶ endpoint

Rule 1: eligibility is decided before the dial (``policy.locality``). A failed dial isn't repeated
from this node's address: that would admit a client that a network policy denies.
Rule 2: source ports are outside the range from which the client's kernel chooses: if the client
itself dialled the same endpoint from the same port, replies to one connection would reach the
other.
Rule 3: if the kernel denies transparent sockets, this node's address is used.
Rule 4: one port serves a client's dials to all endpoints. A UDP port belongs to one process: it is
first bound without SO_REUSEADDR, which fails if another process uses it, and only flows of this
process to different endpoints share it (``ClientPorts``).
Rule 5: an endpoint that was resolved by name isn't dialled if the kernel reports its address as
this node's (``cluster.from_names``); for other endpoints this costs one comparison.
Rule 6: if all ports between a client and an endpoint are in use, this node's address is used (in
TCP for a minute), but only if the endpoint has recently answered a dial from the client's
address: otherwise a client could evade a network policy by using up ports. A port in TIME_WAIT is
in use unless both sides have TCP timestamps.

Source: ip(7), IP_TRANSPARENT; Documentation/networking/tproxy.rst; net/ipv4/udp.c,
udp_lib_lport_inuse(): SO_REUSEADDR is read from both sockets when the second one binds;
net/ipv4/tcp_ipv4.c, tcp_twsk_unique().
"""

from __future__ import annotations

import _socket
import errno
import os
import random
from typing import Any, Protocol

from ..balance.client_endpoint_pairs import PairCounts, Pairs
from ..errors import UserspaceProxyError
from ..kernel.ephemeral import EPHEMERAL
from ..kernel.interface_addresses import OwnAddressCheck
from ..kernel.listening_sockets import family_of
from ..kernel.socket_options import set_transparent
from ..log_fields import FieldLogger
from ..model import SocketAddress
from ..model.failures import EXHAUSTED_ERRNOS
from ..policy.locality import FIRST_PORT, LAST_PORT, Locality
from .calls import SystemCalls
from .endpoint_group import EndpointGroup

_log = FieldLogger("userspace_proxy.dataplane")

# How many random ports a connection tries after its first (usually free) port, 4 µs each: if 90 %
# are in use, 97 % of dials find a free one. A flow tries as many ports unused by this process.
_TRIES = 32
# The maximum number of ports considered for a UDP flow, 0.1 µs each, including ports with flows.
_LOOKS = 64

_DATAGRAM = _socket.SOCK_DGRAM | _socket.SOCK_NONBLOCK
_PORT_IN_USE, _NO_PORT = -errno.EADDRINUSE, -errno.EADDRNOTAVAIL
_IPV4, _IPV6 = int(_socket.AF_INET), int(_socket.AF_INET6)
_NO_SUCH_SOCKET = (errno.EPERM, errno.EACCES, errno.ENOPROTOOPT, errno.EOPNOTSUPP)


# How long dials are counted: as long as TIME_WAIT lasts (TCP_TIMEWAIT_LEN).
_WINDOW_S = 60.0
# An endpoint counts as busy once dials to it use a quarter of the ephemeral ports: the kernel tries
# ports of one parity first, and slows down once these are in use.
_SHARE_OF_RANGE = 4
# Whether each attempt of a dial binds a port. Four attempts do, because without TCP timestamps a
# port may be in TIME_WAIT. The other attempt lets the kernel choose, which fails if other programs
# use its whole range.
_BOUND_FIRST = (True, True, True, True, False)
_BOUND_LAST = _BOUND_FIRST[::-1]
_MAX_ENDPOINTS = 4096


class ClientPorts:
    """The source ports of one process, which are used in turn, and the UDP flows from each port.

        (client, port) ──▶ the endpoints of flows from this address

    A released port is usually reused after all others. The kernel refuses a second TCP connection
    from one port to an endpoint, but permits two UDP sockets between the same addresses, one of
    which receives all replies, so this process records its flows. ``first`` and ``last`` are
    inclusive.
    """

    def __init__(self, first: int = FIRST_PORT, last: int = LAST_PORT) -> None:
        self._first = first
        self._last = last
        self._port = random.randint(first, last)
        # Tuples, because most ports have one endpoint, and a set takes four times the memory.
        self._endpoints: dict[tuple[str, int], tuple[SocketAddress, ...]] = {}

    def next(self) -> int:
        self._port = self._port + 1 if self._port < self._last else self._first
        return self._port

    def random(self) -> int:
        return random.randint(self._first, self._last)

    def endpoints(self, client: str, port: int) -> tuple[SocketAddress, ...]:
        """Return the endpoints of this process's flows from a client's port."""
        return self._endpoints.get((client, port), ())

    def take(self, client: str, port: int, endpoint: SocketAddress) -> None:
        """Add a flow; it must be the first from this client's port to the endpoint."""
        self._endpoints[client, port] = (*self.endpoints(client, port), endpoint)

    def give(self, client: str, port: int, endpoint: SocketAddress) -> None:
        """Remove a flow. Idempotent."""
        left = tuple(known for known in self.endpoints(client, port) if known != endpoint)
        if left:
            self._endpoints[client, port] = left
        else:
            self._endpoints.pop((client, port), None)


class NodeAddressDialer:
    """The dialer that uses this node's address, for one of ``processes`` data planes.

    Usually the kernel chooses an ephemeral port, which stays in TIME_WAIT for a minute. Once half
    of the range is in use towards one endpoint, the kernel tries thousands of ports per dial, which
    blocks the loop: dials to all endpoints drop from 13,000 a second to 300. Dials to endpoints
    with many dials within a minute therefore bind one of ``ports``: a bound port in TIME_WAIT can
    be reused at once if both sides have TCP timestamps. Other dials save two system calls.

    Source: net/ipv4/inet_hashtables.c, __inet_hash_connect(); net/ipv4/tcp_ipv4.c,
    tcp_twsk_unique().
    """

    def __init__(self, calls: SystemCalls, ports: ClientPorts, processes: int) -> None:
        self._calls = calls
        self._ports = ports
        self._share = _SHARE_OF_RANGE * processes
        self._began_at = 0.0
        self._counts: dict[SocketAddress, int] = {}
        self._busy: frozenset[SocketAddress] = frozenset()
        """The endpoints that were busy in the last window."""

    def dial(self, endpoint: SocketAddress, now: float, holds_ack: bool) -> int:
        """Dial an endpoint; for ``holds_ack`` see ``HeldAcks``.

        Returns the descriptor of a connecting TCP socket, which the caller closes, or a negative
        errno: -EADDRNOTAVAIL if no port is free.
        """
        calls, family, found = self._calls, family_of(endpoint.ip), _NO_PORT
        for is_bound in _BOUND_FIRST if self._is_busy(endpoint, now) else _BOUND_LAST:
            if is_bound:
                fd = calls.open_bound(family, "", self._ports.next(), False)
            else:
                fd = calls.open_stream(family)
            if fd >= 0:
                found = calls.connect(fd, endpoint.ip, endpoint.port, holds_ack)
                if found != _NO_PORT:
                    break
            elif not is_bound or -fd in EXHAUSTED_ERRNOS:
                return fd
            # The port is in TIME_WAIT, or another program listens on it: try the next port.
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


class _Dialling(Protocol):
    """The connection or flow for which an endpoint is dialled."""

    address: Any
    """The client's address; the IP address is the first item."""
    is_preserved: bool

    @property
    def group(self) -> EndpointGroup:
        """The endpoints of its Service port."""


class ClientAddressDialer:
    """The dialer that uses the addresses of one data plane's clients where possible."""

    def __init__(
        self, calls: SystemCalls, ports: ClientPorts | None = None, processes: int = 1
    ) -> None:
        self._calls = calls
        self.is_on = False
        """Whether replies to client addresses are routed to this node."""
        self.locality = Locality()
        self.answered_flows = PairCounts()
        """Counts of flows from the client's address that the endpoint has answered."""
        self.open_connections = PairCounts()
        """Counts of open connections from the client's address that the endpoint has answered."""
        self.ended_connections = Pairs()
        """Pairs with a connection from the client's address that ended within the last minute."""
        self._out_of_ports = Pairs()
        """Pairs that had no free TCP port within the last minute."""
        self._ports = ports or ClientPorts()
        self._node_dialer = NodeAddressDialer(calls, self._ports, processes)
        self._has_failed = False
        self._own_addresses = OwnAddressCheck()

    def dial_for(
        self,
        dialling: _Dialling,
        endpoint: SocketAddress,
        now: float,
        may_preserve: bool,
        holds_ack: bool,
        is_flow: bool = False,
    ) -> int:
        """Dial from the client's address if possible, else from this node's; set ``is_preserved``.

        Without ``may_preserve``, only this node's address is used; for ``holds_ack`` see
        ``HeldAcks``. Returns the descriptor of a connecting TCP socket or a connected UDP socket,
        which the caller closes, or a negative errno (-ECANCELED by rule 5). Before closing a UDP
        socket with ``is_preserved``, call :meth:`release`.
        """
        client, group = dialling.address[0], dialling.group
        dialling.is_preserved = False
        if group.serving.handling.found_by_name and self._is_misnamed(group, endpoint):
            return -errno.ECANCELED
        out_of_ports = self._out_of_ports
        if (
            self.is_on
            and may_preserve
            and not group.detours
            and self.locality.keeps_client(client, endpoint.ip)
            and (is_flow or not out_of_ports.until or not out_of_ports.has(client, endpoint, now))
        ):
            try:
                if is_flow:
                    fd = self.dial_flow(client, endpoint)
                else:
                    fd = self.dial(client, endpoint, holds_ack)
            except NoClientAddress:
                pass
            else:
                dialling.is_preserved = True
                if fd != _NO_PORT or not self._is_answered(client, endpoint, now, is_flow):
                    return fd
                dialling.is_preserved = False
                if not is_flow:
                    out_of_ports.note(client, endpoint, now)
                group.left_client_address(endpoint, client, now)
        at = group.detours.get(endpoint, endpoint) if group.detours else endpoint
        if is_flow:
            return self.dial_flow("", at)
        return self._node_dialer.dial(at, now, holds_ack)

    def _is_answered(self, client: str, endpoint: SocketAddress, now: float, is_flow: bool) -> bool:
        """Return whether the endpoint has recently answered the client's address: see rule 6."""
        if is_flow:
            return self.answered_flows.has(client, endpoint)
        # The ports of recently ended connections may be in TIME_WAIT.
        is_open = self.open_connections.has(client, endpoint)
        return is_open or self.ended_connections.has(client, endpoint, now)

    def _is_misnamed(self, group: EndpointGroup, endpoint: SocketAddress) -> bool:
        """Return whether an endpoint was found by name and has an address of this node."""
        by_name = group.serving.handling.found_by_name
        return endpoint.ip in by_name and self._own_addresses.has(endpoint.ip)

    def dial(self, client: str, endpoint: SocketAddress, holds_ack: bool) -> int:
        """Dial an endpoint from a client's address.

        Returns the descriptor of a connecting TCP socket, which the caller closes, or a negative
        errno: -EADDRNOTAVAIL if no port is free. Raises NoClientAddress if the kernel denies a
        socket with the client's address.
        """
        calls, ports = self._calls, self._ports
        family = _IPV6 if ":" in endpoint.ip else _IPV4
        port = ports.next()
        for _ in range(_TRIES + 1):
            fd = calls.open_bound(family, client, port, True)
            if fd >= 0:
                fd = calls.connect(fd, endpoint.ip, endpoint.port, holds_ack)
            else:
                self._check_denial(client, -fd)
            if fd not in (_PORT_IN_USE, _NO_PORT):
                return fd
            port = ports.random()
        return _NO_PORT

    def dial_flow(self, client: str, endpoint: SocketAddress) -> int:
        """Connect a datagram socket from a client's address or, if that is empty, from this node's.

        Returns the socket's descriptor or a negative errno, and raises, as :meth:`dial` does.
        """
        calls, port, number = self._calls, 0, errno.EADDRNOTAVAIL
        try:
            fd = calls.adopt(sock := _socket.socket(family_of(endpoint.ip), _DATAGRAM))
        except OSError as exc:
            return -(exc.errno or errno.EMFILE)
        try:
            if client:
                set_transparent(sock)
                port = self._bind_datagrams(sock, client, endpoint)
            if port or not client:
                number = sock.connect_ex(endpoint)
        except OSError as exc:
            calls.close(fd)
            number = exc.errno or errno.EIO
            self._check_denial(client, number)
            return -number
        if number:
            calls.close(fd)
            return -number
        if client:
            self._ports.take(client, port, endpoint)
        return fd

    def release(self, sock: _socket.socket, client: str, endpoint: SocketAddress) -> None:
        """Release the port of a datagram socket that is about to be closed."""
        self._ports.give(client, sock.getsockname()[1], endpoint)

    def _check_denial(self, client: str, number: int) -> None:
        """Raise NoClientAddress, and log once, if the errno means that the address is denied."""
        if number not in _NO_SUCH_SOCKET:
            return
        cause = os.strerror(number)
        if not self._has_failed:
            self._has_failed = True
            _log.warning(
                "cannot dial from client addresses, so endpoints see this node's address: "
                "%(cause)s",
                extra={"cause": cause},
            )
        raise NoClientAddress(f"cannot dial from {client}: {cause}")

    def _bind_datagrams(self, sock: _socket.socket, client: str, endpoint: SocketAddress) -> int:
        """Bind a free port, or a port of this process's other flows; return it, or 0 for none."""
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
    """Bind a socket; return False if the port is in use."""
    try:
        sock.bind((client, port))
    except OSError as exc:
        if exc.errno == errno.EADDRINUSE:
            return False
        raise
    return True


class NoClientAddress(UserspaceProxyError):
    """The kernel denies this process sockets with another host's address."""


def may_be_source(port: int, now: float) -> bool:
    """Return whether dials from this node's address may use ``port`` as their source port."""
    return FIRST_PORT <= port <= LAST_PORT or EPHEMERAL.includes(port, now)
