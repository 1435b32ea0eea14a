"""Dials endpoints for a TCP client until one answers.

    accepted ──▶ dialling ──answered──▶ joined (``tcp``)
                  │   ▲ │
       refused,   └───┘ └──none left──▶ unanswered: the client gets a RST,
       unreachable,                      or waits until an endpoint can take it (``waiting_room``)
       1 s of silence: the next endpoint; after 3 s in all, or 16 endpoints, as if none were left

Rule 1: the client's socket isn't read before an endpoint has answered, so fail-over loses no byte:
they wait in the kernel.
Rule 2: an endpoint that doesn't answer a client at its own address isn't dialled from this node's:
a network policy would have no effect (``client_address``).
Rule 3: a client that waits isn't read either, so what it has sent arrives; only its end is noticed.
If this process ends, the kernel resets it.
"""

from __future__ import annotations

import _socket
import errno
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from ..model import SocketAddress
from . import reactor as epoll
from .connection_log import EndedBy
from .endpoint_group import EndpointGroup
from .engine import Engine
from .ephemeral import EPHEMERAL
from .probes import Probes
from .sockets import (
    EXHAUSTED,
    SHORTAGES,
    is_connected,
    is_self_connected,
    reset,
    reset_no_more,
)
from .timeouts import Timeouts
from .waiting_room import WaitingRoom

READ_EVENTS = epoll.IN | epoll.PRI | epoll.RDHUP | epoll.ET
_DIAL_EVENTS = READ_EVENTS | epoll.OUT
_FAILED = epoll.HUP | epoll.ERR
_STREAM = _socket.SOCK_STREAM | _socket.SOCK_NONBLOCK


class Announced(NamedTuple):
    """What a PROXY header has announced, beside the client's address."""

    via: SocketAddress
    """The peer that sent it."""
    frontend: SocketAddress
    """The address that the client dialled there."""


class DialOwner(Protocol):
    """What a dial needs of its owner: see ``TcpConnections``."""

    engine: Engine
    probes: Probes
    dial_deadlines: Timeouts[TcpDial]
    client_deadlines: Timeouts[TcpDial]


class TcpDial:
    """One client, and the endpoint that is dialled for it; ``TcpConnection`` joins the two.

    The client's socket is accepted and non-blocking, and is closed at the end. Its address is as
    ``accept`` returns it: IP address and port come first.
    """

    __slots__ = (
        "_awaits_turn",
        "_cancel_dial",
        "_dialled_at",
        "_endpoint_socket",
        "_is_dialling",
        "_tried",
        "address",
        "announced",
        "client",
        "endpoint",
        "group",
        "is_closed",
        "is_preserved",
        "is_waiting",
        "may_preserve",
        "owner",
        "reactor",
        "shows_local_client",
        "started",
    )

    def __init__(
        self, owner: DialOwner, group: EndpointGroup, client: _socket.socket, address: Any
    ) -> None:
        self.owner = owner
        self.reactor = owner.engine.reactor
        self.group = group
        self.client = client
        self.address = address
        self.announced: Announced | None = None
        """Set if the address is that of a PROXY header."""
        self.endpoint: SocketAddress | None = None
        """The endpoint that is dialled, or that answered."""
        self.is_closed = False
        self.may_preserve = True
        """As far as the listener can see, the client isn't this node itself."""
        self.is_preserved = False
        """The endpoint sees the client's own address."""
        self.shows_local_client = False
        """That is the address of a container of this node."""
        self.started = self.reactor.now
        """When it was accepted."""
        self.is_waiting = False
        """It has a place in the waiting room of its Service port."""
        self._endpoint_socket: _socket.socket | None = None
        self._tried: set[SocketAddress] | None = None
        """Endpoints that failed; most connections need no set."""
        self._is_dialling = False
        self._cancel_dial: Callable[[], None] | None = None
        """Gives up the dialer's dial in progress; None where endpoints are dialled by connect."""
        self._dialled_at: float | None = None
        """When the last dial began; None before the first one."""
        self._awaits_turn = False
        """``_dial_again`` is to dial. A client that was parked meanwhile has been resumed since."""

    def joined(self, sock: _socket.socket, events: int) -> None:
        """Take over an endpoint's socket that has connected, with its first events."""
        raise NotImplementedError

    def finish(self, cause: str, *, as_reset: bool, by: EndedBy = EndedBy.PROXY) -> None:
        """Close the sockets. Idempotent."""
        raise NotImplementedError

    def dial(self) -> None:
        """Dial the next endpoint; if none is left, have the client wait, or reset it."""
        if self._dialled_at is None:
            if self.group.waiting_room is not None and self._queues_up(self.group.waiting_room):
                return
            self._dialled_at = self.reactor.now
            self.owner.client_deadlines.start(self, self.reactor.now)
        now = self.reactor.now
        endpoint = self.group.balancer.pick(self.address[0], now, tried=self._tried or ())
        self.endpoint = endpoint
        if endpoint is None:
            if self._wait():
                return
            if self._tried is None:
                self._pick_again()
            else:
                self.refuse()
            return
        number = self._connect(endpoint)
        if number == 0:
            return
        if number in EXHAUSTED:
            self.group.dial_failed(endpoint, number, now)
            # Like clients that wait in the listener's queue, but with a deadline.
            room = self.group.waiting_room if self._wait() else None
            self._awaits_turn = room is None
            resume = self._dial_again if room is None else room.retry
            self.owner.engine.descriptors.wait(resume, now)
            return
        self._dial_failed(number)
        self._dial_next()

    def _dial_next(self) -> None:
        """Dial the next endpoint after a failed dial, when it is this Service port's turn."""
        self._awaits_turn = True
        self.group.redial(self._dial_again, self.reactor)

    def _queues_up(self, room: WaitingRoom) -> bool:
        """Have a new client wait behind others that wait for endpoints at their limit."""
        return room.is_queueing and not self.is_waiting and self._wait(is_at_limit=True)

    def _wait(self, *, is_at_limit: bool = False) -> bool:
        """Have the client wait until an endpoint can take it; returns False if it may not."""
        is_at_limit = is_at_limit or self.group.is_at_limit(
            self.address[0], self.reactor.now, self._tried or ()
        )
        room = self.group.open_waiting_room(self.reactor, is_at_limit=is_at_limit)
        if room is None:
            return False
        try:
            self.reactor.register(self.client, epoll.RDHUP, self._on_leaving)
        except OSError:
            self.group.counters.shortages += 1
            return False
        self.owner.client_deadlines.stop(self)
        self._tried = self._dialled_at = self.endpoint = None
        self._awaits_turn = False
        if not self.is_waiting:
            self.is_waiting = True
            reset(self.client)
        room.wait(self, is_at_limit=is_at_limit)
        return True

    def _on_leaving(self, _events: int) -> None:
        """End the wait of a client that has sent a FIN or a RST."""
        self.group.counters.waits_left += 1
        self.finish("left", as_reset=True, by=EndedBy.CLIENT)

    def resume(self) -> None:
        """Dial for a client that waits. Part of Waiter."""
        self.reactor.unregister(self.client)
        self.dial()

    def end_wait(self, cause: str) -> None:
        """Reset a client that waits. Part of Waiter."""
        self.group.counters.refused += 1
        self.finish(cause, as_reset=True)

    def stop_waiting(self) -> None:
        """Give up the place in the waiting room: an endpoint has answered."""
        room = self.group.waiting_room
        if room is not None:
            self.is_waiting = False
            reset_no_more(self.client)
            room.served(self)

    def _leave_room(self) -> None:
        """Give up the place in the waiting room. Idempotent."""
        room = self.group.waiting_room
        if self.is_waiting and room is not None:
            self.is_waiting = False
            room.left(self)

    def _pick_again(self) -> None:
        """Pick once more when the loop has handled all events.

        A worker may see a client before the change that admits it: both have arrived, and the loop
        chooses the order. Twice, because what the loop saw last may be older than this client.
        """
        self._tried = set()
        self._awaits_turn = True
        loop = self.owner.engine.loop
        loop.call_soon(loop.call_soon, self._dial_again)

    def _dial_again(self) -> None:
        # The client's deadline may have passed meanwhile: then the waiting room resumes it.
        if self._awaits_turn and not self.is_closed:
            self._awaits_turn = False
            self.reactor.tick()
            self.dial()

    def _connect(self, endpoint: SocketAddress) -> int:
        """Begin a dial; returns 0 if it is in progress, else the errno of its failure."""
        if self.owner.engine.dialer is not None:
            self._cancel_dial = self.owner.engine.dialer.dial(endpoint, self._on_opened)
            self._dial_began(endpoint)
            return 0
        self.shows_local_client = False
        try:
            sock, number = self.owner.engine.client_dialer.dial_for(
                self, _STREAM, endpoint, self.reactor.now, may_preserve=self.may_preserve
            )
        except OSError as exc:
            return exc.errno or errno.EMFILE
        if self.is_preserved:
            self.check_locality()
        if number in (errno.EINPROGRESS, 0):
            try:
                self.reactor.register(sock, _DIAL_EVENTS, self._on_dialling)
            except OSError as exc:
                number = exc.errno or errno.ENOMEM
            else:
                self._endpoint_socket = sock
                self._dial_began(endpoint)
                return 0
        sock.close()
        return number

    def _dial_began(self, endpoint: SocketAddress) -> None:
        self._is_dialling = True
        self._dialled_at = self.reactor.now
        if self.group.tracks_load:
            self.group.dial_began(endpoint)
        self.owner.dial_deadlines.start(self, self.reactor.now)

    def _on_opened(self, outcome: _socket.socket | int) -> None:
        """Take the outcome of the dialer's dial."""
        self._cancel_dial = None
        self.reactor.tick()
        if not isinstance(outcome, int):
            try:
                self.reactor.register(outcome, _DIAL_EVENTS, self._on_dialling)
            except OSError as exc:
                outcome.close()
                outcome = exc.errno or errno.ENOMEM
            else:
                self._endpoint_socket = outcome
                return
        self._end_dial()
        self._dial_failed(outcome)
        self._dial_next()

    def check_locality(self) -> None:
        """Set ``shows_local_client``, from what is known of the node's links now."""
        locality = self.owner.engine.client_dialer.locality
        self.shows_local_client = self.is_preserved and locality.attaches(self.address[0])

    @property
    def client_ip(self) -> str:
        """The client's IP address."""
        return str(self.address[0])

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
            and not self.is_preserved  # another host's address is never the endpoint's
            and self.endpoint is not None
            and EPHEMERAL.includes(self.endpoint.port, self.reactor.now)
            and is_self_connected(sock, self.endpoint)
        ):
            number = errno.ECONNREFUSED
        if number == 0:
            self.joined(sock, events)
            return
        self._drop_endpoint_socket()
        self._dial_failed(number)
        self._dial_next()

    def _end_dial(self) -> None:
        if self._is_dialling:
            self._is_dialling = False
            if self._cancel_dial is not None:
                self._cancel_dial()
                self._cancel_dial = None
            self.owner.dial_deadlines.stop(self)
            if self.group.tracks_load and self.endpoint is not None:
                self.group.dial_ended(self.endpoint)

    def dial_timed_out(self) -> None:
        """Try the next endpoint; if there is none, keep dialling until the client's deadline."""
        self.reactor.tick()
        now, tried = self.reactor.now, {*(self._tried or ()), self.endpoint}
        if not self.group.balancer.has_more(self.address[0], now, tried=tried):
            self.owner.dial_deadlines.start(self, now)
        elif self._give_up_dial():
            self.dial()

    def client_timed_out(self) -> None:
        """Have the client wait, or reset it, even if there are endpoints left to try."""
        if self._give_up_dial() and not self._wait():
            self.refuse()

    def _give_up_dial(self) -> bool:
        """End the dial in progress, if any; returns False if the caller has nothing left to do."""
        is_opening = self._cancel_dial is not None
        self._end_dial()
        self.reactor.tick()
        if is_opening or self._endpoint_socket is not None:
            if self._endpoint_socket is not None and is_connected(self._endpoint_socket):
                # The loop was held up: the event is still to come.
                return False
            self._drop_endpoint_socket()
            assert self._dialled_at is not None, "a dial began before it is given up"
            # Otherwise the client's deadline passed before the endpoint's.
            if self.reactor.now - self._dialled_at >= self.owner.engine.tuning.connect_timeout_s:
                self._dial_failed(errno.ETIMEDOUT)
        if self.client.getsockopt(_socket.SOL_SOCKET, _socket.SO_ERROR):
            self.finish("reset", as_reset=True, by=EndedBy.CLIENT)
            return False
        return True

    def _dial_failed(self, number: int) -> None:
        if self.endpoint is not None:
            if self._tried is None:
                self._tried = set()
            self._tried.add(self.endpoint)
            now, probes, client = self.reactor.now, self.owner.probes, self.address[0]
            is_denied = self.is_preserved and probes.is_denied(client, self.endpoint, now)
            is_over = (
                number == errno.ETIMEDOUT
                and self._dialled_at is not None
                and self.group.has_returned_since(self.endpoint, self._dialled_at)
            )
            own = client if self.is_preserved else ""
            self.group.dial_failed(
                self.endpoint,
                number,
                now,
                client=own,
                is_client_specific=is_denied or is_over,
            )
            if self.is_preserved and not is_denied and not is_over and number not in SHORTAGES:
                probes.request(self.group, client, self.endpoint)

    def refuse(self) -> None:
        """Reset a client that no endpoint serves."""
        self.endpoint = None
        self.group.counters.refused += 1
        self.finish("unanswered", as_reset=True)

    def _drop_endpoint_socket(self) -> None:
        if self._endpoint_socket is not None:
            self.reactor.close_socket(self._endpoint_socket)
            self._endpoint_socket = None
