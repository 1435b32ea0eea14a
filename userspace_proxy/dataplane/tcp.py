"""Dials endpoints for a TCP client until one answers, then relays between client and endpoint.

    accepted ──begin──▶ dialling ──answered──▶ joined ──both FINs──▶ complete
                         │   ▲ │                 └──RST either way──▶ reset
             refused,    └───┘ └──none left──▶ waits until an endpoint can take it
             unreachable,                      (``waiting_room``), or is reset
             1 s of silence: the next endpoint; after 3 s in all, or 16 endpoints, as if
             none were left

    TcpConnection ─┬─ up: Direction     while joined: client to endpoint
                   └─ down: Direction   while joined: endpoint to client

Rule 1: a client that can't be served gets a RST, never a clean end.
Rule 2: a RST is passed on as a RST, after the bytes sent before it (``LateResets``).
Rule 3: packets dominate the cost of a connection, so a FIN travels with the bytes before it, and
ACKs are held back for a short time to travel with the bytes after them (``HeldAcks``).
Rule 4: the client's socket isn't read before an endpoint has answered, so fail-over loses no bytes:
they wait in the kernel. While a client waits, only its FIN or RST is detected; if this process
ends, the kernel resets the client.
Rule 5: an endpoint that doesn't answer a dial from the client's address isn't dialled from this
node's address instead: that would bypass a network policy (``client_address``).
"""

from __future__ import annotations

import _socket
import errno
from collections import deque
from collections.abc import Callable, Hashable
from typing import Any

from ..facts.connection import ConnectionEvent
from ..facts.connection_outcome import LATE, LOST, EndFacts
from ..kernel.listening_sockets import dialled_at, is_self_connected
from ..kernel.socket_options import reset_no_more, reset_on_close, send_at_once, send_held
from ..kernel.tcp_state import LOSS_S, is_connected, reset_as, unread_bytes
from ..model import DialFailure, Failure, ProxyProtocol, SocketAddress
from ..model.connection_ends import EndedBy, EndReason
from ..model.failures import SHORTAGES, dial_failure
from ..model.proxy_protocol import write_header
from . import reactor as epoll
from .client_address import may_be_source
from .endpoint_group import EndpointGroup
from .engine import Engine
from .probes import Probes
from .reactor import Reactor, Timeouts
from .relay import Direction, PipePool
from .tcp_accounts import Accounted, TcpAccounts, end_if_lost, end_if_reset, owes_answer

READ_EVENTS = epoll.IN | epoll.PRI | epoll.RDHUP | epoll.ET
_DIAL_EVENTS = READ_EVENTS | epoll.OUT
_FAILED = epoll.HUP | epoll.ERR
_READABLE = epoll.IN | epoll.PRI | epoll.RDHUP | epoll.HUP | epoll.ERR
_OUT, _RDHUP = epoll.OUT, epoll.RDHUP
# The number of bytes that fit into one packet on every path (RFC 9293, 3.7.1). Nagle's algorithm
# delays only later bytes, so a first send of no more than this needs no TCP_NODELAY.
_ONE_PACKET_BYTES = 536
# Before Python 3.12, accessing an enum member costs a function call: too much per connection.
_BY_CLIENT, _BY_ENDPOINT = EndedBy.CLIENT, EndedBy.ENDPOINT
_COMPLETE = EndReason.COMPLETE


# The maximum number of redials per turn. A failed dial costs 0.07 to 0.2 ms; a client's fail-over
# to the last of its 16 endpoints fits into one or two turns.
REDIALS = 32
# How long other events wait for redials. A single redial may take longer: a choice by
# ``source-hash`` among 10,000 endpoints takes up to 4 ms.
REDIALS_S = 0.002


class Redials:
    """The clients of all Service ports that wait for another dial after a failed dial.

        a dial fails ──▶ queue of its Service port ──▶ one of each port in turn, until REDIALS or
                           ▲                           REDIALS_S in this turn of the loop, after
                           │                           all other events
                           │                                 │ all others, and failed redials
                           └─────────────────────────────────┘

    Other clients are served in time even while all endpoints of some Service ports fail. First
    dials aren't counted, because the rate of accepting bounds them.
    """

    def __init__(self, reactor: Reactor) -> None:
        self._reactor = reactor
        self._waiting: dict[Hashable, deque[Callable[[], None]]] = {}
        """Queues by Service port, in the order of their turns; none is empty."""
        self._is_scheduled = False

    def add(self, port: Hashable, dial: Callable[[], None]) -> None:
        """Dial for a client of a Service port in this or a later turn of the loop."""
        self._waiting.setdefault(port, deque()).append(dial)
        self._schedule()

    def _schedule(self) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            self._reactor.run_soon(self._run)

    def _run(self) -> None:
        clock = self._reactor.clock
        until = clock() + REDIALS_S
        try:
            for _ in range(REDIALS):
                if not self._waiting:
                    return
                port = next(iter(self._waiting))
                dials = self._waiting.pop(port)
                dial = dials.popleft()
                if dials:
                    self._waiting[port] = dials
                dial()
                if clock() >= until:
                    return
        finally:
            self._is_scheduled = False
            if self._waiting:
                self._schedule()


class ConnectionOwner:
    """The state that all connections on one engine share; the base of ``TcpConnections``."""

    held_acks: Timeouts

    def __init__(self, engine: Engine) -> None:
        reactor, tuning = engine.reactor, engine.tuning
        self.engine = engine
        self.probes = Probes(engine)
        self.accounts = TcpAccounts(engine, self.probes)
        self.redials = Redials(reactor)
        self.dial_deadlines = Timeouts(reactor, tuning.connect_timeout_s, TcpConnection.timed_out)
        self.client_deadlines = Timeouts(
            reactor, tuning.client_timeout_s, TcpConnection.client_timed_out
        )
        """Deadlines of clients that no endpoint has answered yet."""
        self.openings: dict[TcpConnection, Callable[[], None]] = {}
        """Functions that cancel a dialer's dials in progress; empty without a dialer."""

    def end_late(self, connection: TcpConnection) -> bool:
        """End a connection once its sent bytes have arrived; return False if none are in flight."""
        raise NotImplementedError

    def ended(self, connection: TcpConnection) -> None:
        """Remove a closed connection; its deadlines have been stopped."""


class TcpConnection(Accounted):
    """One client's connection, and the dials for it, one after another.

    It handles events of the client until ``_set_nodelay``, of the endpoint until its first byte.

    Args:
        client: Descriptor of the client's socket, which the reactor's calls own; closed at the end.
    """

    __slots__ = (
        "_awaits_turn", "_is_counted", "endpoint_fd", "holds_ack", "is_aborting", "is_waiting",
        "may_preserve", "owner", "shows_local_client",
    )  # fmt: skip

    def __init__(
        self, owner: ConnectionOwner, group: EndpointGroup, client: int, address: Any
    ) -> None:
        self.owner = owner
        reactor = self.reactor = owner.engine.reactor
        self.group = group
        self.client_fd = client
        self.address = address
        self.announced = None
        self.is_closed = False
        self.may_preserve = True
        """Whether endpoints may see the client's address, unless routes rule that out."""
        self.started = reactor.now
        self.endpoint = None
        self.endpoint_fd = -1
        """Descriptor of the socket towards the endpoint; -1 for none."""
        self.tried = None
        self.began_at = None
        self.holds_ack = False
        """Whether the ACK of the endpoint's answer waits for bytes to send (``HeldAcks``)."""
        self.is_preserved = False
        self.shows_local_client = False
        """Whether the endpoint sees the address of a container of this node."""
        self.is_waiting = False
        """Whether the client has a place in the waiting room of its Service port."""
        self._offset = 0
        self._is_counted = False
        """Whether the load of the endpoint includes the dial."""
        self._awaits_turn = False
        """Whether ``_dial_again`` dials; False while the waiting room may resume the client."""
        self.up = self.down = self.speaker = None
        self.is_aborting = False
        self.exchange = None

    @property
    def _endpoint_socket(self) -> _socket.socket:
        return self.reactor.calls.socket(self.endpoint_fd)

    def begin(self) -> None:
        """Dial endpoints until one answers; refuse a client whose port has just left the range."""
        self.owner.engine.calls.add(self.group, self.address[0])
        if self.group.serving.ranges or self.group.left_ranges:
            dialled = dialled_at(self.client)
            if dialled is not None and not self._choose_offset(dialled):
                self._refuse()
                return
        self.try_next()

    def on(self, fd: int, events: int) -> None:
        up, exchange = self.up, self.exchange
        if up is None or exchange is None:
            if fd == self.endpoint_fd:
                self._on_dialling(events)
            elif self.is_waiting:
                # The client has sent a FIN or a RST.
                self.group.counters.waits.client_aborts += 1
                self.finish(EndReason.LEFT, as_reset=True, by=EndedBy.CLIENT)
            return
        if fd != self.client_fd:
            self._on_endpoint(events)
            return
        # TCP_NODELAY is for a client that sends again, so it isn't set on its first events.
        if (had_asked := up.bytes_moved) and not events & _RDHUP:
            self._set_nodelay()
        if not had_asked:
            # Pumping may find the client's FIN or RST, and the cause of that end depends on this
            # time.
            exchange.asked_at = self.reactor.now
        up.on(fd, events)
        if not up.bytes_moved:
            exchange.asked_at = exchange.answered_at
        if up.bytes_moved > _ONE_PACKET_BYTES:
            self._set_nodelay()

    @property
    def pipes(self) -> PipePool:
        return self.owner.engine.pipes

    def _choose_offset(self, dialled: SocketAddress) -> bool:
        """Set the dialled port's offset in its range; return False if it has just left the range.

        Clients of other ports, such as node ports, get the endpoint's listed port.
        """
        for one in self.group.serving.ranges:
            if (offset := one.offset(*dialled)) is not None:
                self._offset = offset
                return True
        left = self.group.lately_left(self.reactor.now)
        return not any(one.offset(*dialled) for one in left)

    def try_next(self) -> None:
        """Dial the next endpoint; if none is left, let the client wait, or reset it."""
        group, now = self.group, self.reactor.now
        if self.began_at is None:
            room = group.waiting_room
            is_queueing = room is not None and room.is_queueing and not self.is_waiting
            if is_queueing and self._wait(is_at_limit=True):
                # A new client is behind others that wait for room.
                return
            self.began_at = now
            self.owner.client_deadlines.start(self, now)
        endpoint = group.balancers.current.pick(self.address[0], now, tried=self.tried or ())
        self.endpoint = endpoint
        if endpoint is None:
            if self._wait():
                return
            if self.tried is None:
                self._pick_again()
            else:
                self._refuse()
            return
        failed = self._connect(endpoint)
        if failed is None:
            return
        if failed.failure is Failure.EXHAUSTED:
            group.failed(endpoint, failed, now)
            # Dial again once descriptors are free: the client waits like clients in the listener's
            # queue, but with a deadline.
            room = group.waiting_room if self._wait() else None
            self._awaits_turn = room is None
            resume = self._dial_again if room is None else room.retry
            self.owner.engine.descriptors.wait(resume, now)
            return
        self._dial_next(failed)

    def _cancel(self) -> None:
        """Give up dialling: the connection ends before an endpoint has answered."""
        self._awaits_turn = False
        self._end_dial()
        if self.endpoint_fd >= 0:
            # If the socket has connected meanwhile, its endpoint must see a RST, not a clean end.
            reset_on_close(self._endpoint_socket)
            self._drop_socket()
        room = self.group.waiting_room
        if self.is_waiting and room is not None:
            self.is_waiting = False
            room.left(self)
        self.owner.client_deadlines.stop(self)

    def _dial_next(self, failed: DialFailure) -> None:
        """After a failed dial, dial the next endpoint when it is this Service port's turn."""
        self._dial_failed(failed)
        if self._is_closed_port(failed) and self.group.serving.affinity_timeout_s is not None:
            # Don't dial another pod: with affinity, the port there is another user's session.
            self._refuse()
            return
        self._awaits_turn = True
        self.owner.redials.add(self.group, self._dial_again)

    def _wait(self, *, is_at_limit: bool = False) -> bool:
        """Let the client wait until an endpoint can take it; return False if it can't wait."""
        is_at_limit = is_at_limit or self.group.balancers.is_at_limit(
            self.address[0], self.reactor.now, self.tried or ()
        )
        room = self.group.open_waiting_room(self.reactor, is_at_limit=is_at_limit)
        if room is None:
            return False
        if self.reactor.watch(self.client_fd, epoll.RDHUP, self) < 0:
            self.group.counters.shortages += 1
            return False
        self.owner.client_deadlines.stop(self)
        self.endpoint = None
        if not self.is_waiting:
            self.owner.accounts.note(self, ConnectionEvent.HELD)
        self.tried = self.began_at = None
        self._awaits_turn = False
        if not self.is_waiting:
            self.is_waiting = True
            reset_on_close(self.client)
        room.wait(self, is_at_limit=is_at_limit)
        return True

    def resume(self) -> None:
        self.reactor.unwatch(self.client_fd)
        self.try_next()

    def end_wait(self, cause: EndReason) -> None:
        self.group.counters.refused += 1
        self.finish(cause, as_reset=True)

    def _pick_again(self) -> None:
        """Pick an endpoint once more after the loop has handled all events.

        If a client and the change that admits it have both arrived, the loop may handle the client
        first. ``call_soon`` is nested so that the loop polls again before the retry: its last poll
        may be older than this client.
        """
        self.tried = {}
        self._awaits_turn = True
        loop = self.owner.engine.loop
        loop.call_soon(loop.call_soon, self._dial_again)

    def _dial_again(self) -> None:
        # A client whose deadline has passed is resumed by the waiting room instead.
        if self._awaits_turn:
            self._awaits_turn = False
            self.reactor.tick()
            self.try_next()

    def _connect(self, endpoint: SocketAddress) -> DialFailure | None:
        """Begin a dial; return the failure if it fails at once, else None."""
        owner, reactor, group, now = self.owner, self.reactor, self.group, self.reactor.now
        engine = owner.engine
        at = self.dialled(endpoint) if self._offset else endpoint
        if engine.dialer is not None:
            owner.openings[self] = engine.dialer.dial(group.label, at, self._on_opened)
        else:
            self.holds_ack = group.sends_at_once and self in owner.held_acks.due
            dialer = engine.client_dialer
            fd = dialer.dial_for(self, at, now, self.may_preserve, self.holds_ack)
            self.shows_local_client = self.is_preserved and dialer.locality.attaches(
                self.address[0]
            )
            if fd < 0:
                return dial_failure(-fd, endpoint.ip)
            number = reactor.watch(fd, _DIAL_EVENTS, self)
            if number < 0:
                reactor.calls.close(fd)
                return dial_failure(-number, endpoint.ip)
            self.endpoint_fd = fd
        self.began_at = now
        if group.balancers.tracks_loads:
            self._is_counted = True
            group.balancers.dial_began(endpoint)
        owner.dial_deadlines.start(self, now)
        return None

    def _on_opened(self, outcome: _socket.socket | int) -> None:
        """Handle the outcome of the dialer's dial."""
        self.owner.openings.pop(self, None)
        self.reactor.tick()
        if not isinstance(outcome, int):
            number = -self.reactor.watch(outcome.fileno(), _DIAL_EVENTS, self)
            if not number:
                self.endpoint_fd = self.reactor.calls.adopt(outcome)
                return
            outcome.close()
            outcome = number
        self._end_dial()
        self._dial_next(self._failure(outcome))

    def _on_dialling(self, events: int) -> None:
        number = 0
        if events & _FAILED or not events & _OUT:
            number = self.reactor.calls.take_error(self.endpoint_fd)
            if number == 0 and not events & _OUT:
                return
        self._end_dial()
        if (
            number == 0
            and not self.is_preserved  # A preserved client's address is never the endpoint's.
            and self.endpoint is not None
            and may_be_source(self.endpoint.port + self._offset, self.reactor.now)
            and is_self_connected(self._endpoint_socket, self.dialled(self.endpoint))
        ):
            number = errno.ECONNREFUSED
        if number == 0:
            self.join(events)
            return
        self._drop_socket()
        self._dial_next(self._failure(number))

    def _end_dial(self) -> None:
        """End the dial in progress; its socket stays open. Idempotent."""
        owner = self.owner
        owner.dial_deadlines.due.pop(self, None)
        if owner.openings and (cancel := owner.openings.pop(self, None)):
            cancel()
        if self._is_counted and self.endpoint is not None:
            self._is_counted = False
            self.group.balancers.dial_ended(self.endpoint)

    def timed_out(self) -> None:
        """Try the next endpoint; if there is none, keep this dial until the client's deadline."""
        self.reactor.tick()
        now, tried = self.reactor.now, {*(self.tried or ()), self.endpoint}
        if not self.group.balancers.current.has_more(self.address[0], now, tried=tried):
            self.owner.dial_deadlines.start(self, now)
        elif self._give_up_dial():
            self.try_next()

    def client_timed_out(self) -> None:
        """Let the client wait, or reset it, even if endpoints are left to try."""
        if self._give_up_dial() and not self._wait():
            self._refuse()

    def _give_up_dial(self) -> bool:
        """End a dial in progress; return False if it has succeeded, or the client has gone."""
        self.reactor.tick()
        if self.endpoint_fd >= 0 and is_connected(self._endpoint_socket):
            # Keep the dial: it has succeeded, but the delayed loop hasn't handled its event yet.
            return False
        is_opening = self in self.owner.openings
        self._end_dial()
        if is_opening or self.endpoint_fd >= 0:
            self._drop_socket()
            assert self.began_at is not None, "a dial began before it is given up"
            # Don't blame the endpoint for a later dial that the client's deadline has cut short.
            if self.reactor.now - self.began_at >= self.owner.engine.tuning.connect_timeout_s:
                self._dial_failed(self._failure(errno.ETIMEDOUT))
        if self.reactor.calls.take_error(self.client_fd):
            self.finish(EndReason.RESET, as_reset=True, by=EndedBy.CLIENT)
            return False
        return True

    def _failure(self, number: int) -> DialFailure:
        assert self.endpoint is not None, "a dial that fails has an endpoint"
        return dial_failure(number, self.endpoint.ip)

    def _is_closed_port(self, failed: DialFailure) -> bool:
        """Return whether an endpoint refuses one port of a range, and may serve the other ports."""
        return bool(self._offset) and failed.failure is Failure.REFUSED

    def _dial_failed(self, failed: DialFailure) -> None:
        if self.endpoint is not None:
            if self.tried is None:
                self.tried = {}
            now, probes, client = self.reactor.now, self.owner.probes, self.address[0]
            is_denied = self.is_preserved and probes.pairs.has(client, self.endpoint, now)
            group, is_over, is_answering = self.group, False, False
            if failed.failure is Failure.SILENT and self.began_at is not None:
                is_over = group.has_returned_since(self.endpoint, self.began_at)
                # Eject an endpoint that answers only some dials, unless there is no other endpoint.
                is_only = len(group.serving.all_endpoints) == 1
                is_answering = is_only and group.has_answered_since(self.endpoint, self.began_at)
            self.tried[self.endpoint] = group.failed(
                self.endpoint,
                failed,
                now,
                client=client if self.is_preserved else "",
                is_client_specific=is_denied or is_over or self._is_closed_port(failed),
                may_be_client_specific=is_answering,
            )
            if failed.failure in SHORTAGES or self._is_closed_port(failed):
                return
            if is_denied and not is_over:
                probes.denied(group, client, self.endpoint, failed)
            elif self.is_preserved and not is_over:
                probes.request(group, client, self.endpoint)

    def _refuse(self) -> None:
        """Reset a client that no endpoint serves."""
        self.endpoint = None
        self.group.counters.refused += 1
        self.finish(EndReason.UNANSWERED, as_reset=True)

    def _drop_socket(self) -> None:
        if self.endpoint_fd >= 0:
            self.reactor.close_descriptor(self.endpoint_fd)
            self.endpoint_fd = -1

    def join(self, events: int) -> None:
        """Join the two sides, and move the client's first bytes at once.

        ``events`` are the current events of the endpoint's socket.
        """
        owner, reactor, group, fd = self.owner, self.reactor, self.group, self.endpoint_fd
        if reactor.watch(self.client_fd, READ_EVENTS, self) < 0:
            group.counters.shortages += 1
            self._refuse()
            return
        owner.client_deadlines.due.pop(self, None)
        if self.is_waiting and group.waiting_room is not None:
            self.is_waiting = False
            reset_no_more(self.client)
            group.waiting_room.served(self)
        up = self.up = Direction(self, self.client_fd, fd)
        self.down = Direction(self, fd, self.client_fd)
        owner.accounts.answered(self)
        version = group.serving.handling.proxy_protocol
        if version is None:
            up.pump()
        else:
            self._send_header(version, up)
        group.sends_at_once = up.bytes_moved > 0 or version is not None
        if self.holds_ack and not group.sends_at_once:
            reactor.calls.send_acks(fd)
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

    def _on_endpoint(self, events: int) -> None:
        """Handle the endpoint's events until its first byte."""
        up, down, exchange = self.up, self.down, self.exchange
        if up is None or down is None or exchange is None:
            return
        down.on(down.source_fd, events)
        if exchange.first_byte_s is None:
            self.owner.accounts.first_byte(self)
        if exchange.first_byte_s is not None and self.down is not None and not self.is_aborting:
            self.reactor.handlers[down.source_fd] = down

    def _set_nodelay(self) -> None:
        """Send held and further bytes to the endpoint at once; let ``up`` handle client events."""
        up = self.up
        if up is not None and not up.has_nodelay:
            up.has_nodelay = True
            self.reactor.handlers[self.client_fd] = up
            self.reactor.calls.set_option(up.sink_fd, _socket.IPPROTO_TCP, _socket.TCP_NODELAY, 1)

    def sink_is_full(self, direction: Direction) -> None:
        up, down = self.up, self.down
        if up is None or down is None:
            return
        if direction is up:
            down.wakes_other = True
        elif not up.wakes_other:
            up.wakes_other = True
            self.reactor.calls.change_watch(self.client_fd, READ_EVENTS | epoll.OUT)
        # Call this last: it may reset the connection.
        self.owner.engine.memory.note(direction.waiting_bytes)

    def room_in(self, fd: int) -> None:
        direction = self.down if fd == self.client_fd else self.up
        if direction is not None:
            direction.flush()

    def ends(self, direction: Direction) -> None:
        up, down, exchange = self.up, self.down, self.exchange
        is_first = up and down and down.bytes_moved and not (up.is_ended or down.is_ended)
        if up and down and exchange and is_first:
            lasted_s = self.reactor.now - exchange.answered_at
            is_owed = owes_answer(up, lasted_s, is_left=direction is up)
            # Bytes that arrived together with the endpoint's FIN are the answer.
            exchange.has_unanswered_request = is_owed and not unread_bytes(down.source)

    def direction_ended(self, direction: Direction) -> None:
        up, down, exchange, now = self.up, self.down, self.exchange, self.reactor.now
        if direction.spliced_error:
            # This isn't a clean end: a splice has taken the RST's error from the socket, so the
            # read after it looked like a FIN.
            self.abort(direction.spliced_error)
            return
        direction.is_ended = True
        if up is None or down is None or exchange is None:
            return
        is_second = up.is_ended and down.is_ended
        calls = self.reactor.calls
        if direction.is_broken or (not is_second and calls.shut_down(direction.sink_fd) < 0):
            # If the other side has gone, the event that reports its errno may still follow: reset
            # without an errno.
            self.abort(0)
            return
        is_lost = direction is up and now - exchange.answered_at >= LOSS_S
        if is_lost and (end := end_if_lost(up, down, exchange, now)):
            exchange.note_end(end, now)
        if exchange.has_unanswered_request:
            exchange.note_owed()
        if is_second:
            # Nothing is unread, so the kernel doesn't turn the close of both sockets into a RST.
            if exchange.code is not LOST:
                exchange.counters.cuts.succeeded_at = now
            by = _BY_ENDPOINT if direction is up else _BY_CLIENT
            if exchange.first_byte_s is None:
                self.owner.accounts.first_byte(self)
            if direction is down and up.bytes_moved and exchange.first_byte_s is None:
                exchange.note_closed_after_client(now, self.group.has_answered)
            # Delay the end until it is known whether a late answer has arrived.
            if direction is up or exchange.code is not LATE or not self.owner.end_late(self):
                self.finish(_COMPLETE, as_reset=False, by=by)
        elif direction is down and not down.bytes_moved:
            lasted_s = now - exchange.answered_at
            end = EndFacts(_BY_ENDPOINT, has_asked=up.bytes_moved > 0, lasted_s=lasted_s)
            exchange.note_end(end, now)

    def abort(self, number: int) -> None:
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
        # Send bytes that Nagle's algorithm holds back, because a reset would drop them.
        self._set_nodelay()
        if not self.owner.end_late(self):
            self.close()

    def idle_since(self, now: float) -> float:
        """Return the monotonic seconds when bytes last moved, as precisely as ``Ageing`` checks.

        This is ``now`` if bytes have moved since the last check. If none have moved before the
        first check, it is the time of the endpoint's answer, because the client may have waited for
        it; before that answer, it is the start of the connection.
        """
        up, down, exchange = self.up, self.down, self.exchange
        if up is None or down is None or exchange is None:
            return self.started
        seen = up.seen
        if seen is None:
            return now if up.bytes_moved + down.bytes_moved else exchange.answered_at
        return seen.moving_at if up.bytes_moved + down.bytes_moved == seen.moved else now

    def close(self) -> None:
        """Reset both sides at once. Idempotent."""
        cause, by = EndReason.RESET if self.is_aborting else EndReason.SHUTDOWN, EndedBy.PROXY
        if self.exchange is not None and self.exchange.reset_as is not None:
            cause, by = self.exchange.reset_as
        self.finish(cause, as_reset=True, by=by)

    def finish(self, cause: EndReason, as_reset: bool, by: EndedBy = EndedBy.PROXY) -> None:
        """Close both sockets, with a RST or a FIN, and record the end. Idempotent."""
        if self.is_closed:
            return
        self.is_closed = True
        self.owner.accounts.ended(self, cause, by)
        up, down = self.up, self.down
        if as_reset:
            reset_on_close(self.client)
        self.reactor.close_descriptor(self.client_fd)
        if up is not None and down is not None:
            if as_reset:
                reset_on_close(up.sink)
            self.reactor.close_descriptor(up.sink_fd)
            for each in (up, down):
                if each.pipe is not None:
                    each.release()
        else:
            self._cancel()
        # Break reference cycles, so that memory is freed now and not by the garbage collector.
        self.up = self.down = self.speaker = None
        self.owner.ended(self)
