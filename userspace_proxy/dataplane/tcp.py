"""TCP connections: relays and counts the bytes of a client and the endpoint that answered.

    accepted ──begin──▶ dialling, waiting ──join──▶ joined ──both FINs──▶ complete
                         │                           └──RST either way──▶ reset
                         └──no endpoint──▶ reset

    TcpConnection ─┬─ dial: TcpDial     from the first dial on: the endpoint, and how it was found
                   ├─ up: Direction     while joined: client to endpoint
                   └─ down: Direction   while joined: endpoint to client

Rule 1: a client that can't be served gets a RST, never a clean end.
Rule 2: a RST is passed on as a RST, behind the bytes sent before it (``late_reset``).
Rule 3: packets dominate the cost of a connection: a FIN travels with the bytes before it, and for a
short time ACKs travel with the bytes after them (``held_acks``).
"""

from __future__ import annotations

import _socket
from typing import Any

from ..facts.connection import ConnectionEvent
from ..facts.connection_outcome import LATE, LOST, ConnectionOutcome, EndFacts
from ..kernel.socket_options import reset_on_close, send_at_once, send_held
from ..kernel.tcp_state import reset_as
from ..model import ProxyProtocol, SocketAddress
from ..model.connection_ends import EndedBy, EndReason
from ..model.proxy_protocol import write_header
from . import reactor as epoll
from .endings import (
    end_if_given_up,
    end_if_lost,
    end_if_reset,
    end_of_client,
    has_arrived,
    owes_answer,
)
from .endpoint_group import EndpointGroup
from .frontends import Announced, dialled_at
from .held_acks import send_acks
from .relay import Direction
from .tcp_dial import READ_EVENTS, DialledFor, DialOwner, TcpDial

_READABLE = epoll.IN | epoll.PRI | epoll.RDHUP | epoll.HUP | epoll.ERR
_RDHUP = epoll.RDHUP
# Every path takes this much in one packet (RFC 9293, 3.7.1). Nagle's algorithm delays only later
# bytes, so a first send of no more than this needs no TCP_NODELAY.
_ONE_PACKET_BYTES = 536
# Before Python 3.12 an enum's member costs a call, and each connection needs some of these.
_BY_CLIENT, _BY_ENDPOINT = EndedBy.CLIENT, EndedBy.ENDPOINT


class TcpConnection(DialledFor):
    """One client's connection.

    It handles the events of the client's socket, and of the endpoint's until its first byte.

    Args:
        client: Descriptor of the client's socket, which the reactor's calls own; closed at the end.
        address: As ``accept`` returns it: IP address and port come first.
    """

    __slots__ = (
        "_has_nodelay", "_wants_client_out", "announced", "dial", "down", "exchange",
        "is_aborting", "seen_moved", "seen_moving_at", "started", "unanswered_since", "up",
    )  # fmt: skip

    def __init__(self, owner: DialOwner, group: EndpointGroup, client: int, address: Any) -> None:
        self.owner = owner
        reactor = self.reactor = owner.reactor
        self.pipes = owner.pipes
        self.group = group
        self.client_fd = client
        self.address = address
        self.announced: Announced | None = None
        """Set if the address comes from a PROXY header."""
        self.is_closed = False
        self.may_preserve = True
        """False if the listener can see that the client is this node itself."""
        self.started = reactor.now
        """When the client was accepted."""
        self.dial: TcpDial | None = None
        """None before the first dial and after the end."""
        self.up: Direction | None = None
        """Client to endpoint; None before an endpoint has answered and after the end."""
        self.down: Direction | None = None
        """Endpoint to client."""
        self.is_aborting = False
        self.seen_moved = 0
        """Bytes moved as of the last check of ``Ageing``."""
        self.seen_moving_at: float | None = None
        """When a check last found that bytes had moved; None before the first check."""
        self.unanswered_since: float | None = None
        """The first of the latest unbroken series of checks that found the client not answering."""
        self.exchange: ConnectionOutcome | None = None
        """The facts by which its end is judged; None before an endpoint has answered."""
        self.speaker: Direction | None = None
        self._wants_client_out = False
        self._has_nodelay = False
        """The endpoint's socket has TCP_NODELAY."""

    @property
    def client_ip(self) -> str:
        return str(self.address[0])

    @property
    def client(self) -> _socket.socket:
        """The client's socket, for calls that are seldom made."""
        return self.reactor.calls.socket(self.client_fd)

    @property
    def endpoint_fd(self) -> int:
        """The socket towards the endpoint that is dialled or has answered; -1 for none."""
        if self.up is not None:
            return self.up.sink_fd
        return -1 if self.dial is None else self.dial.fd

    def begin(self) -> None:
        """Dial endpoints until one answers."""
        self.owner.accounts.begun(self)
        dial = self.dial = TcpDial(self)
        dial.try_next()

    def on(self, fd: int, events: int) -> None:
        if fd == self.client_fd:
            self._on_client(events)
        else:
            self._on_endpoint(events)

    def join(self, fd: int, events: int) -> None:
        """Join the two sides, and move the client's first bytes at once.

        Both sockets are watched; the endpoint's has ``events``, and is closed at the end.
        """
        dial, group = self.dial, self.group
        assert dial is not None, "a dial was answered"
        up = self.up = Direction(self, self.client_fd, fd)
        self.down = Direction(self, fd, self.client_fd)
        self.owner.accounts.answered(self, dial)
        self.reactor.set_handler(fd, self)
        version = group.serving.handling.proxy_protocol
        if version is None:
            up.pump()
        else:
            self._send_header(version, up)
        group.sends_at_once = up.bytes_moved > 0 or version is not None
        if dial.holds_ack and not group.sends_at_once:
            send_acks(self.reactor.calls, fd)
        if up.bytes_moved > _ONE_PACKET_BYTES:
            self._set_nodelay()
        if events & _READABLE:
            self._on_endpoint(events)

    def _send_header(self, version: ProxyProtocol, up: Direction) -> None:
        """Send the PROXY header, in one packet with the client's first bytes."""
        client, service = SocketAddress(*self.address[:2]), self.group.reference
        try:
            send_held(up.sink, write_header(version, client, self.frontend(), service))
        except OSError as exc:
            # No event reports this error again: later reads would look like a clean end.
            self.abort(exc.errno or 0)
            return
        up.pump()
        send_at_once(up.sink)

    def frontend(self) -> SocketAddress | None:
        return dialled_at(self.client) if self.announced is None else self.announced.frontend

    def _on_client(self, events: int) -> None:
        """Handle the client's first events; TCP_NODELAY is for a client that sends again."""
        up, exchange = self.up, self.exchange
        if up is None or exchange is None:
            return
        if (had_asked := up.bytes_moved) and not events & _RDHUP:
            self._set_nodelay()
        if not had_asked:
            # Pumping may find the client's end, whose cause depends on this time.
            exchange.asked_at = self.reactor.now
        up.on(self.client_fd, events)
        if not up.bytes_moved:
            exchange.asked_at = exchange.answered_at
        if up.bytes_moved > _ONE_PACKET_BYTES:
            self._set_nodelay()

    def _on_endpoint(self, events: int) -> None:
        """Handle the endpoint's events until its first byte."""
        up, down, exchange = self.up, self.down, self.exchange
        if up is None or down is None or exchange is None:
            return
        down.on(down.source_fd, events)
        if exchange.first_byte_s is None:
            self._note_first_byte(up, down)
        if exchange.first_byte_s is not None and self.down is not None and not self.is_aborting:
            self.reactor.set_handler(down.source_fd, down)

    def _note_first_byte(self, up: Direction, down: Direction) -> None:
        """Note the endpoint's first byte, if it has arrived; the end may come with it."""
        if down.bytes_moved or down.waiting_bytes:
            self.owner.accounts.first_byte(self, end_of_client(up) if up.is_ended else None)

    def _set_nodelay(self) -> None:
        """Send the bytes for the endpoint that the kernel holds back; delay no later ones."""
        up = self.up
        if up is not None and not self._has_nodelay:
            self._has_nodelay = True
            self.reactor.set_handler(self.client_fd, up)
            self.reactor.calls.set_option(up.sink_fd, _socket.IPPROTO_TCP, _socket.TCP_NODELAY, 1)

    def sink_is_full(self, direction: Direction) -> None:
        """Flush the direction once its sink has room again."""
        up, down = self.up, self.down
        if up is None or down is None:
            return
        if direction is up:
            down.wakes_other = True
        else:
            up.wakes_other = True
            if not self._wants_client_out:
                self._wants_client_out = True
                self.reactor.calls.change_watch(self.client_fd, READ_EVENTS | epoll.OUT)
        # This may reset the connection.
        self.owner.engine.memory.note(direction.waiting_bytes)

    def room_in(self, fd: int) -> None:
        """Flush the direction that waited for room in a socket."""
        direction = self.down if fd == self.client_fd else self.up
        if direction is not None:
            direction.flush()

    def has_ended(self) -> bool:
        up, down = self.up, self.down
        return up is not None and down is not None and up.is_ended and down.is_ended

    def ends(self, direction: Direction) -> None:
        """Note whether another answer is due, before the last bytes of a side are read."""
        up, down, exchange = self.up, self.down, self.exchange
        is_first = up and down and down.bytes_moved and not (up.is_ended or down.is_ended)
        if up and exchange and is_first and self.speaker is up:
            lasted_s = self.reactor.now - exchange.answered_at
            exchange.has_unanswered_request = owes_answer(up, lasted_s, is_left=direction is up)

    def direction_ended(self, direction: Direction) -> None:
        """Close both sockets when both directions have ended."""
        up, down, exchange, now = self.up, self.down, self.exchange, self.reactor.now
        if up is None or down is None or exchange is None:
            return
        if direction is up and (end := end_if_lost(up, down, exchange, now)):
            exchange.note_end(end, now)
        if up.is_ended:
            if down.is_ended:
                if exchange.code is not LOST:
                    exchange.counters.cuts.succeeded_at = now
                by = _BY_ENDPOINT if direction is up else _BY_CLIENT
                if exchange.first_byte_s is None:
                    self._note_first_byte(up, down)
                # The end should report whether a late answer has arrived.
                if direction is up or exchange.code is not LATE or not self.owner.end_late(self):
                    self.finish(EndReason.COMPLETE, as_reset=False, by=by)
        elif not down.bytes_moved:
            lasted_s = now - exchange.answered_at
            end = EndFacts(_BY_ENDPOINT, has_asked=up.bytes_moved > 0, lasted_s=lasted_s)
            exchange.note_end(end, now)

    def abort(self, number: int) -> None:
        """Reset both sides once the bytes sent before the error have arrived. Idempotent.

        ``number`` is the errno; 0 if it isn't known.
        """
        up, down, exchange = self.up, self.down, self.exchange
        if up is None or down is None or exchange is None or self.is_aborting:
            return
        self.is_aborting = True
        if self.owner.engine.connection_log is not None:
            exchange.reset_as = reset_as(number or None, up.source, up.sink)
        had_end, now = down.is_ended, self.reactor.now
        if not up.bytes_moved:
            exchange.asked_at = now
        up.pump_last()
        if not up.bytes_moved:
            exchange.asked_at = exchange.answered_at
        down.pump_last()
        if not self.is_closed and (
            end := end_if_reset(up, down, exchange, now, number or None, had_end)
        ):
            exchange.note_end(end, now)
        # A reset drops bytes that Nagle's algorithm holds back.
        self._set_nodelay()
        if not self.owner.end_late(self):
            self.close()

    def idle_since(self, now: float) -> float:
        """Return when bytes last moved, as of the last check of ``Ageing``.

        Before the first check it is when an endpoint answered: the client may have waited long.
        """
        up, down, exchange = self.up, self.down, self.exchange
        if up is None or down is None or exchange is None:
            return self.started
        if up.bytes_moved + down.bytes_moved != self.seen_moved:
            return now
        return exchange.answered_at if self.seen_moving_at is None else self.seen_moving_at

    def settle(self) -> None:
        """Add the bytes moved since the last call to the endpoint's counters."""
        up, down, exchange, now = self.up, self.down, self.exchange, self.reactor.now
        if up is None or down is None or exchange is None:
            return
        counters = exchange.counters
        counters.received_bytes += up.bytes_moved - up.bytes_counted
        counters.sent_bytes += down.bytes_moved - down.bytes_counted
        up.bytes_counted, down.bytes_counted = up.bytes_moved, down.bytes_moved
        if exchange.first_byte_s is None:
            self._note_first_byte(up, down)
        if exchange.first_byte_s is None:
            # Not ``reactor.now``: there may have been no dispatch since the client left.
            now = self.reactor.clock()
            if exchange.code is None and (end := end_if_given_up(up, exchange, now)):
                exchange.note_end(end, now)
        elif exchange.code is LATE and has_arrived(down):
            exchange.note_arrived(now)

    def close(self) -> None:
        """Reset both sides at once. Idempotent."""
        cause, by = EndReason.RESET if self.is_aborting else EndReason.SHUTDOWN, EndedBy.PROXY
        if self.exchange is not None and self.exchange.reset_as is not None:
            cause, by = self.exchange.reset_as
        self.finish(cause, as_reset=True, by=by)

    def finish(self, cause: EndReason, *, as_reset: bool, by: EndedBy = EndedBy.PROXY) -> None:
        """Close both sockets, with a RST or a FIN, and log cause and side. Idempotent."""
        if self.is_closed:
            return
        self.is_closed = True
        self.settle()
        accounts = self.owner.accounts
        accounts.ended(self, cause, by)
        up, down, dial = self.up, self.down, self.dial
        if as_reset:
            reset_on_close(self.client)
        self.reactor.close_descriptor(self.client_fd)
        if up is not None and down is not None:
            if as_reset:
                reset_on_close(up.sink)
            self.reactor.close_descriptor(up.sink_fd)
            up.release()
            down.release()
            if dial is not None:
                accounts.left(self, dial, is_stalled=up.is_stalled)
        elif dial is not None:
            dial.cancel()
        # Breaks reference cycles, so memory is freed now and not by the garbage collector.
        self.up = self.down = self.speaker = self.dial = None
        self.owner.ended(self)

    def note(self, event: ConnectionEvent) -> None:
        self.owner.accounts.note(self, event)
