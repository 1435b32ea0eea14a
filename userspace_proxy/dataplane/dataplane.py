"""Owns the listeners, connections and flows of one event loop, and their engine.

    DataPlane ─▶ TcpListener ─▶ TcpConnections ─▶ TcpConnection ─▶ Direction ─┐
              └▶ UdpListener ─▶ UdpFlows ─▶ UdpFlow ──────────────────────────┴▶ Engine

Rule 1: everything here runs in the loop's thread.
Rule 2: the data plane opens no port. The owner of a listening socket opens a listener for it, and
closes the listener before the socket refuses clients. A client that no endpoint can answer isn't
accepted unless its Service holds connections.
"""

from __future__ import annotations

import _socket
from collections.abc import Callable, Iterator
from itertools import islice

from ..model import Protocol, SocketAddress
from .endpoint_group import EndpointGroup
from .engine import Engine
from .reactor import LoopTimer
from .tcp_connections import TcpConnections, TcpListener
from .udp import UdpListener
from .udp_flows import UdpFlows

# The number of connections whose counters are updated before other callbacks run: below 1 ms.
_CONNECTIONS_PER_ITERATION = 512

AnyListener = TcpListener | UdpListener


class DataPlane:
    """The data plane of one event loop, asyncio's or uvloop's; it closes its engine."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.connections = TcpConnections(engine)
        self.flows = UdpFlows(engine)
        self._listeners: dict[AnyListener, None] = {}
        self._drained: Callable[[int], None] = lambda _reset: None
        self._drain_timer = LoopTimer(engine.loop, self._end_drain)

    def open_listener(
        self, group: EndpointGroup, protocol: Protocol, sock: _socket.socket, at: SocketAddress
    ) -> AnyListener:
        """Return a listener that accepts a TCP socket's clients, or receives from a UDP socket.

        The socket must be non-blocking; the caller closes it after :meth:`close_listener`. Raises
        OSError if the epoll accepts no more sockets.
        """
        listener: AnyListener = (
            TcpListener(self.connections, group, sock, at)
            if protocol is Protocol.TCP
            else UdpListener(self.flows, group, sock, at)
        )
        self._listeners[listener] = None
        self.engine.descriptors.take(1)
        return listener

    def close_listener(self, listener: AnyListener) -> None:
        """Stop accepting clients; TCP connections continue, UDP flows end. Idempotent."""
        if listener in self._listeners:
            del self._listeners[listener]
            listener.close()
            self.engine.descriptors.give(1)

    def settle(self) -> Iterator[None]:
        """Update the counters; yield after each batch, because there may be many connections."""
        rest = iter(list(self.connections.open))
        while part := list(islice(rest, _CONNECTIONS_PER_ITERATION)):
            for connection in part:
                self.connections.accounts.settle(connection)
            yield
        for listener in self._listeners:
            listener.settle()

    def drain(self, seconds: float, drained: Callable[[int], None]) -> None:
        """Reset the connections that are still open after ``seconds``, without blocking.

        Close the listeners first. Calls ``drained`` with the number of reset connections, as soon
        as none is open. During a drain, only a call with ``seconds`` 0 has an effect.
        """
        if not self.connections.open or seconds <= 0:
            self._drained = drained
            self._end_drain()
        elif not self._drain_timer:
            self._drained = drained
            self.connections.on_idle = self._end_drain
            self._drain_timer.start(seconds)

    def close(self) -> None:
        """Reset all connections and end all flows; listening sockets stay open. Idempotent."""
        self._drain_timer.stop()
        self.connections.on_idle = None
        self.engine.descriptors.close()
        for listener in list(self._listeners):
            self.close_listener(listener)
        self.connections.close()
        self.flows.close()
        self.engine.close()

    def _end_drain(self) -> None:
        self.connections.on_idle = None
        self._drain_timer.stop()
        self._drained(self.connections.reset_all())
