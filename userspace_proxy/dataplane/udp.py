"""Forwards UDP, with one receiving socket per listener and one connected socket per flow.

    client ──▶ listener's socket ──▶ flow (client, address dialled) ──▶ its own socket ──▶ endpoint
           ◀──  from the address at which the datagram arrived  ◀──────────────────────

Rule 1: a reply leaves from the address at which the datagram arrived (IP_PKTINFO): only then do
conntrack, and clients with connected sockets, recognize it.
Rule 2: an ICMP error is about an earlier datagram; it never costs a good datagram, outgoing or
incoming.
Rule 3: an endpoint that refuses is ejected, and a flow that it has not answered yet continues with
another endpoint, which receives the flow's first datagrams again.
Rule 4: a refused dial from a client's own address ejects no endpoint: a network policy may refuse
this client alone, and a probe from this node (``probes``) would need a datagram. The flow continues
with another endpoint anyway. An absent host is absent for all clients, and is ejected
(``udp_flows``).
Rule 5: the hop limit (TTL) of a datagram is decremented, and at 0 the datagram is dropped, as by a
router. So a datagram doesn't circulate forever in a loop of Services through other nodes or a load
balancer, even through existing flows.
"""

from __future__ import annotations

import _socket
import errno
import os
from collections.abc import Hashable, Iterable
from typing import Any

from ..facts import ClientMistake
from ..facts.connection import ConnectionEvent, ConnectionFacts, ending, failed_dials, port_fields
from ..kernel.ephemeral import EPHEMERAL
from ..kernel.listening_sockets import is_self_connected, is_wildcard
from ..kernel.socket_options import (
    ANCILLARY_BYTES,
    Ancillary,
    AncillaryItem,
    Destinations,
    hops_left,
    keep_icmp_errors,
    packets_lost,
    set_hop_limit,
)
from ..log_fields import FieldLogger
from ..log_limit import LogLimit
from ..model import DialFailure, Failure, SocketAddress
from ..model.connection_ends import UNSERVED, EndedBy, EndReason
from ..model.failures import dial_failure
from ..policy.flow_table import GRAIN_S
from . import reactor as epoll
from .endpoint_group import EndpointGroup
from .reactor import Handler
from .tuning import BATCH, DIALS
from .udp_flow import Kept, UdpFlow, refusal_of
from .udp_flows import UdpFlows

_log = FieldLogger("userspace_proxy.dataplane")

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


class UdpListener(Handler):
    """One bound, non-blocking socket, which the caller closes, and its flows."""

    def __init__(
        self,
        flows: UdpFlows,
        group: EndpointGroup,
        sock: _socket.socket,
        at: SocketAddress,
    ) -> None:
        engine = self.engine = flows.engine
        self.table = flows.table
        self._all_flows = flows
        self.group = group
        self.sock = sock
        self._at = at
        self._flows: dict[Hashable, UdpFlow] = {}
        self._destinations = Destinations()
        self._turn = 0
        """The reactor's turn when the socket was last read."""
        self._had_more = False
        # Don't start at 0: a new worker inherits the previous worker's socket with its count of
        # lost packets.
        self._lost = packets_lost(sock)
        self._hop_log_limit = LogLimit()
        # Level-triggered: datagrams left after a batch are reported again.
        number = engine.reactor.watch(sock.fileno(), epoll.IN, self)
        if number:
            raise OSError(-number, os.strerror(-number))
        group.on_removed.append(self._endpoints_removed)

    def close(self) -> None:
        """End the flows and stop receiving; clients are refused once the socket is closed."""
        self._leave_group(EndReason.LISTENER_CLOSED)
        self.stop_receiving()

    def stop_receiving(self) -> None:
        """Stop receiving from clients; replies of endpoints still reach them."""
        self.engine.reactor.unwatch(self.sock.fileno())

    def hand_over(self, group: EndpointGroup) -> None:
        """End the flows and serve another group, which also receives the waiting datagrams."""
        self._leave_group(EndReason.HANDED_OVER)
        self.group = group
        group.on_removed.append(self._endpoints_removed)

    def _leave_group(self, cause: EndReason) -> None:
        self.settle()
        for flow in list(self._flows.values()):
            self.end(flow, cause)
        self.group.on_removed.remove(self._endpoints_removed)

    def on(self, _fd: int, _events: int) -> None:
        # Most dispatches find one datagram: reading only one avoids a read that finds the socket
        # empty. A socket with more is reported again in the next dispatch, which reads a batch.
        reactor = self.engine.reactor
        most = BATCH if self._had_more or reactor.turn - self._turn == 1 else 1
        self._turn = reactor.turn
        count = self._receive(most)
        self._had_more = count > 1

    def _receive(self, most: int) -> int:
        reactor = self.engine.reactor
        buffer, receive, flows = reactor.calls.buffer, self.sock.recvmsg_into, self._flows
        buffers, known = [buffer], self._destinations.known
        fresh = reactor.now - GRAIN_S
        for number in range(most):
            try:
                count, ancillary, _flags, address = receive(buffers, ANCILLARY_BYTES)
            except BlockingIOError:
                return number
            except OSError:
                continue
            local = known.get(ancillary[0])
            if local is None:
                local = self._destinations.of(ancillary)
            key = (address, local.key)
            flow = flows.get(key)
            if flow is None:
                flow = self._new_flow(key, address, local.reply, ancillary[-1])
                if flow is None:
                    continue
            elif flow.hop_limit != ancillary[-1] and not self._limit_hops(flow, ancillary[-1]):
                continue
            if flow.is_stream and flow.used > fresh and flow.sock is not None:
                # The usual case, without bookkeeping. After an error, _pass_on sends again.
                try:
                    flow.received_bytes += flow.sock.send(buffer[:count])
                    continue
                except OSError:
                    pass
            self._pass_on(flow, buffer[:count])
        return most

    def _new_flow(
        self, key: Hashable, address: Any, reply: Ancillary, hop_limit: AncillaryItem
    ) -> UdpFlow | None:
        if hops_left(hop_limit) <= 1:
            self._drop_at_last_hop(address)
            return None
        if not self._all_flows.make_room():
            self.group.counters.refused += 1
            return None
        flow = UdpFlow(self, key, address, reply, hop_limit)
        flow.sent_since = self.engine.reactor.now
        self.engine.calls.add(self.group, flow.client_ip)
        if not (self._connect(flow) or flow.wait()):
            self.group.counters.refused += 1
            self.engine.calls.fail(self.group, flow.client_ip)
            self.note(flow, ConnectionEvent.REFUSED, EndReason.UNANSWERED, EndedBy.PROXY)
            return None
        if flow.waited is not None:
            self.note(flow, ConnectionEvent.HELD)
        self._flows[key] = flow
        self.table.add(flow, self.engine.reactor.now)
        return flow

    def _limit_hops(self, flow: UdpFlow, hop_limit: AncillaryItem) -> bool:
        """Apply a changed hop limit to the flow's socket; return False at the last hop."""
        if hops_left(hop_limit) <= 1:
            self._drop_at_last_hop(flow.address)
            return False
        flow.hop_limit = hop_limit
        if flow.sock is not None:
            set_hop_limit(flow.sock, hops_left(hop_limit) - 1)
        return True

    def _drop_at_last_hop(self, address: Any) -> None:
        now = self.engine.reactor.now
        self.group.counters.dropped_datagrams += 1
        self.group.note_mistake(ClientMistake.HOP_LIMIT, str(address[0]), now)
        if self._hop_log_limit.take(now):
            _log.warning(
                "%(service)s: dropped a datagram from %(client)s: hop limit reached (a loop?)",
                extra={
                    "service": self.group.label,
                    "client": str(SocketAddress(address[0], address[1])),
                },
            )

    def _connect(self, flow: UdpFlow) -> bool:
        """Choose an endpoint and connect a socket to it; return False if that isn't possible now.

        The client's next datagram then tries other endpoints.
        """
        now = self.engine.reactor.now
        for _ in range(DIALS):
            endpoint = self.group.balancers.current.pick(
                flow.address[0], now, tried=flow.tried or ()
            )
            if endpoint is None:
                break
            failed = self._dial(flow, endpoint)
            if failed is None:
                flow.endpoint, flow.dialled_at = endpoint, now
                counters = self.group.counters_of(endpoint)
                counters.connections += 1
                counters.active += 1
                if flow.is_preserved:
                    counters.preserved += 1
                    self._all_flows.silent.add(flow, now)
                self.engine.descriptors.take_for_flow()
                return True
            self._dial_failed(flow, endpoint, failed)
            if failed.failure is Failure.OUT_OF_ALL_PORTS:
                # No source port is left: other programs use more than the half of the ports that
                # the flow table leaves them.
                self._all_flows.free_source_ports(flow)
                break
            if failed.failure is Failure.EXHAUSTED:
                break
        return False

    def _dial(self, flow: UdpFlow, endpoint: SocketAddress) -> DialFailure | None:
        """Connect a socket for a flow; return the failure, or None."""
        now, client_dialer = self.engine.reactor.now, self.engine.client_dialer
        # If a local client dials an address that is routed to this node, its source is the dialled
        # address, not its own, so don't preserve it.
        may_preserve = self.group.serving.handling.keeps_clients and flow.address[0] != self._at.ip
        fd = client_dialer.dial_for(flow, endpoint, now, may_preserve, False, is_flow=True)
        if fd < 0:
            return dial_failure(-fd, endpoint.ip)
        calls = self.engine.reactor.calls
        sock = calls.socket(fd)
        if EPHEMERAL.includes(endpoint.port, now) and is_self_connected(sock, endpoint):
            number = errno.ECONNREFUSED
        else:
            number = -self.engine.reactor.watch(fd, epoll.IN, flow)
        if number:
            if flow.is_preserved:
                client_dialer.release(sock, flow.address[0], endpoint)
            calls.close(fd)
            return dial_failure(number, endpoint.ip)
        set_hop_limit(sock, hops_left(flow.hop_limit) - 1)
        keep_icmp_errors(sock)
        flow.sock = sock
        return None

    def _dial_failed(self, flow: UdpFlow, endpoint: SocketAddress, failed: DialFailure) -> None:
        if flow.tried is None:
            flow.tried = {}
        now = self.engine.reactor.now
        client = flow.address[0] if flow.is_preserved else ""
        flow.tried[endpoint] = self.group.failed(
            endpoint,
            failed,
            now,
            client=client,
            may_be_client_specific=flow.is_preserved and failed.failure is not Failure.NO_HOST,
        )

    def _pass_on(self, flow: UdpFlow, payload: memoryview) -> None:
        now = self.engine.reactor.now
        if not flow.is_stream:
            if flow.is_waiting:
                self.table.use(flow, now)
                if not flow.keep(payload, _HELD_DATAGRAMS, _HELD_BYTES):
                    self.group.counters.dropped_datagrams += 1
                return
            if flow.first_byte_s is not None:
                self.table.make_stream(flow, now)
            elif flow.kept is not None:
                self._keep(flow, payload, now)
        if now - flow.used >= GRAIN_S:
            self.table.use(flow, now)
        refusal = self._send(flow, payload)
        if refusal and not flow.has_answer:
            flow.refused(refusal)

    def _keep(self, flow: UdpFlow, payload: memoryview, now: float) -> None:
        age_s = now - flow.sent_since
        if age_s > _ONE_WAY_S:
            flow.kept = None
            if flow.endpoint is not None:
                # Endpoints of one-way protocols never answer, so silence counts as success.
                self.group.answered(flow.endpoint, now)
        elif age_s <= _KEEP_S:
            flow.keep(payload, _KEEP_DATAGRAMS, _KEEP_BYTES)

    def _send(self, flow: UdpFlow, payload: bytes | memoryview) -> int:
        """Send to the endpoint; return the errno of a refusal that the call reported, or 0."""
        sock = flow.sock
        refusal = 0
        # Try twice: the first call may only report an earlier datagram's error.
        for _ in range(2):
            if sock is None:
                break
            try:
                flow.received_bytes += sock.send(payload)
            except BlockingIOError:
                break
            except OSError as exc:
                refusal = refusal_of(sock, exc.errno) or refusal
            else:
                return refusal
        self.group.counters.dropped_datagrams += 1
        return refusal

    def endpoint_refused(self, flow: UdpFlow, failed: DialFailure) -> None:
        """Continue with another endpoint, or wait, if datagrams are kept; else end the flow."""
        endpoint, kept = flow.endpoint, flow.kept
        if endpoint is not None:
            self._dial_failed(flow, endpoint, failed)
        if not kept or self.engine.reactor.now - flow.sent_since > _KEEP_S:
            self.end(flow, EndReason.REFUSED, EndedBy.ENDPOINT)
            return
        # The freed place isn't for waiting flows: the endpoint would refuse them one after another
        # without a pause. They retry every second.
        self._leave_endpoint(flow, makes_room=False)
        if self._connect(flow):
            self.table.use(flow, self.engine.reactor.now)
            self._send_kept(flow, kept)
        elif flow.wait():
            self.note(flow, ConnectionEvent.HELD)
        else:
            self.group.counters.refused += 1
            self.end(flow, EndReason.UNANSWERED)

    def resume(self, flow: UdpFlow) -> None:
        """Choose an endpoint for a waiting flow, and send its kept datagrams."""
        kept, room = flow.kept or (), self.group.waiting_room
        if not self._connect(flow):
            if not flow.wait():
                flow.end_wait(EndReason.UNANSWERED)
            return
        flow.sent_since = self.engine.reactor.now
        self.table.use(flow, flow.sent_since)
        if room is not None:
            room.served(flow, is_proven=False)
        self._send_kept(flow, kept)

    def _send_kept(self, flow: UdpFlow, kept: Iterable[Kept]) -> None:
        """Send a flow's first datagrams, each with its hop limit decremented."""
        last, refusal = flow.hop_limit, 0
        for payload, hop_limit in kept:
            if hop_limit != flow.hop_limit:
                self._limit_hops(flow, hop_limit)
            refusal = self._send(flow, payload) or refusal
        if last != flow.hop_limit:
            self._limit_hops(flow, last)
        if refusal:
            # Report the refusal of an earlier datagram here: a call has taken the error from the
            # socket, so no event reports it.
            flow.refused(refusal)

    def end(self, flow: UdpFlow, cause: EndReason, by: EndedBy = EndedBy.PROXY) -> None:
        """End a flow; the client's next datagram opens a new flow. Idempotent."""
        if flow.is_ended:
            return
        flow.is_ended = True
        had_none = flow.endpoint is None
        log = self.engine.connection_log
        if log is not None and log.takes_next(
            self.group.prefixes, flow.client_ip, is_plain=_is_plain(flow, cause)
        ):
            event = ending(by, is_served=flow.endpoint is not None)
            log.write(self._facts(flow, event, cause, by), self._frontend)
        room = self.group.waiting_room
        if room is not None and flow in room:
            room.left(flow)
        self._leave_endpoint(flow)
        talk = flow.conversation
        is_silent = talk is not None and talk.is_unanswered and flow.first_byte_s is None
        if is_silent or (had_none and cause in UNSERVED):
            self.engine.calls.fail(self.group, flow.client_ip)
        self._flows.pop(flow.key, None)
        self.table.remove(flow)

    def settle(self) -> None:
        """Update the counters of endpoints and of the Service port."""
        self._lost = self.group.count_lost(self.sock, self._lost)
        for flow in self._flows.values():
            flow.settle()

    def _leave_endpoint(self, flow: UdpFlow, *, makes_room: bool = True) -> None:
        if flow.sock is None or flow.endpoint is None:
            return
        flow.settle()
        counters = self.group.counters_of(flow.endpoint)
        counters.active -= 1
        counters.stalled -= flow.conversation is not None and flow.conversation.is_stalled
        if makes_room and self.group.waiting_room is not None:
            self.group.waiting_room.connection_ended()
        if flow.is_preserved:
            self._all_flows.silent.discard(flow)
            client_dialer = self.engine.client_dialer
            client_dialer.release(flow.sock, flow.address[0], flow.endpoint)
            if flow.has_answer:
                client_dialer.answered_flows.remove(flow.address[0], flow.endpoint)
        self.engine.reactor.close_socket(flow.sock)
        self.engine.descriptors.give_for_flow()
        flow.sock = None
        flow.endpoint = None

    def _endpoints_removed(self, removed: frozenset[SocketAddress], begun_by: float) -> None:
        serves = self.group.balancers.current.serves
        for flow in list(self._flows.values()):
            if flow.endpoint not in removed or serves(flow.client_ip, flow.endpoint):
                # Keep the flow: its endpoint stays, or still serves clients of its side.
                continue
            if flow.dialled_at <= begun_by:
                self.end(flow, EndReason.ENDPOINT_REMOVED)

    def note(
        self,
        flow: UdpFlow,
        event: ConnectionEvent,
        cause: EndReason | None = None,
        by: EndedBy = EndedBy.NONE,
    ) -> None:
        """Record an event before the end of a flow if flows are watched."""
        log = self.engine.connection_log
        if log is not None and log.is_watched(self.group.prefixes, flow.client_ip):
            log.write(self._facts(flow, event, cause, by), self._frontend)

    def _frontend(self) -> SocketAddress | None:
        # A wildcard address is unknown here: rules may have translated the dialled address, which
        # the kernel reports for TCP only.
        return None if is_wildcard(self._at.ip) else self._at

    def _facts(
        self, flow: UdpFlow, event: ConnectionEvent, cause: EndReason | None, by: EndedBy
    ) -> ConnectionFacts:
        now = self.engine.reactor.clock()
        tried, endpoint = flow.tried or (), flow.endpoint
        return ConnectionFacts(
            event=event,
            kind="flow",
            **port_fields(self.group.key),
            client=str(SocketAddress(flow.address[0], flow.address[1])),
            endpoint="" if endpoint is None else str(endpoint),
            source="client" if flow.is_preserved else "node",
            dials=len(tried) + (endpoint is not None and endpoint not in tried),
            failed=failed_dials(flow.tried, endpoint if flow.has_answer else None),
            waited_s=flow.sent_since - flow.started,
            first_byte_s=flow.first_byte_s,
            received_bytes=flow.received_bytes,
            sent_bytes=flow.sent_bytes,
            duration_s=now - flow.started,
            ended_by=by,
            cause=cause or "",
        )


def _is_plain(flow: UdpFlow, cause: EndReason) -> bool:
    return cause is EndReason.IDLE and flow.endpoint is not None and not flow.tried
