"""Forwards UDP, with one receiving socket per listener and one connected socket per flow.

    client ──▶ listener's socket ──▶ flow (client, address dialled) ──▶ its own socket ──▶ endpoint
           ◀──  from the address at which the datagram arrived  ◀──────────────────────

Rule 1: a reply leaves from the address at which the datagram arrived (IP_PKTINFO): only then do
conntrack, and clients with connected sockets, recognize it.
Rule 2: the hop limit (TTL) of a datagram is decremented, and at 0 the datagram is dropped, as by a
router. So a datagram doesn't circulate forever in a loop of Services through other nodes or a load
balancer, even through existing flows.
"""

from __future__ import annotations

import _socket
import os
from collections.abc import Hashable
from typing import Any

from ..facts import ClientMistake
from ..facts.connection import ConnectionEvent
from ..kernel.listening_sockets import is_wildcard
from ..kernel.socket_options import (
    ANCILLARY_BYTES,
    Ancillary,
    AncillaryItem,
    Destinations,
    hops_left,
    packets_lost,
)
from ..log_fields import FieldLogger
from ..log_limit import LogLimit
from ..model import SocketAddress
from ..model.connection_ends import EndedBy, EndReason
from ..policy.flow_table import GRAIN_S
from . import reactor as epoll
from .endpoint_group import EndpointGroup
from .reactor import Handler
from .tuning import BATCH
from .udp_flow import UdpFlow
from .udp_flows import UdpFlows

_log = FieldLogger("userspace_proxy.dataplane")


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
        self.silent = flows.silent
        self._make_room = flows.make_room
        self.group = group
        self.sock = sock
        self.at = at
        self.flows: dict[Hashable, UdpFlow] = {}
        self._destinations = Destinations()
        self._turn = 0
        """The number of the dispatch in which the socket was last read."""
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
        for flow in list(self.flows.values()):
            flow.end(cause)
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
        buffer, receive, flows = reactor.calls.buffer, self.sock.recvmsg_into, self.flows
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
            elif flow.hop_limit != ancillary[-1] and not flow.limit_hops(ancillary[-1]):
                continue
            if flow.is_stream and flow.used > fresh and flow.sock is not None:
                # The usual case, without bookkeeping. After an error, pass_on sends again.
                try:
                    flow.received_bytes += flow.sock.send(buffer[:count])
                    continue
                except OSError:
                    pass
            flow.pass_on(buffer[:count])
        return most

    def _new_flow(
        self, key: Hashable, address: Any, reply: Ancillary, hop_limit: AncillaryItem
    ) -> UdpFlow | None:
        if hops_left(hop_limit) <= 1:
            self.drop_at_last_hop(address)
            return None
        if not self._make_room():
            self.group.counters.refused += 1
            return None
        flow = UdpFlow(self, key, address, reply, hop_limit)
        self.engine.calls.add(self.group, flow.client_ip)
        if not (flow.connect() or flow.wait()):
            self.group.counters.refused += 1
            self.engine.calls.fail(self.group, flow.client_ip)
            flow.note(ConnectionEvent.REFUSED, EndReason.UNANSWERED, EndedBy.PROXY)
            return None
        if flow.waited is not None:
            flow.note(ConnectionEvent.HELD)
        self.flows[key] = flow
        self.table.add(flow, self.engine.reactor.now)
        return flow

    def drop_at_last_hop(self, address: Any) -> None:
        now = self.engine.reactor.now
        self.group.counters.dropped_datagrams += 1
        self.group.note_mistake(ClientMistake.HOP_LIMIT, str(address[0]), now)
        if self._hop_log_limit.take(now):
            _log.warning(
                "%(service)s: dropped a datagram from %(client)s that reached its hop limit, "
                "possibly in a loop",
                extra={
                    "service": self.group.label,
                    "client": str(SocketAddress(address[0], address[1])),
                },
            )

    def settle(self) -> None:
        """Update the counters of endpoints and of the Service port."""
        self._lost = self.group.count_lost(self.sock, self._lost)
        for flow in self.flows.values():
            flow.settle()

    def _endpoints_removed(self, removed: frozenset[SocketAddress], begun_by: float) -> None:
        serves = self.group.balancers.current.serves
        for flow in list(self.flows.values()):
            if flow.endpoint not in removed or serves(flow.client_ip, flow.endpoint):
                # Keep the flow: its endpoint remains, or still serves this client.
                continue
            if flow.dialled_at <= begun_by:
                flow.end(EndReason.ENDPOINT_REMOVED)

    def frontend(self) -> SocketAddress | None:
        """Return the listener's address; None if it is a wildcard.

        Rules may have translated the dialled address, which the kernel reports for TCP only.
        """
        return None if is_wildcard(self.at.ip) else self.at
