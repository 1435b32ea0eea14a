"""Owns the resources that all traffic of one event loop shares: epoll, descriptors, memory, pipes.

Rule 1: the engine refers to no listener, connection or flow: these are in the layer above.
Rule 2: a :class:`Dialer` reaches endpoints that ``connect`` can't, such as pods behind an API
server:

TcpConnection ──dial(port, endpoint, opened)──▶ Dialer ──opened(socket)──▶ joined, as after connect
                       │                              └──opened(errno)───▶ the next endpoint
                       └── the deadline passes, the client is gone: cancel()
"""

from __future__ import annotations

import _socket
import asyncio
from collections.abc import Callable
from typing import Protocol

from ..balance import AffinityTables
from ..clocks import Clocks
from ..facts.edges import CallCounts
from ..model import SocketAddress
from .client_address import ClientAddressDialer
from .connection_log import ConnectionLog
from .descriptors import Descriptors
from .memory_pressure import Memory
from .reactor import Reactor
from .relay import PipePool
from .tuning import Tuning

Opened = Callable[[_socket.socket | int], None]
"""Called once with the outcome of a dial: a connected, non-blocking stream socket, which the callee
closes, or the errno of the failure."""


class Dialer(Protocol):
    """Dials endpoints for TCP clients by other means than ``connect``."""

    def dial(
        self, service_port: str, endpoint: SocketAddress, opened: Opened
    ) -> Callable[[], None]:
        """Begin to dial an endpoint.

        Args:
            service_port: The label of the client's group, such as ``shop/web:http``. Another
                Service port may use the same address for another purpose.
            endpoint: The address that the Service port lists.
            opened: Called after this method has returned.

        Returns:
            A function that cancels the dial; ``opened`` isn't called after that. Idempotent.
        """


class Engine:
    """The shared resources of one event loop.

    A ``dialer`` replaces ``connect`` for TCP; with None, endpoints are dialled at their addresses.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        tuning: Tuning | None = None,
        *,
        clock: Callable[[], float] = Clocks.monotonic,
        dialer: Dialer | None = None,
    ) -> None:
        self.loop = loop
        self.tuning = tuning or Tuning()
        self.clock = clock
        self.reactor = Reactor(loop, clock=clock)
        self.descriptors = Descriptors(loop, self.tuning.descriptor_limit)
        self.memory = Memory(loop, clock, self.descriptors)
        self.entries = AffinityTables()
        """The affinity tables of all groups."""
        self.pipes = PipePool(self.reactor.calls, self.descriptors, self.tuning.max_pipes)
        self.client_dialer = ClientAddressDialer(
            self.reactor.calls, processes=self.tuning.processes
        )
        share = self.tuning.connection_log
        self.connection_log = ConnectionLog(share) if share else None
        self.calls = CallCounts()
        self.dialer = dialer

    def close(self) -> None:
        """Stop delivering events and close free pipes; owners close their sockets. Idempotent."""
        self.memory.close()
        self.descriptors.close()
        self.pipes.close()
        self.reactor.close()
