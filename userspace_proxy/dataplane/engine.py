"""Owns the resources that all traffic of one event loop shares: epoll, descriptors, memory, pipes.

Rule 1: the engine refers to no listener, connection or flow: these are in the layer above.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ..balance import AffinityTables
from ..clocks import Clocks
from ..facts.edges import CallCounts
from .client_address import ClientAddressDialer
from .connection_log import ConnectionLog
from .descriptors import Descriptors
from .dialer import Dialer
from .memory_pressure import Memory
from .reactor import Reactor
from .redials import Redials
from .relay import PipePool
from .tuning import Tuning


class Engine:
    """The shared resources of one event loop; takes the arguments of ``DataPlane``."""

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
        self.redials = Redials(self.reactor)
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
        """Stop delivering events; owners close their own sockets. Idempotent."""
        self.memory.close()
        self.descriptors.close()
        self.pipes.close()
        self.reactor.close()
