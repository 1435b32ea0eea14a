"""Forwards the datagrams of one UDP flow, and detects whether its endpoint answers."""

from __future__ import annotations

import _socket
import errno
import math
from collections.abc import Hashable
from typing import Any, NamedTuple, Protocol

from ..causes.cause import CauseCode
from ..causes.endpoints import UNANSWERED_FLOW_S
from ..facts import EndpointCounters
from ..facts.connection import ConnectionEvent
from ..facts.conversation import Conversation
from ..kernel.socket_options import Ancillary, AncillaryItem, take_icmp_errors
from ..model import DialFailure, Failure, SocketAddress
from ..model.connection_ends import EndReason
from ..model.failures import dial_failure
from ..policy.flow_table import GRAIN_S, FlowTable
from . import reactor as epoll
from .endpoint_group import EndpointGroup
from .engine import Engine
from .reactor import Handler
from .tuning import BATCH

# Errors that mean a refusal: by ICMP (icmp_err_convert in net/ipv4/icmp.c and its IPv6 equivalent),
# or by this node's rules and routes (EPERM, EINVAL). EMSGSIZE isn't a refusal: the kernel has
# learnt the path's MTU, and the next datagram fits. ENOBUFS and ENOMEM are transient.
_NO_WAY = {errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.ENETDOWN}
_REJECTED = {errno.EPERM, errno.EACCES, errno.ENOPROTOOPT}
_OTHERS = {errno.ECONNREFUSED, errno.EINVAL, errno.ENONET, errno.EPROTO}
REFUSALS = frozenset(_NO_WAY | _REJECTED | _OTHERS)
# Errors that may be transient, for example while a route changes (RFC 1122, 4.2.3.9).
_PASSING = frozenset({errno.EHOSTUNREACH, errno.ENETUNREACH})


def refusal_of(sock: _socket.socket, number: int | None) -> int:
    """Take the socket's ICMP errors; return the errno if the error is a refusal, else 0.

    Args:
        number: The errno of a failed call.
    """
    queued = take_icmp_errors(sock)
    found = number if queued is None else queued
    return found if found in REFUSALS else 0


class _FlowOwner(Protocol):
    """The interface of ``UdpListener`` for a flow."""

    engine: Engine
    group: EndpointGroup
    sock: _socket.socket
    table: FlowTable[UdpFlow]

    def endpoint_refused(self, flow: UdpFlow, failed: DialFailure) -> None: ...
    def resume(self, flow: UdpFlow) -> None: ...
    def end(self, flow: UdpFlow, cause: EndReason) -> None: ...
    def note(self, flow: UdpFlow, event: ConnectionEvent) -> None: ...


class Kept(NamedTuple):
    """One of a flow's first datagrams, which may be sent again."""

    payload: bytes
    hop_limit: AncillaryItem
    """The hop limit with which it arrived."""


class Wait(NamedTuple):
    """A flow's wait for an endpoint, past or present."""

    started: float
    """When the flow's first datagram arrived."""
    since: float
    """When the flow began to wait."""


class UdpFlow(Handler):
    """One client at one address of a listener, and its socket to an endpoint."""

    __slots__ = (
        "address", "ancillary", "answered_at", "client_ip", "conversation", "counted", "dialled_at",
        "endpoint", "first_byte_s", "holders", "hop_limit", "is_ended", "is_preserved", "is_stream",
        "kept", "key", "listener", "received_bytes", "sent_bytes", "sent_since", "sock", "tried",
        "turn", "used", "waited",
    )  # fmt: skip

    def __init__(
        self,
        listener: _FlowOwner,
        key: Hashable,
        address: Any,
        ancillary: Ancillary,
        hop_limit: AncillaryItem,
    ) -> None:
        self.listener = listener
        self.key = key
        self.address = address
        """The client's address, in the form that ``sendmsg`` takes."""
        self.client_ip = str(address[0])
        self.ancillary = ancillary
        """Ancillary data for the source address of replies; empty if the listener has one
        address."""
        self.hop_limit = hop_limit
        """The hop limit of the client's last datagram."""
        self.endpoint: SocketAddress | None = None
        self.dialled_at = 0.0
        """When the endpoint was chosen: later than the start if another endpoint refused first."""
        self.sock: _socket.socket | None = None
        self.kept: list[Kept] | None = []
        """The flow's first datagrams; None once they must not be sent again."""
        self.answered_at = -math.inf
        """When an answer was last recorded."""
        self.is_ended = False
        self.is_preserved = False
        """Whether the endpoint sees the client's own address."""
        self.is_stream = False
        self.waited: Wait | None = None
        """The flow's wait for an endpoint; None if it has never waited."""
        self.holders: tuple[Hashable, ...] = ()
        self.used = 0.0
        self.sent_since = 0.0
        """When the flow's first datagrams were sent: at its start, or after its wait."""
        self.first_byte_s: float | None = None
        """Seconds from ``sent_since`` to the endpoint's first answer; None before it."""
        self.received_bytes = 0
        self.sent_bytes = 0
        self.turn = 0
        """The dispatch in which its socket was last read."""
        self.counted = (0, 0)
        """How many received and sent bytes are in the endpoint's counters."""
        self.conversation: Conversation | None = None
        """The state of the answers after the first answer; None until it is needed."""
        self.tried: dict[SocketAddress, CauseCode] | None = None
        """Endpoints that refused, and why; most flows need no dict."""

    @property
    def group(self) -> EndpointGroup:
        return self.listener.group

    @property
    def has_answer(self) -> bool:
        return self.first_byte_s is not None

    @property
    def is_waiting(self) -> bool:
        """Whether the flow has a place in the waiting room of its Service port."""
        room = self.group.waiting_room
        return room is not None and self in room

    @property
    def started(self) -> float:
        """When the flow's first datagram arrived."""
        return self.sent_since if self.waited is None else self.waited.started

    def on(self, _fd: int, events: int) -> None:
        """Send the endpoint's datagrams to the client; an error may mean that it refused.

        Most flows have one answer to read, so reading only one avoids a read that finds the socket
        empty. A socket with more is reported again (level-triggered), and then read to the end.
        """
        listener = self.listener
        sock = self.sock
        if sock is None:
            return
        reactor = listener.engine.reactor
        buffer, now = reactor.calls.buffer, reactor.now
        left = BATCH if reactor.turn - self.turn == 1 else 1
        self.turn = reactor.turn
        refusal = 0
        while left:
            left -= 1
            try:
                count = sock.recv_into(buffer)
            except BlockingIOError:
                if events & epoll.ERR:
                    # A failed call has cleared the socket's error but not the error queue, so check
                    # the queue.
                    refusal = refusal_of(sock, 0) or refusal
                break
            except OSError as exc:
                # Continue reading: the kernel reports the error before datagrams that arrived
                # earlier.
                refusal = refusal_of(sock, exc.errno) or refusal
                left = left or BATCH
                continue
            if now - self.answered_at >= GRAIN_S:
                self._note_answer(now)
            if now - self.used >= GRAIN_S:
                listener.table.use(self, now)
            try:
                if self.ancillary:
                    listener.sock.sendmsg([buffer[:count]], self.ancillary, 0, self.address)
                else:
                    listener.sock.sendto(buffer[:count], self.address)
            except OSError:
                self.group.counters.dropped_datagrams += 1
            else:
                self.sent_bytes += count
        if refusal and not (self.has_answer and refusal in _PASSING):
            self.refused(refusal)

    def refused(self, number: int) -> None:
        """Pass the errno of the endpoint's refusal to the listener."""
        if self.endpoint is not None:
            self.listener.endpoint_refused(self, dial_failure(number, self.endpoint.ip))

    def settle(self) -> None:
        """Update the endpoint's counters, and record if it doesn't answer."""
        if self.endpoint is None:
            return
        counters = self.group.counters_of(self.endpoint)
        received, sent = self.counted
        asked, answered = self.received_bytes - received, self.sent_bytes - sent
        counters.received_bytes += asked
        counters.sent_bytes += answered
        self.counted = self.received_bytes, self.sent_bytes
        clock = self.listener.engine.reactor.clock
        if self.is_stream:
            talk = self.conversation = self.conversation or Conversation()
            counters.stalled -= talk.is_stalled
            talk.look(clock(), is_asked=asked > 0, is_answered=answered > 0)
            counters.stalled += talk.is_stalled
        elif self.first_byte_s is not None or self.conversation or not self.received_bytes:
            return
        elif clock() - self.sent_since >= UNANSWERED_FLOW_S:
            self._note_unanswered(counters)

    def keep(self, payload: memoryview, datagrams: int, size: int) -> bool:
        """Keep one of the first datagrams; return False beyond so many, or so many bytes."""
        kept = self.kept = self.kept or []
        size -= len(payload) + sum(len(one.payload) for one in kept)
        if len(kept) >= datagrams or size < 0:
            return False
        kept.append(Kept(bytes(payload), self.hop_limit))
        return True

    def wait(self) -> bool:
        """Wait until an endpoint can take the flow; return False if it may not wait."""
        reactor = self.listener.engine.reactor
        is_at_limit = self.group.balancers.is_at_limit(
            self.client_ip, reactor.now, self.tried or ()
        )
        room = self.group.open_waiting_room(reactor, is_at_limit=is_at_limit)
        if room is None:
            return False
        since = None if self.waited is None else self.waited.since
        self.waited = self.waited or Wait(self.sent_since, reactor.now)
        self.tried = None
        room.wait(self, since, is_at_limit=is_at_limit)
        return True

    def resume(self) -> None:
        self.listener.resume(self)

    def end_wait(self, cause: EndReason) -> None:
        """End the flow; no ICMP error can be sent while the listener's socket is open."""
        self.group.counters.refused += 1
        self.listener.end(self, cause)

    def _note_unanswered(self, counters: EndpointCounters) -> None:
        """Record that the endpoint hasn't answered in time. Idempotent."""
        talk = self.conversation = self.conversation or Conversation()
        if not talk.is_unanswered:
            talk.is_unanswered = True
            # The failure dates from the first datagram, so that any later answer outweighs it.
            counters.ended_unanswered(self.sent_since, Failure.NO_DATAGRAM)

    def _note_answer(self, now: float) -> None:
        """Record a datagram of the endpoint: the first one, then at most one per second."""
        self.answered_at = now
        if self.first_byte_s is not None:
            talk = self.conversation = self.conversation or Conversation()
            talk.further_seconds += 1
            return
        self.kept = None
        self.first_byte_s = now - self.sent_since
        if self.endpoint is not None:
            counters = self.group.answered(self.endpoint, now)
            if self.first_byte_s >= UNANSWERED_FLOW_S:
                self._note_unanswered(counters)
                counters.came_late()
            counters.ends.succeeded_at = now
            if self.tried:
                self.group.counters.saved += 1
                self.listener.note(self, ConnectionEvent.SAVED)
            if self.is_preserved:
                client_dialer = self.listener.engine.client_dialer
                client_dialer.answered_flows.add(self.address[0], self.endpoint)
