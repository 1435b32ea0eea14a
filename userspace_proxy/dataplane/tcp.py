"""TCP connections: dial, next endpoint on failure, relay, count.

    accepted ──▶ dialling ──answered──▶ joined ──both FINs──▶ complete
                  │   ▲ │                 └──RST either way──▶ reset
       refused,   └───┘ └──nobody left───▶ unanswered (the client gets a RST)
       unreachable,
       1 s of silence: the next endpoint

Rule 1: the client's socket isn't read before an endpoint has answered, so fail-over
never loses a byte: they wait in the kernel.
Rule 2: a client that can't be served gets a RST, never a clean end.
Rule 3: a RST is passed on as a RST, behind what was sent before it.
"""

from __future__ import annotations

import _socket
import contextlib
import errno
import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING

from ..model import SocketAddress
from . import reactor as epoll
from .relay import Direction
from .sockets import EXHAUSTED, family_of, is_connected, is_self_connected, reset
from .tuning import DIALS

if TYPE_CHECKING:
    from .dataplane import DataPlane
    from .group import EndpointGroup

_access = logging.getLogger("userspace_proxy.access")

_CLIENT_EVENTS = epoll.IN | epoll.PRI | epoll.RDHUP | epoll.ET
_ENDPOINT_EVENTS = _CLIENT_EVENTS | epoll.OUT
_END = epoll.RDHUP | epoll.HUP | epoll.ERR
_IN_OR_END = epoll.IN | _END

# As long as a last endpoint may be silent: who has been accepted can't go elsewhere.
_SHORTAGE_S = 5.0

DESCRIPTORS = 2
"""What one connection uses: the client's socket and the endpoint's."""


class TcpConnection:
    """One client's connection, and the endpoint that it is carried to.

    Args:
        plane: Its reactor, deadlines and books are used.
        group: Chooses the endpoint and counts.
        client: Accepted and non-blocking; the connection closes it.
        address: The client's address.
    """

    __slots__ = (
        "_endpoint_socket",
        "_is_aborting",
        "_started",
        "_tried",
        "_wants_client_out",
        "address",
        "client",
        "down",
        "endpoint",
        "group",
        "is_closed",
        "plane",
        "reactor",
        "seen_moved",
        "seen_moving_at",
        "up",
    )

    def __init__(
        self,
        plane: DataPlane,
        group: EndpointGroup,
        client: _socket.socket,
        address: SocketAddress,
    ) -> None:
        self.plane = plane
        self.reactor = plane.reactor
        self.group = group
        self.client = client
        self.address = address
        self.endpoint: SocketAddress | None = None
        """The endpoint that is dialled, or that answered."""
        self.up: Direction | None = None
        """Client to endpoint; None before an endpoint has answered and after the end."""
        self.down: Direction | None = None
        """Endpoint to client."""
        self.is_closed = False
        self._endpoint_socket: _socket.socket | None = None
        self._tried: set[SocketAddress] | None = None
        """Endpoints that failed; most connections need no set."""
        self._started = plane.reactor.now
        self._wants_client_out = False
        self._is_aborting = False
        self.seen_moved = 0
        """Bytes that had moved at the last look; the ageing's."""
        self.seen_moving_at: float | None = None
        """When a look last saw bytes moving; None before the first one."""

    # -- dialling ------------------------------------------------------------

    def dial(self) -> None:
        """Dial the next endpoint; when none is left the client gets a RST."""
        for _ in range(DIALS):
            now = self.reactor.now
            endpoint = self.group.balancer.pick(self.address.ip, now, tried=self._tried or ())
            self.endpoint = endpoint
            if endpoint is None:
                self._refuse()
                return
            number = self._connect(endpoint)
            if number == 0:
                return
            if number in EXHAUSTED:
                self.group.dial_failed(endpoint, number, now)
                self._dial_later(now)
                return
            self._dial_failed(number)
        self.reactor.run_soon(self._dial_again)

    def _dial_later(self, now: float) -> None:
        """Wait for descriptors, like those who are still in the queue, but not for ever."""
        if now - self._started < _SHORTAGE_S:
            self.plane.descriptors.wait(self._dial_again, now)
        else:
            self._refuse()

    def _dial_again(self) -> None:
        if not self.is_closed:
            self.reactor.tick()
            self.dial()

    def _connect(self, endpoint: SocketAddress) -> int:
        """Begin a dial; returns 0 when it is under way, else the errno of its failure."""
        try:
            sock = _socket.socket(
                family_of(endpoint.ip), _socket.SOCK_STREAM | _socket.SOCK_NONBLOCK
            )
        except OSError as exc:
            return exc.errno or errno.EMFILE
        sock.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_NODELAY, 1)
        number = sock.connect_ex(endpoint)
        if number in (0, errno.EINPROGRESS):
            try:
                self.reactor.register(sock, _ENDPOINT_EVENTS, self._on_dialling)
            except OSError as exc:
                number = exc.errno or errno.ENOMEM
            else:
                self._endpoint_socket = sock
                self.plane.start_deadline(self, is_last=self._is_last())
                return 0
        sock.close()
        return number

    def _is_last(self) -> bool:
        failed = len(self._tried) if self._tried else 0
        return failed + 1 >= len(self.group.balancer.endpoints)

    def _on_dialling(self, events: int) -> None:
        sock = self._endpoint_socket
        if sock is None:
            return
        number = sock.getsockopt(_socket.SOL_SOCKET, _socket.SO_ERROR)
        if number == 0 and not events & epoll.OUT:
            return
        self.plane.stop_deadline(self)
        if number == 0 and is_self_connected(sock, self.endpoint):
            number = errno.ECONNREFUSED
        if number != 0:
            self._drop_endpoint_socket()
            self._dial_failed(number)
            self.dial()
            return
        self._join(sock)
        if events & _IN_OR_END:
            self._on_endpoint(events)

    def dial_timed_out(self) -> None:
        """Give up the present dial after its deadline and try the next endpoint."""
        self.reactor.tick()
        if self._endpoint_socket is not None and is_connected(self._endpoint_socket):
            # The loop was held up, and the news is still on its way to us.
            return
        self._drop_endpoint_socket()
        self._dial_failed(errno.ETIMEDOUT)
        if self.client.getsockopt(_socket.SOL_SOCKET, _socket.SO_ERROR):
            self._finish("reset", as_reset=True)
            return
        self.dial()

    def _dial_failed(self, number: int) -> None:
        if self.endpoint is not None:
            if self._tried is None:
                self._tried = set()
            self._tried.add(self.endpoint)
            self.group.dial_failed(self.endpoint, number, self.reactor.now)

    def _refuse(self) -> None:
        self.endpoint = None
        self.group.counters.refused += 1
        self._finish("unanswered", as_reset=True)

    def _drop_endpoint_socket(self) -> None:
        if self._endpoint_socket is not None:
            self.reactor.close_socket(self._endpoint_socket)
            self._endpoint_socket = None

    # -- relaying ------------------------------------------------------------

    def _join(self, sock: _socket.socket) -> None:
        endpoint = self.endpoint
        assert endpoint is not None, "a dial that answered has an endpoint"
        try:
            self.reactor.register(self.client, _CLIENT_EVENTS, self._on_client)
        except OSError:
            self.group.counters.shortages += 1
            self._refuse()
            return
        self.group.answered(endpoint)
        counters = self.group.counters_of(endpoint)
        counters.connections += 1
        counters.active += 1
        self._tried = None
        self.up = Direction(self, self.client, sock)
        self.down = Direction(self, sock, self.client)
        self.reactor.replace_handler(sock, self._on_endpoint)

    def _on_client(self, events: int) -> None:
        up, down = self.up, self.down
        if up is None or down is None:
            return
        if events & epoll.OUT and down.waiting_bytes:
            down.flush()
            if self.is_closed:
                return
        if events & epoll.PRI:
            up.expect_urgent()
        if events & _END:
            up.pump_to_end(is_broken=bool(events & epoll.ERR))
        elif events & epoll.IN:
            up.pump()

    def _on_endpoint(self, events: int) -> None:
        up, down = self.up, self.down
        if up is None or down is None:
            return
        if events & epoll.OUT and up.waiting_bytes:
            up.flush()
            if self.is_closed:
                return
        if events & epoll.PRI:
            down.expect_urgent()
        if events & _END:
            down.pump_to_end(is_broken=bool(events & epoll.ERR))
        elif events & epoll.IN:
            down.pump()

    def sink_is_full(self, direction: Direction) -> None:
        """Ask for the moment at which the sink has room again."""
        if direction is self.down and not self._wants_client_out:
            self._wants_client_out = True
            self.reactor.modify(self.client, _CLIENT_EVENTS | epoll.OUT)

    def direction_ended(self) -> None:
        """Close both sockets when both directions have ended."""
        if self.up and self.down and self.up.is_ended and self.down.is_ended:
            self._finish("complete", as_reset=False)

    def abort(self) -> None:
        """Pass on what was sent before the error, then reset both sides; idempotent."""
        if self.is_closed or self._is_aborting:
            return
        self._is_aborting = True
        for direction in (self.up, self.down):
            if direction is not None:
                direction.pump_last()
        self._finish("reset", as_reset=True)

    def keep_alive(self, options: Iterable[tuple[int, int, int]]) -> None:
        """Set options on both sockets; one whose other side has just gone takes none."""
        for sock in (self.client, self._endpoint_socket):
            with contextlib.suppress(OSError):
                for level, option, value in options:
                    if sock is not None:
                        sock.setsockopt(level, option, value)

    def time_out(self) -> None:
        """Reset both sides, as nothing has moved for too long; idempotent."""
        self._finish("idle", as_reset=True)

    def close(self) -> None:
        """Reset both sides at once; idempotent."""
        self._finish("reset", as_reset=True)

    # -- the end -------------------------------------------------------------

    def settle(self) -> None:
        """Write the bytes moved since the last time into the endpoint's counters."""
        if self.endpoint is None or self.up is None or self.down is None:
            return
        counters = self.group.counters_of(self.endpoint)
        counters.received_bytes += self.up.take_moved()
        counters.sent_bytes += self.down.take_moved()

    def _finish(self, outcome: str, *, as_reset: bool) -> None:
        if self.is_closed:
            return
        self.is_closed = True
        self.settle()
        if _access.isEnabledFor(logging.INFO):
            self._log_access(outcome)
        if self.up is not None and self.down is not None and self.endpoint is not None:
            self.group.counters_of(self.endpoint).active -= 1
            self.up.release()
            self.down.release()
        for sock in (self.client, self._endpoint_socket):
            if sock is not None:
                if as_reset:
                    reset(sock)
                self.reactor.close_socket(sock)
        # Breaks the cycles, so that memory is given back now and not by the collector.
        self.up = self.down = self._endpoint_socket = None
        self.plane.connection_ended(self)

    def _log_access(self, outcome: str) -> None:
        up, down = self.up, self.down
        _access.info(
            "connection %s",
            outcome,
            extra={
                "service": self.group.label,
                "client": str(self.address),
                "endpoint": str(self.endpoint) if self.endpoint else "",
                "received_bytes": up.bytes_moved if up else 0,
                "sent_bytes": down.bytes_moved if down else 0,
                "duration_s": round(self.reactor.clock() - self._started, 6),
            },
        )
