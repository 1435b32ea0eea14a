"""Owns the open TCP connections of one data plane, their listeners and their deadlines.

TcpListener ──accept──▶ TcpConnections ─┬─ HeldAcks: ACKs that wait for data
                                        ├─ deadlines of dials and of clients
                                        └─ LateResets: bytes sent before a reset
"""

from __future__ import annotations

import _socket
import errno
import os
from collections.abc import Callable
from dataclasses import dataclass

from ..kernel.socket_options import packets_lost
from ..kernel.tcp_state import is_connected, unacknowledged_bytes
from ..model import SocketAddress
from ..model.connection_ends import EndedBy, EndReason
from ..model.failures import EXHAUSTED_ERRNOS
from . import reactor as epoll
from .accepted_headers import AcceptedHeaders
from .ageing import Ageing
from .descriptors import DESCRIPTORS
from .endpoint_group import EndpointGroup
from .engine import Engine
from .reactor import Callback, Handler, LoopTimer, Reactor, Timeouts
from .relay import Direction
from .removals import Removals
from .shedding import Shedding
from .tcp import ConnectionOwner, TcpConnection
from .tcp_accounts import has_arrived
from .tuning import BATCH

# How long ACKs are held: most short connections between pods end within 1 ms, and uvloop's timers
# have that resolution.
HELD_S = 0.002

# How long ACKs are held while the loop is behind: connections then wait for the loop, not for a
# peer, and two more calls per connection would slow the loop further.
BEHIND_S = 0.02


class HeldAcks(Timeouts):
    """The open connections of one data plane whose ACKs are held back, to travel with data.

        client's bytes ──▶ their ACK travels with the answer
        endpoint's SYN-ACK ──▶ its ACK travels with the client's bytes
        answer ──▶ its ACK travels with the FIN
             └──▶ still open after HELD_S: ACKs are sent as on any other socket

    Accepted sockets inherit the option from the listening socket, without a system call. The ACK of
    the endpoint's handshake is held back if the last connection of the Service port had bytes to
    send when its endpoint answered. If the client of this connection has sent none yet, the ACK is
    sent immediately: until then the endpoint sees no connection, so a server that sends first would
    wait. No ACK is held back for longer than HELD_S, or BEHIND_S while the loop is behind: a peer
    with Nagle's algorithm that writes twice sends the rest only after the ACK.

    Source: net/ipv4/tcp.c, tcp_sock_set_quickack(); net/ipv4/tcp_input.c,
    tcp_rcv_synsent_state_process() for the handshake's ACK.
    """

    def __init__(self, reactor: Reactor) -> None:
        super().__init__(reactor, HELD_S, self._release)
        self._reactor = reactor

    def _release(self, connection: TcpConnection) -> None:
        now = self._reactor.clock()
        may_hold = now - connection.started < BEHIND_S - HELD_S
        if may_hold and now < self._reactor.behind_until:
            self.start(connection, now)
            return
        calls, endpoint = self._reactor.calls, connection.endpoint_fd
        calls.send_acks(connection.client_fd)
        if endpoint >= 0:
            calls.send_acks(endpoint)


LIMIT_S = 60.0
# Seconds between two checks: no event reports that the last byte was acknowledged.
_LOOK_S = 0.05


@dataclass(slots=True)
class _Waiting:
    direction: Direction
    began: float
    moved_at: float
    progress: tuple[int, int]
    """Bytes sent to the sink, and bytes left, which may stay equal because reads add bytes."""


class LateResets:
    """The connections waiting to be reset, for at most ``wait_s`` without progress.

        one side's RST ──▶ bytes that the proxy has acknowledged are sent to the other side
                            ├─▶ the other side has acknowledged all of them ──▶ RST
                            └─▶ nothing moved for wait_s, or LIMIT_S in all ──▶ RST

        both FINs, and the answer was late (``tcp_accounts``) ──▶ likewise, without a RST

    A close with a RST makes the kernel drop what it hasn't delivered, so the socket stays open
    until SIOCOUTQ is 0. Until then the connection and its descriptors count as open.
    """

    def __init__(self, engine: Engine) -> None:
        self._clock = engine.clock
        self._wait_s = engine.tuning.reset_wait_s
        self.waiting: dict[TcpConnection, _Waiting] = {}
        self._timer = LoopTimer(engine.loop, self._look)

    def begin(self, connection: TcpConnection) -> bool:
        """Begin to wait for the connected side's last ACK; return False if no bytes await it.

        Without a RST, both sides sent a FIN, the client first: the endpoint's FIN is passed on.
        """
        up, down, is_aborting = connection.up, connection.down, connection.is_aborting
        if not is_aborting:
            connection.reactor.calls.shut_down(connection.client_fd)
        for direction in (up, down) if is_aborting else (down,):
            # Await only bytes of a side that has gone, or of an endpoint that has sent its FIN.
            if direction is None or (is_aborting and is_connected(direction.source)):
                continue
            left = _undelivered(direction)
            if left:
                now, progress = self._clock(), (direction.bytes_moved, left)
                self.waiting[connection] = _Waiting(direction, now, now, progress)
                self._watch(connection, direction)
                return True
        return False

    def close(self) -> None:
        self.waiting.clear()
        self._timer.stop()

    def _watch(self, connection: TcpConnection, direction: Direction) -> None:
        reactor = connection.reactor

        def flush(events: int) -> None:
            if events & epoll.OUT:
                direction.flush()

        reactor.handlers[direction.sink_fd] = Callback(flush)
        reactor.calls.change_watch(direction.sink_fd, epoll.OUT | epoll.ET)
        if not connection.is_aborting:
            # Ignore later events of the source: it has sent its FIN, so they don't affect the
            # client.
            reactor.handlers[direction.source_fd] = Handler()
        self._timer.start(_LOOK_S)

    def _look(self) -> None:
        now = self._clock()
        for connection, waiting in list(self.waiting.items()):
            left = _undelivered(waiting.direction)
            progress = waiting.direction.bytes_moved, left
            if progress != waiting.progress:
                waiting.progress, waiting.moved_at = progress, now
            is_over = now - waiting.moved_at >= self._wait_s or now - waiting.began >= LIMIT_S
            # A late answer is awaited only until its first byte is acknowledged.
            is_known = left and not connection.is_aborting and has_arrived(waiting.direction)
            if not left or is_over or is_known:
                self.waiting.pop(connection, None)
                if connection.is_aborting:
                    connection.close()
                else:
                    connection.finish(EndReason.COMPLETE, as_reset=False, by=EndedBy.CLIENT)
        if self.waiting:
            self._timer.start(_LOOK_S)


def _undelivered(direction: Direction) -> int:
    """Return how many bytes a sink hasn't acknowledged, plus 1 if any are unread; 0 if closed."""
    if not is_connected(direction.sink):
        return 0
    unread = direction.is_stuck or direction.is_waiting_turn
    return direction.waiting_bytes + unacknowledged_bytes(direction.sink) + unread


class TcpConnections(ConnectionOwner):
    """All open connections on one engine, with their deadlines."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self._descriptors = engine.descriptors
        self.open: dict[TcpConnection, None] = {}
        """Connections in order of acceptance, so that ties are always broken in the same way."""
        self.shedding = Shedding(engine, self.open)
        self.held_acks = HeldAcks(engine.reactor)
        self.late_resets = LateResets(engine)
        self.headers = AcceptedHeaders(engine) if engine.tuning.proxy_protocol_from else None
        """Connections whose PROXY header is awaited; None if no peer is trusted to send one."""
        self.ageing = Ageing(engine, self.open)
        self.removals = Removals(engine, self.open)
        self.on_idle: Callable[[], None] | None = None
        """Called whenever the last open connection has ended; None to call nothing."""

    def began(self, connection: TcpConnection) -> None:
        if not self.open:
            self.ageing.start()
        self.open[connection] = None
        self.held_acks.start(connection, connection.started)
        self._descriptors.take(DESCRIPTORS)

    def ended(self, connection: TcpConnection) -> None:
        self.open.pop(connection, None)
        self.held_acks.due.pop(connection, None)
        if self.late_resets.waiting:
            self.late_resets.waiting.pop(connection, None)
        if self.headers is not None:
            self.headers.deadlines.stop(connection)
        self._descriptors.give(DESCRIPTORS)
        if self.on_idle is not None and not self.open:
            self.on_idle()

    def end_late(self, connection: TcpConnection) -> bool:
        return self.late_resets.begin(connection)

    def reset_all(self) -> int:
        """Reset all connections; return their number."""
        left = list(self.open)
        for connection in left:
            connection.close()
        return len(left)

    def close(self) -> None:
        """Reset all connections, and stop every timer. Idempotent."""
        self.reset_all()
        self.probes.close()
        self.held_acks.close()
        self.late_resets.close()
        self.ageing.close()
        self.removals.close()
        if self.headers is not None:
            self.headers.deadlines.close()
        self.dial_deadlines.close()
        self.client_deadlines.close()


_NONE_WAITS = -errno.EAGAIN
_HUP = epoll.HUP


class TcpListener(Handler):
    """One listening, non-blocking socket; the caller closes it.

    Its queue is drained one batch at a time. At the limit of descriptors or memory nothing is
    accepted, and clients wait in the kernel's queue until connections end, or connections of the
    largest holder are reset (``shares``).
    """

    # Cost: slots save memory, because each Service port has a listener.
    __slots__ = "_at", "_connections", "_engine", "_fd", "_is_closed", "_lost", "group", "sock"

    def __init__(
        self,
        connections: TcpConnections,
        group: EndpointGroup,
        sock: _socket.socket,
        at: SocketAddress,
    ) -> None:
        self._connections = connections
        self._engine = connections.engine
        self.group = group
        self.sock = sock
        self._at = at
        self._fd = self._engine.reactor.calls.adopt(sock)
        self._is_closed = False
        # Don't start at 0: a new worker inherits the previous worker's socket with its count of
        # lost packets.
        self._lost = packets_lost(sock)
        number = self._watch()
        if number < 0:
            self._engine.reactor.calls.disown(self._fd)
            raise OSError(-number, os.strerror(-number))

    def hand_over(self, group: EndpointGroup) -> None:
        """Accept for another group; accepted connections keep their group."""
        self.settle()
        self.group = group

    def close(self) -> None:
        """Stop accepting; accepted connections continue. Idempotent."""
        self.settle()
        if not self._is_closed:
            self._is_closed = True
            self._engine.reactor.unwatch(self._fd)
            self._engine.reactor.calls.disown(self._fd)

    def settle(self) -> None:
        """Count the packets dropped since the last call, if only some clients are admitted."""
        if self.group.serving.admits is not None:
            self._lost = self.group.count_lost(self.sock, self._lost)

    def _watch(self) -> int:
        # Level-triggered: clients left after a batch or a pause are reported again.
        return self._engine.reactor.watch(self._fd, epoll.IN, self)

    def _resume(self) -> None:
        if not self._is_closed and self._watch() < 0:
            self._engine.descriptors.wait(self._resume, self._engine.reactor.now)

    def _pause(self) -> None:
        self._engine.reactor.unwatch(self._fd)
        self._engine.descriptors.wait(self._resume, self._engine.reactor.now)

    def on(self, fd: int, events: int) -> None:
        if events & _HUP:
            # The control process, which shares the socket, has shut it down. Only stop watching it:
            # a message that closes the listener follows.
            self._engine.reactor.unwatch(fd)
            return
        connections, reactor = self._connections, self._engine.reactor
        descriptors, headers = self._engine.descriptors, connections.headers
        shedding, keeps_clients = connections.shedding, self.group.serving.handling.keeps_clients
        if reactor.now >= self._engine.memory.due:
            self._engine.memory.look()
        for number in range(BATCH):
            if descriptors.in_use + DESCRIPTORS > descriptors.for_connections:
                if number:
                    # Don't pause yet: if more clients wait, epoll reports the socket again.
                    return
                # Sockets just reset are closed at the end of the dispatch, which makes room.
                if not shedding.make_room(self.group, reactor.now):
                    self._pause()
                return
            client, address = reactor.calls.accept(fd)
            if client < 0:
                if client == _NONE_WAITS:
                    return
                if -client in EXHAUSTED_ERRNOS:
                    # Descriptors or memory have run out below the counted limit, for example
                    # because an embedding program uses descriptors that aren't counted.
                    self._pause()
                    return
                # The client has already gone (ECONNABORTED and the network errors of accept(2)).
                continue
            connection = TcpConnection(connections, self.group, client, address)
            # If a local client dials an address that is routed to this node, its source is the
            # dialled address, not its own, so don't preserve it.
            is_self = address[0] == self._at.ip
            connection.may_preserve = keeps_clients and not is_self
            connections.began(connection)
            if reactor.now < shedding.pressing_until and not shedding.admit(connection):
                continue
            if headers is not None and headers.expects_one_from(address[0]):
                headers.await_one(connection)
            else:
                connection.begin()
