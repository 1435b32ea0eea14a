"""Dials endpoints for one UDP flow, forwards its datagrams, and detects whether they are answered.

Rule 1: an ICMP error is about an earlier datagram; it never costs a good datagram, outgoing or
incoming.
Rule 2: an endpoint that refuses is ejected, and a flow that it has not answered yet continues with
another endpoint, which receives the flow's first datagrams again.
Rule 3: a refused dial from a client's own address ejects no endpoint: a network policy may refuse
this client alone, and a probe from this node (``probes``) would need a datagram. The flow continues
with another endpoint anyway. An absent host is absent for all clients, and is ejected
(``silent_flows``).
"""

from __future__ import annotations

import _socket
import errno
import math
from collections.abc import Hashable, Iterable
from typing import Any, NamedTuple, Protocol

from ..causes.cause import CauseCode
from ..causes.endpoints import UNANSWERED_FLOW_S
from ..facts import EndpointCounters
from ..facts.connection import ConnectionEvent, ConnectionFacts, ending, failed_dials, port_fields
from ..facts.conversation import Conversation
from ..kernel.ephemeral import EPHEMERAL
from ..kernel.listening_sockets import is_self_connected
from ..kernel.socket_options import (
    Ancillary,
    AncillaryItem,
    hops_left,
    keep_icmp_errors,
    set_hop_limit,
    take_icmp_errors,
)
from ..model import DialFailure, Failure, SocketAddress
from ..model.connection_ends import UNSERVED, EndedBy, EndReason
from ..model.failures import dial_failure
from ..policy.flow_table import GRAIN_S, FlowTable
from ..policy.silent_flows import SilentFlows
from . import reactor as epoll
from .endpoint_group import EndpointGroup
from .engine import Engine
from .reactor import Handler
from .tuning import BATCH, DIALS

# Errors that mean a refusal: by ICMP (icmp_err_convert in net/ipv4/icmp.c and its IPv6 equivalent),
# or by this node's rules and routes (EPERM, EINVAL). EMSGSIZE isn't a refusal: the kernel has
# learnt the path's MTU, and the next datagram fits. ENOBUFS and ENOMEM are transient.
_NO_WAY = {errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.ENETDOWN}
_REJECTED = {errno.EPERM, errno.EACCES, errno.ENOPROTOOPT}
_OTHERS = {errno.ECONNREFUSED, errno.EINVAL, errno.ENONET, errno.EPROTO}
REFUSALS = frozenset(_NO_WAY | _REJECTED | _OTHERS)
# Errors that may be transient, for example while a route changes (RFC 1122, 4.2.3.9).
_PASSING = frozenset({errno.EHOSTUNREACH, errno.ENETUNREACH})

# How much of a flow's first datagrams is kept until the endpoint has answered, to be sent to
# another endpoint if it refuses: the A and AAAA queries that glibc sends together, or a QUIC hello,
# not a bulk transfer. A refusal after _KEEP_S isn't about these datagrams.
_KEEP_BYTES = 2048
_KEEP_DATAGRAMS = 4
_KEEP_S = 1.0
# How much is kept for a waiting flow: twice as many datagrams, because some protocols begin with a
# burst.
_HELD_BYTES = 16 * 1024
_HELD_DATAGRAMS = 8
# The time without a refusal after which an endpoint counts as present: if its host were absent, ARP
# or neighbour discovery would have failed, after three requests, a second apart (arp(7):
# mcast_solicit, retrans_time_ms).
_ONE_WAY_S = 4.0
# The part of the flows that ends if other programs leave no source port: not one flow at a time,
# because each flow that finds no port loses a datagram.
_PORTS_PART = 16


def refusal_of(sock: _socket.socket, number: int | None) -> int:
    """Take the socket's ICMP errors; return the errno if the error is a refusal, else 0.

    Args:
        number: The errno of a failed call, used if no error is queued; 0 or None for none.
    """
    queued = take_icmp_errors(sock)
    found = number if queued is None else queued
    return found if found in REFUSALS else 0


class _Listener(Protocol):
    """The interface of ``UdpListener`` for its flows."""

    engine: Engine
    group: EndpointGroup
    sock: _socket.socket
    at: SocketAddress
    table: FlowTable[UdpFlow]
    silent: SilentFlows[UdpFlow]
    flows: dict[Hashable, UdpFlow]

    def drop_at_last_hop(self, address: Any) -> None: ...
    def frontend(self) -> SocketAddress | None: ...


class Kept(NamedTuple):
    """One of a flow's first datagrams, which may be sent again."""

    payload: bytes
    hop_limit: AncillaryItem
    """The hop limit with which it arrived."""


class Wait(NamedTuple):
    """A flow's wait for an endpoint, past or present."""

    started: float
    """When the flow's first datagram arrived, in monotonic seconds."""
    since: float
    """When the flow began to wait, in monotonic seconds."""


class UdpFlow(Handler):
    """The association of a client's address and a dialled address with a socket to an endpoint."""

    __slots__ = (
        "address", "ancillary", "answered_at", "client_ip", "conversation", "counted", "dialled_at",
        "endpoint", "first_byte_s", "holders", "hop_limit", "is_ended", "is_preserved", "is_stream",
        "kept", "key", "listener", "received_bytes", "sent_bytes", "sent_since", "sock", "tried",
        "turn", "used", "waited",
    )  # fmt: skip

    def __init__(
        self,
        listener: _Listener,
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
        """When the current endpoint was chosen, in monotonic seconds."""
        self.sock: _socket.socket | None = None
        self.kept: list[Kept] | None = []
        """The flow's first datagrams; None once they must not be sent again."""
        self.answered_at = -math.inf
        """When an answer was last recorded, in monotonic seconds."""
        self.is_ended = False
        self.is_preserved = False
        """Whether the endpoint sees the client's own address."""
        self.is_stream = False
        self.waited: Wait | None = None
        """The flow's wait for an endpoint; None if it has never waited."""
        self.holders: tuple[Hashable, ...] = ()
        self.used = 0.0
        self.sent_since = listener.engine.reactor.now
        """When the first datagrams were sent (after any wait), in monotonic seconds."""
        self.first_byte_s: float | None = None
        """Seconds from ``sent_since`` to the endpoint's first answer; None before it."""
        self.received_bytes = 0
        self.sent_bytes = 0
        self.turn = 0
        """The number of the dispatch in which the flow's socket was last read."""
        self.counted = (0, 0)
        """How many received and sent bytes are in the endpoint's counters."""
        self.conversation: Conversation | None = None
        """The state of the endpoint's answers; None until it is needed."""
        self.tried: dict[SocketAddress, CauseCode] | None = None
        """Endpoints that can't be dialled or have refused, and why; None without failures."""

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
        """When the flow's first datagram arrived, in monotonic seconds."""
        return self.sent_since if self.waited is None else self.waited.started

    def on(self, _fd: int, events: int) -> None:
        """Send the endpoint's datagrams to the client; handle ICMP errors that mean a refusal.

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
            self._refused(refusal)

    def limit_hops(self, hop_limit: AncillaryItem) -> bool:
        """Apply a changed hop limit to the flow's socket; return False at the last hop."""
        if hops_left(hop_limit) <= 1:
            self.listener.drop_at_last_hop(self.address)
            return False
        self.hop_limit = hop_limit
        if self.sock is not None:
            set_hop_limit(self.sock, hops_left(hop_limit) - 1)
        return True

    def connect(self) -> bool:
        """Choose an endpoint and connect a socket to it; return False if that isn't possible now.

        The client's next datagram then tries other endpoints.
        """
        engine, group = self.listener.engine, self.group
        now = engine.reactor.now
        for _ in range(DIALS):
            endpoint = group.balancers.current.pick(self.client_ip, now, tried=self.tried or ())
            if endpoint is None:
                break
            failed = self._dial(endpoint)
            if failed is None:
                self.endpoint, self.dialled_at = endpoint, now
                counters = group.counters_of(endpoint)
                counters.connections += 1
                counters.active += 1
                if self.is_preserved:
                    counters.preserved += 1
                    self.listener.silent.add(self, now)
                engine.descriptors.take_for_flow()
                return True
            self._dial_failed(endpoint, failed)
            if failed.failure is Failure.OUT_OF_ALL_PORTS:
                # No source port is left: other programs use more than the half of the ports that
                # the flow table leaves them.
                self._free_source_ports()
                break
            if failed.failure is Failure.EXHAUSTED:
                break
        return False

    def _dial(self, endpoint: SocketAddress) -> DialFailure | None:
        """Connect a socket to an endpoint; return the failure, or None."""
        listener, engine = self.listener, self.listener.engine
        dialer, reactor = engine.client_dialer, engine.reactor
        # If a local client dials an address that is routed to this node, its source is the dialled
        # address, not its own, so don't preserve it.
        is_self = self.client_ip == listener.at.ip
        may_preserve = self.group.serving.handling.keeps_clients and not is_self
        fd = dialer.dial_for(self, endpoint, reactor.now, may_preserve, False, is_flow=True)
        if fd < 0:
            return dial_failure(-fd, endpoint.ip)
        sock = reactor.calls.socket(fd)
        is_local = EPHEMERAL.includes(endpoint.port, reactor.now)
        if is_local and is_self_connected(sock, endpoint):
            number = errno.ECONNREFUSED
        else:
            number = -reactor.watch(fd, epoll.IN, self)
        if number:
            if self.is_preserved:
                dialer.release(sock, self.client_ip, endpoint)
            reactor.calls.close(fd)
            return dial_failure(number, endpoint.ip)
        set_hop_limit(sock, hops_left(self.hop_limit) - 1)
        keep_icmp_errors(sock)
        self.sock = sock
        return None

    def _dial_failed(self, endpoint: SocketAddress, failed: DialFailure) -> None:
        if self.tried is None:
            self.tried = {}
        self.tried[endpoint] = self.group.failed(
            endpoint,
            failed,
            self.listener.engine.reactor.now,
            client=self.client_ip if self.is_preserved else "",
            may_be_client_specific=self.is_preserved and failed.failure is not Failure.NO_HOST,
        )

    def _free_source_ports(self) -> None:
        """End some flows from this node's address, so that flows after this one get a port."""
        table = self.listener.table
        for _ in range(1 + len(table) // _PORTS_PART):
            first = table.first_to_go()
            # The reactor closes sockets at the end of the dispatch, too late to give this flow a
            # port, so end only older flows and stop when this one is next.
            if first is self or first is None or first.is_preserved:
                return
            first.evict()

    def pass_on(self, payload: memoryview) -> None:
        """Send a datagram of the client to the endpoint, or keep it while the flow waits."""
        table, now = self.listener.table, self.listener.engine.reactor.now
        if not self.is_stream:
            if self.is_waiting:
                table.use(self, now)
                if not self._keep(payload, _HELD_DATAGRAMS, _HELD_BYTES):
                    self.group.counters.dropped_datagrams += 1
                return
            if self.first_byte_s is not None:
                table.make_stream(self, now)
            elif self.kept is not None:
                self._note_unanswered_datagram(payload, now)
        if now - self.used >= GRAIN_S:
            table.use(self, now)
        refusal = self._send(payload)
        if refusal and not self.has_answer:
            self._refused(refusal)

    def _note_unanswered_datagram(self, payload: memoryview, now: float) -> None:
        """Keep an early datagram; for a one-way flow, drop the kept ones and record a success."""
        age_s = now - self.sent_since
        if age_s > _ONE_WAY_S:
            self.kept = None
            if self.endpoint is not None:
                # Endpoints of one-way protocols never answer, so silence counts as success.
                self.group.answered(self.endpoint, now)
        elif age_s <= _KEEP_S:
            self._keep(payload, _KEEP_DATAGRAMS, _KEEP_BYTES)

    def _keep(self, payload: memoryview, datagrams: int, size: int) -> bool:
        """Keep a datagram; return False if over ``datagrams``, or ``size`` bytes, would be kept."""
        kept = self.kept = self.kept or []
        size -= len(payload) + sum(len(one.payload) for one in kept)
        if len(kept) >= datagrams or size < 0:
            return False
        kept.append(Kept(bytes(payload), self.hop_limit))
        return True

    def _send(self, payload: bytes | memoryview) -> int:
        """Send to the endpoint; return the errno of a refusal that the call reported, or 0."""
        sock = self.sock
        refusal = 0
        # Try twice: the first call may only report an earlier datagram's error.
        for _ in range(2):
            if sock is None:
                break
            try:
                self.received_bytes += sock.send(payload)
            except BlockingIOError:
                break
            except OSError as exc:
                refusal = refusal_of(sock, exc.errno) or refusal
            else:
                return refusal
        self.group.counters.dropped_datagrams += 1
        return refusal

    def _send_kept(self, kept: Iterable[Kept]) -> None:
        """Send the first datagrams, each with its hop limit decremented."""
        refusal = 0
        for payload, hop_limit in kept:
            if hop_limit != self.hop_limit:
                self.limit_hops(hop_limit)
            refusal = self._send(payload) or refusal
        if refusal:
            # Report the refusal of an earlier datagram here: a call has taken the error from the
            # socket, so no event reports it.
            self._refused(refusal)

    def _refused(self, number: int) -> None:
        if self.endpoint is not None:
            self.refused(dial_failure(number, self.endpoint.ip))

    def refused(self, failed: DialFailure) -> None:
        """Record a failure; with recent kept datagrams, try other endpoints or wait, else end."""
        endpoint, kept, now = self.endpoint, self.kept, self.listener.engine.reactor.now
        if endpoint is not None:
            self._dial_failed(endpoint, failed)
        if not kept or now - self.sent_since > _KEEP_S:
            self.end(EndReason.REFUSED, EndedBy.ENDPOINT)
            return
        # The freed place isn't for waiting flows: the endpoint would refuse them one after another
        # without a pause. They retry every second.
        self._leave_endpoint(makes_room=False)
        if self.connect():
            self.listener.table.use(self, now)
            self._send_kept(kept)
        elif self.wait():
            self.note(ConnectionEvent.HELD)
        else:
            self.end_wait(EndReason.UNANSWERED)

    def settle(self) -> None:
        """Update the endpoint's counters; record a stalled flow, or an unanswered request."""
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
        """Choose an endpoint, and send the kept datagrams; without one, wait again or end."""
        kept, room, now = self.kept or (), self.group.waiting_room, self.listener.engine.reactor.now
        if not self.connect():
            if not self.wait():
                self.end_wait(EndReason.UNANSWERED)
            return
        self.sent_since = now
        self.listener.table.use(self, now)
        if room is not None:
            room.served(self, is_proven=False)
        self._send_kept(kept)

    def end_wait(self, cause: EndReason) -> None:
        """End the flow; no ICMP error can be sent while the listener's socket is open."""
        self.group.counters.refused += 1
        self.end(cause)

    def evict(self) -> None:
        """End the flow to make room for another flow."""
        self.group.counters.evicted += 1
        self.end(EndReason.EVICTED)

    def end(self, cause: EndReason, by: EndedBy = EndedBy.PROXY) -> None:
        """End the flow; the client's next datagram opens a new flow. Idempotent."""
        if self.is_ended:
            return
        self.is_ended = True
        listener, group, is_served = self.listener, self.group, self.endpoint is not None
        is_plain = cause is EndReason.IDLE and is_served and not self.tried
        log = listener.engine.connection_log
        if log is not None and log.takes_next(group.prefixes, self.client_ip, is_plain=is_plain):
            event = ending(by, is_served=is_served)
            log.write(self._facts(event, cause, by), listener.frontend)
        room = group.waiting_room
        if room is not None and self in room:
            room.left(self)
        self._leave_endpoint()
        talk = self.conversation
        is_failed = talk is not None and talk.is_unanswered
        if is_failed or (not is_served and cause in UNSERVED):
            listener.engine.calls.fail(group, self.client_ip)
        listener.flows.pop(self.key, None)
        listener.table.remove(self)

    def _leave_endpoint(self, *, makes_room: bool = True) -> None:
        if self.sock is None or self.endpoint is None:
            return
        self.settle()
        engine, group = self.listener.engine, self.group
        counters = group.counters_of(self.endpoint)
        counters.active -= 1
        counters.stalled -= self.conversation is not None and self.conversation.is_stalled
        if makes_room and group.waiting_room is not None:
            group.waiting_room.connection_ended()
        if self.is_preserved:
            self.listener.silent.discard(self)
            engine.client_dialer.release(self.sock, self.client_ip, self.endpoint)
            if self.has_answer:
                engine.client_dialer.answered_flows.remove(self.client_ip, self.endpoint)
        engine.reactor.close_descriptor(self.sock.fileno())
        engine.descriptors.give_for_flow()
        self.sock = None
        self.endpoint = None

    def note(
        self, event: ConnectionEvent, cause: EndReason | None = None, by: EndedBy = EndedBy.NONE
    ) -> None:
        """Record an event, such as a refusal, other than the flow's end, if flows are watched."""
        log = self.listener.engine.connection_log
        if log is not None and log.is_watched(self.group.prefixes, self.client_ip):
            log.write(self._facts(event, cause, by), self.listener.frontend)

    def _facts(
        self, event: ConnectionEvent, cause: EndReason | None, by: EndedBy
    ) -> ConnectionFacts:
        now = self.listener.engine.reactor.clock()
        tried, endpoint = self.tried or (), self.endpoint
        return ConnectionFacts(
            event=event,
            kind="flow",
            **port_fields(self.group.key),
            client=str(SocketAddress(self.address[0], self.address[1])),
            endpoint="" if endpoint is None else str(endpoint),
            source="client" if self.is_preserved else "node",
            dials=len(tried) + (endpoint is not None and endpoint not in tried),
            failed=failed_dials(self.tried, endpoint if self.has_answer else None),
            waited_s=self.sent_since - self.started,
            first_byte_s=self.first_byte_s,
            received_bytes=self.received_bytes,
            sent_bytes=self.sent_bytes,
            duration_s=now - self.started,
            ended_by=by,
            cause=cause or "",
        )

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
                counters.came_late(self.first_byte_s)
            else:
                counters.ends.succeeded_at = now
            if self.tried:
                self.group.counters.saved += 1
                self.note(ConnectionEvent.SAVED)
            if self.is_preserved:
                client_dialer = self.listener.engine.client_dialer
                client_dialer.answered_flows.add(self.address[0], self.endpoint)
