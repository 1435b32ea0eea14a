"""The data plane of one event loop: its listeners, connections, flows and counters.

Rule 1: everything here runs in the loop's thread.
Rule 2: a listener serves while its group has endpoints and refuses while it has
none; it never accepts what no endpoint can answer.
"""

from __future__ import annotations

import _socket
import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence

from ..errors import ListenError, ShortageError
from ..model import Protocol, SocketAddress
from ..policy.places import Networks
from .ageing import Ageing
from .base import PlaneState
from .descriptors import Descriptors
from .ephemeral import EPHEMERAL
from .flow_table import FlowTable
from .group import EndpointGroup
from .late_reset import LateResets
from .pipes import PipePool
from .port_hold import hold_port, share
from .preserving import Preserving
from .probes import Probes
from .reactor import Reactor
from .serving import Serving
from .shedding import Shedding
from .sockets import cannot_listen, open_listening
from .source_filter import admit, cannot_admit
from .tcp import DESCRIPTORS, TcpConnection
from .tcp_listener import TcpListener
from .timeouts import Timeouts
from .tuning import Tuning
from .udp import UdpListener
from .udp_flow import UdpFlow

_FLOW_SWEEP_S = 1.0
# Where other programs have so many source ports that flows get none, a sixteenth of the flows ends:
# the datagram that found none is lost, and should be one of many.
_PORTS_PART = 16
# So many are never too many; beyond them half of the descriptors is for connections.
_FEW_LISTENERS = 32


class DataPlane:
    """What carries the traffic.

    Args:
        loop: Any asyncio event loop, asyncio's own or uvloop's.
        tuning: Figures to work by.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        tuning: Tuning | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        tuning = tuning or Tuning()
        self.loop = loop
        self.reactor = Reactor(loop, clock=clock)
        self.descriptors = Descriptors(loop, tuning.descriptor_limit)
        self.preserving = Preserving()
        self.probes = Probes(self, tuning.connect_timeout_s)
        self.pipes = PipePool(self.descriptors, tuning.max_pipes)
        ports = EPHEMERAL.count(clock()) // 2 // tuning.processes
        max_flows = tuning.max_flows or max(16, min(self.descriptors.limit // 4, ports))
        self.flows: FlowTable[UdpFlow] = FlowTable(max_flows, tuning.udp_idle_s)
        self.connections: set[TcpConnection] = set()
        self.shedding = Shedding(self.connections, self.descriptors)
        self._listeners_of: dict[EndpointGroup, set[Listener]] = {}
        self._listener_count = 0
        self.dial_deadlines = Timeouts[TcpConnection](
            loop, clock, tuning.connect_timeout_s, TcpConnection.dial_timed_out
        )
        """Of dials."""
        self.client_deadlines = Timeouts[TcpConnection](
            loop, clock, tuning.client_timeout_s, TcpConnection.client_timed_out
        )
        """Of clients that no endpoint has answered yet."""
        self.connect_timeout_s = tuning.connect_timeout_s
        self.late_resets = LateResets(loop, clock, tuning.reset_wait_s)
        self.ageing = Ageing(loop, clock, tuning, self.connections)
        self._flow_timer: asyncio.TimerHandle | None = None
        self._idle: asyncio.Event | None = None
        self._is_closed = False

    def open_group(self, label: str, serving: Serving) -> EndpointGroup:
        """Begin to serve a Service port; without listeners there are no clients yet."""
        return EndpointGroup(label, serving)

    def close_group(self, group: EndpointGroup) -> None:
        """Forget a group whose listeners are closed; open connections go on. Idempotent."""
        self._listeners_of.pop(group, None)

    def listen(
        self,
        group: EndpointGroup,
        protocol: Protocol,
        at: SocketAddress,
        *,
        freebind: bool = False,
        transparent: bool = False,
    ) -> Listener:
        """Open a listener; it refuses from the start if its group has no endpoints.

        Args:
            group: Chooses endpoints for its clients, and counts.
            protocol: TCP or UDP.
            at: Where to bind; port 0 for any free one.
            freebind: Bind an address that this node doesn't have (yet).
            transparent: Set IP_TRANSPARENT.

        Raises:
            ListenError: The port can't be had.
        """
        listener = Listener(self, group, protocol, at, freebind=freebind, transparent=transparent)
        self._listeners_of.setdefault(group, set()).add(listener)
        self._listener_count += 1
        return listener

    def hand_over(self, port: Listener, group: EndpointGroup) -> None:
        """Have an open listener serve another group's clients; part of Plane."""
        self._forget(port)
        self._listeners_of.setdefault(group, set()).add(port)
        port.hand_over(group)

    def update(self, group: EndpointGroup, serving: Serving) -> None:
        """Give a group its new endpoints, and have its listeners serve, refuse or drop by them.

        Raises:
            ListenError: A listener could not take its port back, or tell its clients apart: it
                refuses; the others don't.
        """
        group.update(serving)
        error: ListenError | None = None
        for listener in self._listeners_of.get(group, ()):
            try:
                listener.follow(serving)
            except ListenError as exc:
                error = exc
        if error is not None:
            raise error

    def preserve(self, networks: Networks | None) -> None:
        """Have endpoints see their clients' own addresses, where answers come back by this node.

        Args:
            networks: Where networks are; None: endpoints see this node's address.
        """
        self.preserving.set(networks)

    def settle(self) -> None:
        """Bring the byte counters up to date; call before reading them."""
        for connection in self.connections:
            connection.settle()
        for listener in self._all_listeners():
            listener.settle()

    async def refresh(self) -> None:
        """Bring all counters up to date; call before reading them."""
        self.settle()

    def state(self) -> PlaneState:
        """Return how it is doing."""
        return PlaneState(
            self.descriptors.in_use, self.descriptors.limit, self.descriptors.is_accepting
        )

    async def drain(self, seconds: float) -> int:
        """Wait until the open connections have ended, then reset what is left.

        Close the listeners first.

        Returns:
            How many connections had to be reset.
        """
        if self.connections and seconds > 0:
            self._idle = asyncio.Event()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._idle.wait(), seconds)
        left = list(self.connections)
        for connection in left:
            connection.close()
        return len(left)

    def close(self) -> None:
        """Close every socket at once; open connections are reset. Idempotent."""
        if self._is_closed:
            return
        self._is_closed = True
        self.descriptors.close()
        for listener in self._all_listeners():
            listener.close()
        for connection in list(self.connections):
            connection.close()
        self.probes.close()
        self.pipes.close()
        self.late_resets.close()
        self.ageing.close()
        self.dial_deadlines.close()
        self.client_deadlines.close()
        if self._flow_timer is not None:
            self._flow_timer.cancel()
        self.reactor.close()

    # -- for connections, flows and listeners ---------------------------------

    def connection_began(self, connection: TcpConnection) -> None:
        """Add an accepted connection to the open ones."""
        self.connections.add(connection)
        self.descriptors.take(DESCRIPTORS)
        self.ageing.start()

    def connection_ended(self, connection: TcpConnection) -> None:
        """Remove a closed connection from the open ones; it has ended its deadlines."""
        self.connections.discard(connection)
        self.descriptors.give(DESCRIPTORS)
        if self._idle is not None and not self.connections:
            self._idle.set()

    def listener_closed(self, listener: Listener) -> None:
        """Remove a closed listener from the open ones."""
        self._forget(listener)
        self._listener_count -= 1

    def has_room_for_listener(self) -> bool:
        """Return whether one more listener leaves enough descriptors for connections."""
        return self._listener_count < max(_FEW_LISTENERS, self.descriptors.limit // 2)

    def make_room_for_flow(self) -> bool:
        """See that one more flow fits, if need be by ending one that is idle."""
        if self._flow_timer is None:
            self._flow_timer = self.loop.call_later(_FLOW_SWEEP_S, self._sweep_flows)
        if not self.flows.is_full and self.descriptors.has_room_for_flow():
            return True
        return self._evict(self.flows.first_to_go())

    def free_source_ports(self, newcomer: UdpFlow) -> None:
        """End a few flows at this node's address, so that those after the newcomer get a port."""
        for _ in range(1 + len(self.flows) // _PORTS_PART):
            first = self.flows.first_to_go()
            # The reactor closes sockets when it has handled all events: too late for this one.
            if first is newcomer or first is None or first.is_preserved:
                return
            self._evict(first)

    def _evict(self, flow: UdpFlow | None) -> bool:
        if flow is None:
            return False
        flow.group.counters.evicted_flows += 1
        flow.listener.end(flow, "evicted")
        return True

    def _forget(self, listener: Listener) -> None:
        """Take a listener out of its group's."""
        siblings = self._listeners_of[listener.group]
        siblings.discard(listener)
        if not siblings:
            del self._listeners_of[listener.group]

    def _all_listeners(self) -> list[Listener]:
        return [x for listeners in self._listeners_of.values() for x in listeners]

    def _sweep_flows(self) -> None:
        for flow in self.flows.expired(self.reactor.clock()):
            flow.listener.end(flow, "complete")
        self._flow_timer = (
            self.loop.call_later(_FLOW_SWEEP_S, self._sweep_flows) if len(self.flows) else None
        )


class Listener:
    """One address that clients reach, TCP or UDP, serving or refusing.

    Made by :meth:`DataPlane.listen`; closed by its owner, or with the data plane.
    """

    def __init__(
        self,
        plane: DataPlane,
        group: EndpointGroup,
        protocol: Protocol,
        at: SocketAddress,
        *,
        freebind: bool,
        transparent: bool = False,
    ) -> None:
        self.group = group
        self.protocol = protocol
        self._plane = plane
        self._freebind = freebind
        self._transparent = transparent
        self._server: TcpListener | UdpListener | None = None
        self._hold: _socket.socket | None = None
        """Keeps a UDP port that refuses; None where it can't be kept."""
        self._is_closed = False
        if not plane.has_room_for_listener():
            raise ShortageError(
                f"cannot listen on {at}/{protocol}: half of the descriptors are listeners already",
                hint="raise the limit of open files: RLIMIT_NOFILE, systemd's LimitNOFILE=",
            )
        self._admits = group.serving.admits
        sock = self._open(at)
        self.address = SocketAddress(at.ip, sock.getsockname()[1])
        """Where it is bound, with the port that was chosen."""
        self._serve_on(sock)
        self.is_serving = True
        """False while clients are refused."""
        plane.descriptors.take(1)
        if group.serving.is_refusing:
            self.refuse()

    def hand_over(self, group: EndpointGroup) -> None:
        """Serve another group's clients; for :meth:`DataPlane.hand_over`."""
        self.group = group
        if self._server is not None:
            self._server.hand_over(group)
        self.follow(group.serving)

    def follow(self, serving: Serving) -> None:
        """Serve, refuse or drop, as a group does.

        Raises:
            ListenError: It can't: it refuses.
        """
        if serving.is_refusing:
            self.refuse()
            return
        try:
            self.admit(serving.admits)
            self.serve()
        except ListenError:
            # Better no client than one that is to be dropped.
            self.refuse()
            raise

    def refuse(self) -> None:
        """Refuse clients (TCP RST, UDP port unreachable) and keep the port; idempotent."""
        if not self.is_serving or self._is_closed:
            return
        self.is_serving = False
        if isinstance(self._server, TcpListener):
            self._server.refuse()
        elif self._server is not None:
            self._hold = hold_port(self.address, [self._server.sock])
            self._server.close()
            self._server = None

    def admit(self, networks: Sequence[str] | None) -> None:
        """Let in packets from these networks alone; None admits all.

        Raises:
            ListenError: The kernel can't tell them apart.
        """
        if networks == self._admits or self._is_closed:
            return
        if self._server is not None:
            try:
                admit(self._server.sock, networks)
            except OSError as exc:
                raise cannot_admit(self.address, self.protocol, exc) from exc
        self._admits = networks

    def serve(self) -> None:
        """Serve clients again after :meth:`refuse`; idempotent.

        Raises:
            ListenError: Another socket has taken the port meanwhile.
        """
        if self.is_serving or self._is_closed:
            return
        if isinstance(self._server, TcpListener):
            self._server.serve()
        else:
            sock = self._open(self.address)
            if self._hold is not None:
                self._hold.close()
                self._hold = None
                share(sock, is_shared=False)
            self._serve_on(sock)
        self.is_serving = True

    def close(self) -> None:
        """Close the socket; TCP connections go on, UDP flows end. Idempotent."""
        if self._is_closed:
            return
        self._is_closed = True
        self.is_serving = False
        if self._server is not None:
            self._server.close()
            self._server = None
        if self._hold is not None:
            self._hold.close()
            self._hold = None
        self._plane.descriptors.give(1)
        self._plane.listener_closed(self)

    def settle(self) -> None:
        """Bring the byte counters of live flows up to date."""
        if self._server is not None:
            self._server.settle()

    def _open(self, at: SocketAddress) -> _socket.socket:
        return open_listening(
            self.protocol,
            at,
            freebind=self._freebind,
            transparent=self._transparent,
            share=self._hold is not None,
            admits=self._admits,
        )

    def _serve_on(self, sock: _socket.socket) -> None:
        server = TcpListener if self.protocol is Protocol.TCP else UdpListener
        try:
            self._server = server(self._plane, self.group, sock, self.address)
        except OSError as exc:
            # The epoll takes no more; the socket would never be read.
            sock.close()
            raise cannot_listen(self.address, self.protocol, exc) from exc
