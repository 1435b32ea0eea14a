"""Dials endpoints for a TCP client until one answers; part of the client's connection.

    try_next ──▶ dialling ──answered──▶ TcpConnection.join takes over the socket (``tcp``)
                  │   ▲ │
       refused,   └───┘ └──none left──▶ waits until an endpoint can take it (``waiting_room``),
       unreachable,                      or TcpConnection.finish resets the client
       1 s of silence: the next endpoint; after 3 s in all, or 16 endpoints, as if none were left

Rule 1: the client's socket isn't read before an endpoint has answered, so fail-over loses no bytes:
they wait in the kernel.
Rule 2: an endpoint that doesn't answer a client at its own address isn't dialled from this node's:
a network policy would have no effect (``client_address``).
Rule 3: a waiting client isn't read either, so its bytes aren't lost; only its end is detected. If
this process ends, the kernel resets the client.
Rule 4: the connection ends the dial by ``cancel``, and the dial ends the connection by ``finish``;
an endpoint's socket is the dial's until it has answered.
"""

from __future__ import annotations

import _socket
import errno
from collections.abc import Callable
from typing import Any

from ..causes.cause import CauseCode
from ..facts.connection import ConnectionEvent
from ..kernel.socket_options import reset_no_more, reset_on_close
from ..kernel.tcp_state import is_connected
from ..model import DialFailure, Failure, SocketAddress
from ..model.connection_ends import EndedBy, EndReason
from ..model.failures import SHORTAGES, dial_failure
from . import reactor as epoll
from .client_address import ClientAddressDialer
from .dialer import Dialer
from .endpoint_group import EndpointGroup
from .engine import Engine
from .frontends import dialled_at
from .held_acks import HeldAcks
from .node_address import may_be_source
from .pipes import PipePool
from .probes import Probes
from .reactor import Handler, Reactor
from .relay import Relayed
from .sockets import is_self_connected
from .tcp_accounts import TcpAccounts
from .timeouts import Timeouts
from .waiting_room import WaitingRoom

READ_EVENTS = epoll.IN | epoll.PRI | epoll.RDHUP | epoll.ET
_DIAL_EVENTS = READ_EVENTS | epoll.OUT
_FAILED = epoll.HUP | epoll.ERR


class DialOwner:
    """The part of ``TcpConnections`` that a connection and its dial use."""

    engine: Engine
    reactor: Reactor
    pipes: PipePool
    dialer: Dialer | None
    client_dialer: ClientAddressDialer
    probes: Probes
    accounts: TcpAccounts
    held_acks: HeldAcks
    dial_deadlines: Timeouts
    client_deadlines: Timeouts

    def end_late(self, connection: Any) -> bool:
        """End a connection once its sent bytes have arrived; False if none are in flight."""
        raise NotImplementedError

    def ended(self, connection: Any) -> None:
        """Remove a closed connection."""
        raise NotImplementedError


class DialledFor(Relayed):
    """The part of ``TcpConnection`` that its dial uses; it handles what the two sides send."""

    __slots__ = "address", "group", "may_preserve", "owner"

    may_preserve: bool
    owner: DialOwner
    group: EndpointGroup
    address: Any

    @property
    def client(self) -> _socket.socket:
        """The client's socket."""
        raise NotImplementedError

    def join(self, fd: int, events: int) -> None:
        """Join the client with the endpoint's socket, whose first events these are."""
        raise NotImplementedError

    def finish(self, cause: EndReason, *, as_reset: bool, by: EndedBy = EndedBy.PROXY) -> None:
        """Close the client's socket, with a RST or a FIN. Idempotent."""
        raise NotImplementedError

    def note(self, event: ConnectionEvent) -> None:
        """Record an event before the end."""
        raise NotImplementedError


class TcpDial(Handler):
    """The dials for one client, one after another, and the endpoint that has answered.

    It handles the events of the endpoint's socket until then, and of a waiting client's socket.
    """

    __slots__ = (
        "_awaits_turn",
        "_cancel_opening",
        "_connection",
        "_is_closed_port",
        "_is_counted",
        "_is_dialling",
        "_is_stray",
        "_offset",
        "_owner",
        "_reactor",
        "address",
        "began_at",
        "endpoint",
        "fd",
        "group",
        "holds_ack",
        "is_preserved",
        "is_waiting",
        "shows_local_client",
        "tried",
    )

    def __init__(self, connection: DialledFor) -> None:
        self._connection = connection
        owner = self._owner = connection.owner
        self._reactor = owner.reactor
        self.group = connection.group
        self.address = connection.address
        self.endpoint: SocketAddress | None = None
        """The endpoint that is dialled, or that answered."""
        self.fd = -1
        """Descriptor of the socket towards the endpoint, until it has answered; -1 for none."""
        self.tried: dict[SocketAddress, CauseCode] | None = None
        """Endpoints that failed, and why; most connections need no dict."""
        self.began_at: float | None = None
        """When the last dial began; None before the first dial."""
        self.holds_ack = False
        """The ACK of the endpoint's answer waits for bytes to send (``held_acks``)."""
        self.is_preserved = False
        """The endpoint sees the client's own address."""
        self.shows_local_client = False
        """The endpoint sees the address of a container of this node."""
        self.is_waiting = False
        """The client has a place in the waiting room of its Service port."""
        self._offset = 0
        """How far the port that the client dialled is from the Service port."""
        self._is_stray = False
        """The client dialled a port that has just left a range."""
        self._is_closed_port = False
        """The endpoint refused a port of a range, and may serve the others."""
        if self.group.serving.ranges or self.group.left_ranges:
            self._choose_offset(dialled_at(connection.client))
        self._is_dialling = False
        self._is_counted = False
        self._cancel_opening: Callable[[], None] | None = None
        """Cancels the dialer's dial in progress; None where endpoints are dialled by connect."""
        self._awaits_turn = False
        """``_dial_again`` should dial: the waiting room hasn't resumed the client since."""

    @property
    def at(self) -> SocketAddress | None:
        """The endpoint's address that is dialled: of a range, with the port that was dialled."""
        return None if self.endpoint is None else self.dialled(self.endpoint)

    def dialled(self, endpoint: SocketAddress) -> SocketAddress:
        """Return the address of an endpoint that this client's port leads to."""
        offset = self._offset
        return SocketAddress(endpoint.ip, endpoint.port + offset) if offset else endpoint

    def _choose_offset(self, dialled: SocketAddress | None) -> None:
        """Follow the port that a client of a range dialled.

        Others, such as those of a node port, get the endpoint's listed port.
        """
        if dialled is None:
            return
        for one in self.group.serving.ranges:
            if (offset := one.offset(*dialled)) is not None:
                self._offset = offset
                return
        left = self.group.lately_left(self._reactor.now)
        self._is_stray = any(one.offset(*dialled) for one in left)

    @property
    def _sock(self) -> _socket.socket:
        return self._reactor.calls.socket(self.fd)

    @property
    def count(self) -> int:
        """How many endpoints have been dialled since the client last waited."""
        tried, endpoint = self.tried or (), self.endpoint
        return len(tried) + (endpoint is not None and endpoint not in tried)

    def try_next(self) -> None:
        """Dial the next endpoint; if none is left, let the client wait, or reset it."""
        group, now = self.group, self._reactor.now
        if self._is_stray:
            self._refuse()
            return
        if self.began_at is None:
            if group.waiting_room is not None and self._queues_up(group.waiting_room):
                return
            self.began_at = now
            self._owner.client_deadlines.start(self, now)
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
            group.outcomes.failed(endpoint, failed, now)
            # Like clients in the listener's queue, but with a deadline.
            room = group.waiting_room if self._wait() else None
            self._awaits_turn = room is None
            resume = self._dial_again if room is None else room.retry
            self._owner.engine.descriptors.wait(resume, now)
            return
        self._dial_failed(failed)
        self._dial_next()

    def cancel(self) -> None:
        """Give up because the connection ends before an endpoint has answered. Idempotent."""
        self._awaits_turn = False
        self._end_dial()
        if self.fd >= 0:
            # The socket may have connected meanwhile.
            reset_on_close(self._sock)
            self._drop_socket()
        room = self.group.waiting_room
        if self.is_waiting and room is not None:
            self.is_waiting = False
            room.left(self)
        self._owner.client_deadlines.stop(self)

    def had_begun_by(self, moment: float) -> bool:
        return self.began_at is not None and self.began_at <= moment

    def _dial_next(self) -> None:
        """After a failed dial, dial the next endpoint on this Service port's turn."""
        if self._is_closed_port and self.group.serving.affinity_timeout_s is not None:
            # Another pod's port would be another user's session.
            self._refuse()
            return
        self._awaits_turn = True
        self._owner.engine.redials.add(self.group, self._dial_again)

    def _queues_up(self, room: WaitingRoom) -> bool:
        """Queue a new client behind others waiting for endpoints at their limit."""
        return room.is_queueing and not self.is_waiting and self._wait(is_at_limit=True)

    def _wait(self, *, is_at_limit: bool = False) -> bool:
        """Let the client wait until an endpoint can take it; return False if it may not wait."""
        is_at_limit = is_at_limit or self.group.balancers.is_at_limit(
            self.address[0], self._reactor.now, self.tried or ()
        )
        room = self.group.open_waiting_room(self._reactor, is_at_limit=is_at_limit)
        if room is None:
            return False
        if self._reactor.watch(self._connection.client_fd, epoll.RDHUP, self) < 0:
            self.group.counters.shortages += 1
            return False
        self._owner.client_deadlines.stop(self)
        self.endpoint = None
        if not self.is_waiting:
            self._connection.note(ConnectionEvent.HELD)
        self.tried = self.began_at = None
        self._awaits_turn = False
        if not self.is_waiting:
            self.is_waiting = True
            reset_on_close(self._connection.client)
        room.wait(self, is_at_limit=is_at_limit)
        return True

    def on(self, fd: int, events: int) -> None:
        if fd == self._connection.client_fd:
            self._on_leaving()
        else:
            self._on_dialling(events)

    def _on_leaving(self) -> None:
        """End the wait of a client that has sent a FIN or a RST."""
        self.group.counters.waits.client_aborts += 1
        self._connection.finish(EndReason.LEFT, as_reset=True, by=EndedBy.CLIENT)

    def resume(self) -> None:
        """Dial for the waiting client; called by the waiting room."""
        self._reactor.unwatch(self._connection.client_fd)
        self.try_next()

    def end_wait(self, cause: EndReason) -> None:
        """Reset the waiting client; called by the waiting room."""
        self.group.counters.refused += 1
        self._connection.finish(cause, as_reset=True)

    def _pick_again(self) -> None:
        """Pick once more after the loop has handled all events.

        A worker may handle a client before the change that admits it: both have arrived, and the
        loop chooses the order. Twice, because the loop's last poll may be older than this client.
        """
        self.tried = {}
        self._awaits_turn = True
        loop = self._owner.engine.loop
        loop.call_soon(loop.call_soon, self._dial_again)

    def _dial_again(self) -> None:
        # If the client's deadline has passed meanwhile, the waiting room resumes the client.
        if self._awaits_turn:
            self._awaits_turn = False
            self._reactor.tick()
            self.try_next()

    def _connect(self, endpoint: SocketAddress) -> DialFailure | None:
        """Begin a dial; return the failure if it fails at once, else None."""
        dialer = self._owner.dialer
        at = self.at or endpoint
        if dialer is not None:
            self._cancel_opening = dialer.dial(self.group.label, at, self._on_opened)
            self._dial_began(endpoint)
            return None
        self.shows_local_client = False
        self.holds_ack = self.group.sends_at_once and self._connection in self._owner.held_acks
        fd = self._owner.client_dialer.dial_for(
            self, at, self._reactor.now, self._connection.may_preserve, self.holds_ack
        )
        if self.is_preserved:
            self.check_locality()
        if fd < 0:
            return dial_failure(-fd, endpoint.ip)
        number = self._reactor.watch(fd, _DIAL_EVENTS, self)
        if number < 0:
            self._reactor.calls.close(fd)
            return dial_failure(-number, endpoint.ip)
        self.fd = fd
        self._dial_began(endpoint)
        return None

    def _dial_began(self, endpoint: SocketAddress) -> None:
        self._is_dialling = True
        self.began_at = self._reactor.now
        if self.group.loads.is_tracked:
            self._is_counted = True
            self.group.loads.dial_began(endpoint)
        self._owner.dial_deadlines.start(self, self._reactor.now)

    def _on_opened(self, outcome: _socket.socket | int) -> None:
        """Handle the outcome of the dialer's dial."""
        self._cancel_opening = None
        self._reactor.tick()
        if not isinstance(outcome, int):
            number = -self._reactor.watch(outcome.fileno(), _DIAL_EVENTS, self)
            if not number:
                self.fd = self._reactor.calls.adopt(outcome)
                return
            outcome.close()
            outcome = number
        self._end_dial()
        self._dial_failed_with(outcome)
        self._dial_next()

    def check_locality(self) -> None:
        """Set ``shows_local_client`` from the current state of the node's links."""
        locality = self._owner.client_dialer.locality
        self.shows_local_client = self.is_preserved and locality.attaches(self.address[0])

    @property
    def client_ip(self) -> str:
        return str(self.address[0])

    def _on_dialling(self, events: int) -> None:
        fd, calls = self.fd, self._reactor.calls
        if fd < 0:
            return
        number = 0
        if events & _FAILED or not events & epoll.OUT:
            number = calls.take_error(fd)
            if number == 0 and not events & epoll.OUT:
                return
        self._end_dial()
        if (
            number == 0
            and not self.is_preserved  # another host's address is never the endpoint's
            and (at := self.at) is not None
            and may_be_source(at.port, self._reactor.now)
            and is_self_connected(self._sock, at)
        ):
            number = errno.ECONNREFUSED
        if number == 0:
            self._answered(fd, events)
            return
        self._drop_socket()
        self._dial_failed_with(number)
        self._dial_next()

    def _answered(self, fd: int, events: int) -> None:
        """Join the two sides, with the first events of the endpoint's socket."""
        connection = self._connection
        if self._reactor.watch(connection.client_fd, READ_EVENTS, connection) < 0:
            self.group.counters.shortages += 1
            self._refuse()
            return
        self._owner.client_deadlines.stop(self)
        if self.is_waiting and self.group.waiting_room is not None:
            self.is_waiting = False
            reset_no_more(connection.client)
            self.group.waiting_room.served(self)
        if self.is_preserved and self.endpoint is not None:
            self._owner.probes.admitted(self.group, self.client_ip, self.endpoint)
        self.fd = -1
        connection.join(fd, events)

    def _end_dial(self) -> None:
        if self._is_dialling:
            self._is_dialling = False
            if self._cancel_opening is not None:
                self._cancel_opening()
                self._cancel_opening = None
            self._owner.dial_deadlines.stop(self)
            if self._is_counted and self.endpoint is not None:
                self._is_counted = False
                self.group.loads.dial_ended(self.endpoint)

    def timed_out(self) -> None:
        """Try the next endpoint; if there is none, keep this dial until the client's deadline."""
        self._reactor.tick()
        now, tried = self._reactor.now, {*(self.tried or ()), self.endpoint}
        if not self.group.balancers.current.has_more(self.address[0], now, tried=tried):
            self._owner.dial_deadlines.start(self, now)
        elif self._give_up_dial():
            self.try_next()

    def client_timed_out(self) -> None:
        """Let the client wait, or reset it, even if endpoints are left to try."""
        if self._give_up_dial() and not self._wait():
            self._refuse()

    def _give_up_dial(self) -> bool:
        """End the dial in progress, if any; return False if the caller has nothing left to do."""
        self._reactor.tick()
        if self.fd >= 0 and is_connected(self._sock):
            # The loop was delayed: the event is still to come, and the dial counts until then.
            return False
        is_opening = self._cancel_opening is not None
        self._end_dial()
        if is_opening or self.fd >= 0:
            self._drop_socket()
            assert self.began_at is not None, "a dial began before it is given up"
            # Otherwise the client's deadline passed before the endpoint's deadline.
            if self._reactor.now - self.began_at >= self._owner.engine.tuning.connect_timeout_s:
                self._dial_failed_with(errno.ETIMEDOUT)
        if self._reactor.calls.take_error(self._connection.client_fd):
            self._connection.finish(EndReason.RESET, as_reset=True, by=EndedBy.CLIENT)
            return False
        return True

    def _dial_failed_with(self, number: int) -> None:
        if self.endpoint is not None:
            self._dial_failed(dial_failure(number, self.endpoint.ip))

    def _dial_failed(self, failed: DialFailure) -> None:
        if self.endpoint is not None:
            if self.tried is None:
                self.tried = {}
            now, probes, client = self._reactor.now, self._owner.probes, self.address[0]
            is_denied = self.is_preserved and probes.is_denied(client, self.endpoint, now)
            outcomes, is_over, is_answering = self.group.outcomes, False, False
            self._is_closed_port = bool(self._offset) and failed.failure is Failure.REFUSED
            if failed.failure is Failure.SILENT and self.began_at is not None:
                is_over = outcomes.has_returned_since(self.endpoint, self.began_at)
                # With other endpoints left, one that answers only some dials is the worst choice.
                is_only = len(self.group.serving.all_endpoints) == 1
                is_answering = is_only and outcomes.has_answered_since(self.endpoint, self.began_at)
            self.tried[self.endpoint] = outcomes.failed(
                self.endpoint,
                failed,
                now,
                client=client if self.is_preserved else "",
                is_client_specific=is_denied or is_over or self._is_closed_port,
                may_be_client_specific=is_answering,
            )
            if failed.failure in SHORTAGES or self._is_closed_port:
                return
            if is_denied and not is_over:
                probes.denied(self.group, client, self.endpoint, failed)
            elif self.is_preserved and not is_over:
                probes.request(self.group, client, self.endpoint)

    def _refuse(self) -> None:
        """Reset a client that no endpoint serves."""
        self.endpoint = None
        self.group.counters.refused += 1
        self._connection.finish(EndReason.UNANSWERED, as_reset=True)

    def _drop_socket(self) -> None:
        if self.fd >= 0:
            self._reactor.close_descriptor(self.fd)
            self.fd = -1
