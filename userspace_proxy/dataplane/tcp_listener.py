"""A TCP listener: accepts connections from its queue and begins their dials.

Rule 1: the queue is drained one batch at a time.
Rule 2: at the limit of descriptors or memory nothing is accepted, and clients wait in the kernel's
queue until connections have ended, or the largest holder's were reset (``shares``).
"""

from __future__ import annotations

import _socket
import errno
import os

from ..kernel.socket_options import packets_lost
from ..model import SocketAddress
from ..model.failures import EXHAUSTED_ERRNOS
from . import reactor as epoll
from .descriptors import DESCRIPTORS
from .endpoint_group import EndpointGroup
from .reactor import Handler
from .tcp import TcpConnection
from .tcp_connections import TcpConnections
from .tuning import BATCH

_NONE_WAITS = -errno.EAGAIN


class TcpListener(Handler):
    """One listening, non-blocking socket; the caller closes it."""

    # Cost: each Service port has one.
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
        # A new worker inherits the previous worker's socket, with the kernel's count.
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
        """Count the packets of clients that aren't admitted."""
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
        if events & epoll.HUP:
            # The control process, which shares the socket, has shut it down; its message follows.
            self._engine.reactor.unwatch(fd)
            return
        connections, reactor = self._connections, self._engine.reactor
        descriptors, headers = self._engine.descriptors, connections.headers
        shedding, keeps_clients = connections.shedding, self.group.serving.handling.keeps_clients
        if reactor.now >= self._engine.memory.due:
            self._engine.memory.look()
        for number in range(BATCH):
            if not descriptors.has_room(DESCRIPTORS):
                if number:
                    # If another client waits, the socket is reported again.
                    return
                # Connections just reset are closed at the end of the dispatch, which makes room.
                if not shedding.make_room(self.group, reactor.now):
                    self._pause()
                return
            client, address = reactor.calls.accept(fd)
            if client < 0:
                if client == _NONE_WAITS:
                    return
                if -client in EXHAUSTED_ERRNOS:
                    # The embedding program's descriptors aren't counted here.
                    self._pause()
                    return
                # The client has gone already (ECONNABORTED and the network errors of accept(2)).
                continue
            connection = TcpConnection(connections, self.group, client, address)
            # A local client that dials an address routed to this node also has it as its source.
            is_self = address[0] == self._at.ip
            connection.may_preserve = keeps_clients and not is_self
            connections.began(connection)
            if reactor.now < shedding.pressing_until and not shedding.admit(connection):
                continue
            if headers is not None and headers.expects_one_from(address[0]):
                headers.await_one(connection)
            else:
                connection.begin()
