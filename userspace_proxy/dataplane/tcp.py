"""TCP connections: dial, next endpoint on failure, relay, count.

    accepted ──▶ dialling ──answered──▶ joined ──both FINs──▶ complete
                  │   ▲ │                 └──RST either way──▶ reset
       refused,   └───┘ └──none left─────▶ unanswered (the client gets a RST)
       unreachable,
       1 s of silence: the next endpoint; 3 s in all, then the client is reset

Rule 1: the client's socket isn't read before an endpoint has answered, so fail-over
never loses a byte: they wait in the kernel.
Rule 2: a client that can't be served gets a RST, never a clean end.
Rule 3: a RST is passed on as a RST, behind what was sent before it (``late_reset``).
Rule 4: an endpoint that doesn't answer a client at its own address isn't asked from this node's:
a network policy would have no effect (``client_address``).
Rule 5: packets are what a connection costs: a FIN travels with the bytes before it. ACKs are
left to the kernel: delaying that of a handshake made endpoints that write twice wait for 40 ms.
"""

from __future__ import annotations

import _socket
import contextlib
import errno
import logging
from collections.abc import Iterable
from typing import Any, Protocol

from ..model import SocketAddress
from . import reactor as epoll
from .counters import EndpointCounters
from .engine import Engine
from .ephemeral import EPHEMERAL
from .group import EndpointGroup
from .pipes import PipePool
from .probes import Probes
from .relay import Direction
from .sockets import EXHAUSTED, SHORTAGES, is_connected, is_self_connected, reset
from .timeouts import Timeouts
from .tuning import DIALS

_access = logging.getLogger("userspace_proxy.access")

_CLIENT_EVENTS = epoll.IN | epoll.PRI | epoll.RDHUP | epoll.ET
_ENDPOINT_EVENTS = _CLIENT_EVENTS | epoll.OUT
_FAILED = epoll.HUP | epoll.ERR
_TO_READ = epoll.IN | epoll.PRI | epoll.RDHUP | _FAILED
_STREAM = _socket.SOCK_STREAM | _socket.SOCK_NONBLOCK

# The least that every path takes in one packet (RFC 9293, 3.7.1). Nagle's algorithm holds back
# what comes second, so a first send of no more than this needs no TCP_NODELAY.
_ONE_PACKET_BYTES = 536

# Struct tcp_info (linux/tcp.h) begins with: state, congestion state, retransmissions, probes.
_RETRANSMITS, _PROBES, _TCP_INFO_BYTES = 2, 3, 4

DESCRIPTORS = 2
"""What one connection uses: the client's socket and the endpoint's."""


class _Owner(Protocol):
    """What a connection needs of those that it belongs to: see ``TcpConnections``."""

    engine: Engine
    probes: Probes
    dial_deadlines: Timeouts[TcpConnection]
    client_deadlines: Timeouts[TcpConnection]

    def reset_late(self, connection: TcpConnection) -> bool: ...
    def ended(self, connection: TcpConnection) -> None: ...


class TcpConnection:
    """One client's connection, and the endpoint that it is carried to.

    Args:
        owner: Its engine and deadlines are used.
        group: Chooses the endpoint and counts.
        client: Accepted and non-blocking; the connection closes it.
        address: The client's address, as ``accept`` gives it: IP address and port come first.
    """

    __slots__ = (
        "_counters",
        "_dialled_at",
        "_endpoint_socket",
        "_is_dialling",
        "_is_talking",
        "_tried",
        "_wants_client_out",
        "address",
        "client",
        "down",
        "endpoint",
        "group",
        "is_aborting",
        "is_closed",
        "is_preserved",
        "may_preserve",
        "owner",
        "reactor",
        "seen_moved",
        "seen_moving_at",
        "shows_local_client",
        "started",
        "unanswered_since",
        "up",
    )

    def __init__(
        self,
        owner: _Owner,
        group: EndpointGroup,
        client: _socket.socket,
        address: Any,
    ) -> None:
        self.owner = owner
        self.reactor = owner.engine.reactor
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
        self.may_preserve = True
        """The client isn't this node itself, as far as the listener can see."""
        self.is_preserved = False
        """The endpoint sees the client's own address."""
        self.shows_local_client = False
        """That is the address of a container of this node."""
        self._endpoint_socket: _socket.socket | None = None
        self._counters: EndpointCounters | None = None
        """The endpoint's, while the two are joined."""
        self._tried: set[SocketAddress] | None = None
        """Endpoints that failed; most connections need no set."""
        self.started = self.reactor.now
        """When it was accepted."""
        self._is_dialling = False
        self._dialled_at: float | None = None
        """When the last dial began; None before the first one."""
        self._wants_client_out = False
        self.is_aborting = False
        self._is_talking = False
        """The endpoint's socket has TCP_NODELAY."""
        self.seen_moved = 0
        """Bytes that had moved at the last look; the ageing's."""
        self.seen_moving_at: float | None = None
        """When a look last saw bytes moving; None before the first one."""
        self.unanswered_since: float | None = None
        """The first of the latest looks, all of which found the client without an answer."""

    # -- dialling ------------------------------------------------------------

    def dial(self) -> None:
        """Dial the next endpoint; when none is left the client gets a RST."""
        if self._dialled_at is None:
            self._dialled_at = self.reactor.now
            self.owner.client_deadlines.start(self, self.reactor.now)
        for _ in range(DIALS):
            now = self.reactor.now
            endpoint = self.group.balancer.pick(self.address[0], now, tried=self._tried or ())
            self.endpoint = endpoint
            if endpoint is None:
                if self._tried is None:
                    self._wait_for_news()
                else:
                    self._refuse()
                return
            number = self._connect(endpoint)
            if number == 0:
                return
            if number in EXHAUSTED:
                self.group.dial_failed(endpoint, number, now)
                # Like the clients that are still in the queue, but with a deadline.
                self.owner.engine.descriptors.wait(self._dial_again, now)
                return
            self._dial_failed(number)
        self.reactor.run_soon(self._dial_again)

    def _wait_for_news(self) -> None:
        """Ask for an endpoint once more when the loop has handled all events.

        A worker may see a client before the change that lets it in: both have come, and the
        loop chooses. Twice, as what the loop saw last may be older than this client.
        """
        self._tried = set()
        loop = self.owner.engine.loop
        loop.call_soon(loop.call_soon, self._dial_again)

    def _dial_again(self) -> None:
        if not self.is_closed:
            self.reactor.tick()
            self.dial()

    def _connect(self, endpoint: SocketAddress) -> int:
        """Begin a dial; returns 0 when it is under way, else the errno of its failure."""
        self.shows_local_client = False
        try:
            sock, number = self.owner.engine.client_dialer.dial_for(
                self, _STREAM, endpoint, self.reactor.now, may_preserve=self.may_preserve
            )
        except OSError as exc:
            return exc.errno or errno.EMFILE
        if self.is_preserved:
            self.ask_whether_local()
        if number in (errno.EINPROGRESS, 0):
            try:
                self.reactor.register(sock, _ENDPOINT_EVENTS, self._on_dialling)
            except OSError as exc:
                number = exc.errno or errno.ENOMEM
            else:
                self._endpoint_socket = sock
                self._is_dialling = True
                self._dialled_at = self.reactor.now
                if self.group.tracks_load:
                    self.group.dial_began(endpoint)
                self.owner.dial_deadlines.start(self, self.reactor.now)
                return 0
        sock.close()
        return number

    def ask_whether_local(self) -> None:
        """Learn whether the endpoint sees the address of a container of this node."""
        locality = self.owner.engine.client_dialer.locality
        self.shows_local_client = self.is_preserved and locality.attaches(self.client_ip)

    def _on_dialling(self, events: int) -> None:
        sock = self._endpoint_socket
        if sock is None:
            return
        number = 0
        if events & _FAILED or not events & epoll.OUT:
            number = sock.getsockopt(_socket.SOL_SOCKET, _socket.SO_ERROR)
            if number == 0 and not events & epoll.OUT:
                return
        self._end_dial()
        if (
            number == 0
            and self.endpoint is not None
            and EPHEMERAL.includes(self.endpoint.port, self.reactor.now)
            and is_self_connected(sock, self.endpoint)
        ):
            number = errno.ECONNREFUSED
        if number != 0:
            self._drop_endpoint_socket()
            self._dial_failed(number)
            self.dial()
            return
        self._join(sock)
        if events & _TO_READ and self.down is not None:
            self.down.pump(events)

    def _end_dial(self) -> None:
        if self._is_dialling:
            self._is_dialling = False
            self.owner.dial_deadlines.stop(self)
            if self.group.tracks_load and self.endpoint is not None:
                self.group.dial_ended(self.endpoint)

    def dial_timed_out(self) -> None:
        """Try the next endpoint; without one the dial goes on until the client's deadline."""
        self.reactor.tick()
        now, tried = self.reactor.now, {*(self._tried or ()), self.endpoint}
        if not self.group.balancer.has_more(self.address[0], now, tried=tried):
            self.owner.dial_deadlines.start(self, now)
        elif self._give_up_dial():
            self.dial()

    def client_timed_out(self) -> None:
        """Reset the client after its deadline, whatever endpoints are left to try."""
        if self._give_up_dial():
            self._refuse()

    def _give_up_dial(self) -> bool:
        """End the dial that is under way, if any; False if nothing else is to be done."""
        self._end_dial()
        self.reactor.tick()
        if self._endpoint_socket is not None:
            if is_connected(self._endpoint_socket):
                # The loop was held up, and the news is still on its way to us.
                return False
            self._drop_endpoint_socket()
            assert self._dialled_at is not None, "a dial began before it is given up"
            # Else the client's time was over before the endpoint's.
            if self.reactor.now - self._dialled_at >= self.owner.engine.tuning.connect_timeout_s:
                self._dial_failed(errno.ETIMEDOUT)
        if self.client.getsockopt(_socket.SOL_SOCKET, _socket.SO_ERROR):
            self._finish("reset", as_reset=True)
            return False
        return True

    def _dial_failed(self, number: int) -> None:
        if self.endpoint is not None:
            if self._tried is None:
                self._tried = set()
            self._tried.add(self.endpoint)
            now, probes, client = self.reactor.now, self.owner.probes, self.address[0]
            is_known = self.is_preserved and probes.knows(client, self.endpoint, now)
            own = client if self.is_preserved else ""
            self.group.dial_failed(self.endpoint, number, now, client=own, is_clients_own=is_known)
            if self.is_preserved and not is_known and number not in SHORTAGES:
                probes.ask(self.group, client, self.endpoint)

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
        """Join the two sides, and move at once what the client has said already."""
        endpoint = self.endpoint
        assert endpoint is not None, "a dial that answered has an endpoint"
        up = Direction(self, self.client, sock)
        try:
            self.reactor.register(self.client, _CLIENT_EVENTS, self._on_client)
        except OSError:
            self.group.counters.shortages += 1
            self._refuse()
            return
        self.owner.client_deadlines.stop(self)
        self.group.answered(endpoint)
        counters = self._counters = self.group.counters_of(endpoint)
        counters.connections += 1
        counters.active += 1
        counters.preserved += self.is_preserved
        if self.is_preserved:
            self.owner.engine.client_dialer.connection_joined(self.address[0], endpoint)
        self._tried = None
        self.up = up
        down = self.down = Direction(self, sock, self.client)
        self.reactor.replace_handler(sock, down.pump)
        up.pump()
        if up.bytes_moved > _ONE_PACKET_BYTES:
            self._talk()

    def _on_client(self, events: int) -> None:
        """Handle the client's first events; TCP_NODELAY is for one that sends again."""
        up = self.up
        if up is None:
            return
        if up.bytes_moved and not events & epoll.RDHUP:
            self._talk()
        up.pump(events)
        if up.bytes_moved > _ONE_PACKET_BYTES:
            self._talk()

    def _talk(self) -> None:
        """Send the endpoint what is there at once, now and from now on."""
        up, sock = self.up, self._endpoint_socket
        if up is not None and sock is not None and not self._is_talking:
            self._is_talking = True
            self.reactor.replace_handler(self.client, up.pump)
            with contextlib.suppress(OSError):
                sock.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_NODELAY, 1)

    def sink_is_full(self, direction: Direction) -> None:
        """Ask for the moment at which the sink has room again."""
        up, down = self.up, self.down
        if up is None or down is None:
            return
        if direction is up:
            down.wakes_other = True
            return
        up.wakes_other = True
        if not self._wants_client_out:
            self._wants_client_out = True
            self.reactor.modify(self.client, _CLIENT_EVENTS | epoll.OUT)

    @property
    def pipes(self) -> PipePool:
        """Those that bulk is spliced through."""
        return self.owner.engine.pipes

    def room_in(self, sock: _socket.socket) -> None:
        """Go on with the direction that waited for room in a socket."""
        direction = self.down if sock is self.client else self.up
        if direction is not None:
            direction.flush()

    @property
    def is_ended(self) -> bool:
        """Whether both directions have ended."""
        up, down = self.up, self.down
        return up is not None and down is not None and up.is_ended and down.is_ended

    def direction_ended(self) -> None:
        """Close both sockets when both directions have ended."""
        if self.is_ended:
            self._finish("complete", as_reset=False)

    def abort(self) -> None:
        """Reset both sides, once what was sent before the error has arrived; idempotent."""
        if self.is_closed or self.is_aborting:
            return
        self.is_aborting = True
        for direction in (self.up, self.down):
            if direction is not None:
                direction.pump_last()
        # A reset drops what Nagle's algorithm holds back.
        self._talk()
        if not self.owner.reset_late(self):
            self._finish("reset", as_reset=True)

    def keep_alive(self, options: Iterable[tuple[int, int, int]]) -> None:
        """Set options on both sockets; one whose other side has just gone takes none."""
        for sock in (self.client, self._endpoint_socket):
            with contextlib.suppress(OSError):
                for level, option, value in options:
                    if sock is not None:
                        sock.setsockopt(level, option, value)

    @property
    def client_ip(self) -> str:
        """The client's IP address."""
        return str(self.address[0])

    def idle_since(self, now: float) -> float:
        """Return when bytes last moved, as far as the ageing's last look shows."""
        up, down = self.up, self.down
        if up is None or down is None:
            return self.started
        if up.bytes_moved + down.bytes_moved != self.seen_moved:
            return now
        return self.started if self.seen_moving_at is None else self.seen_moving_at

    def evict(self) -> None:
        """Reset both sides to make room for others."""
        self.group.counters.evicted_connections += 1
        self._finish("evicted", as_reset=True)

    def keep_client_alive(self, options: Iterable[tuple[int, int, int]]) -> None:
        """Set options on the client's socket; if its other side has just gone, none is set."""
        with contextlib.suppress(OSError):
            for level, option, value in options:
                self.client.setsockopt(level, option, value)

    @property
    def unanswered(self) -> int:
        """How often in a row the kernel has sent the client data or a probe without an answer."""
        info = self.client.getsockopt(_socket.IPPROTO_TCP, _socket.TCP_INFO, _TCP_INFO_BYTES)
        return info[_RETRANSMITS] + info[_PROBES]

    def time_out(self) -> None:
        """Reset both sides, as nothing has moved for too long; idempotent."""
        self._finish("idle", as_reset=True)

    def close(self) -> None:
        """Reset both sides at once; idempotent."""
        self._finish("reset", as_reset=True)

    # -- the end -------------------------------------------------------------

    def settle(self) -> None:
        """Write the bytes moved since the last time into the endpoint's counters."""
        counters = self._counters
        if counters is None or self.up is None or self.down is None:
            return
        counters.received_bytes += self.up.take_moved()
        counters.sent_bytes += self.down.take_moved()

    def _finish(self, outcome: str, *, as_reset: bool) -> None:
        if self.is_closed:
            return
        self.is_closed = True
        self.settle()
        if _access.isEnabledFor(logging.INFO):
            self._log_access(outcome)
        if self._counters is not None and self.up is not None and self.down is not None:
            self._counters.active -= 1
            if self.is_preserved and self.endpoint is not None:
                now, client_dialer = self.reactor.now, self.owner.engine.client_dialer
                client_dialer.connection_ended(self.address[0], self.endpoint, now)
            self.up.release()
            self.down.release()
        for sock in (self.client, self._endpoint_socket):
            if sock is not None:
                if as_reset:
                    reset(sock)
                self.reactor.close_socket(sock)
        # Breaks the cycles, so that memory is given back now and not by the collector.
        self.up = self.down = self._endpoint_socket = None
        if self._counters is None:
            self._end_dial()
            self.owner.client_deadlines.stop(self)
        self.owner.ended(self)

    def _log_access(self, outcome: str) -> None:
        up, down = self.up, self.down
        _access.info(
            "connection %s",
            outcome,
            extra={
                "service": self.group.label,
                "client": str(SocketAddress(self.address[0], self.address[1])),
                "endpoint": str(self.endpoint) if self.endpoint else "",
                "source": "client" if self.is_preserved else "node",
                "received_bytes": up.bytes_moved if up else 0,
                "sent_bytes": down.bytes_moved if down else 0,
                "duration_s": round(self.reactor.clock() - self.started, 6),
            },
        )
