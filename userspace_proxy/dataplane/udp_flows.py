"""The UDP flows of one data plane: how many there may be, and the end of idle ones."""

from __future__ import annotations

import asyncio

from .engine import Engine
from .ephemeral import EPHEMERAL
from .flow_table import FlowTable
from .udp_flow import UdpFlow

_SWEEP_S = 1.0
# Where other programs have so many source ports that flows get none, a sixteenth of the flows ends:
# the datagram that found none is lost, and should be one of many.
_PORTS_PART = 16


class UdpFlows:
    """All of them.

    Args:
        engine: Its descriptors and timers are used.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        tuning = engine.tuning
        ports = EPHEMERAL.count(engine.clock()) // 2 // tuning.processes
        max_flows = tuning.max_flows or max(16, min(engine.descriptors.limit // 4, ports))
        self.table: FlowTable[UdpFlow] = FlowTable(max_flows, tuning.udp_idle_s)
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self.table)

    def make_room(self) -> bool:
        """Make room for one more flow, if need be by ending another; False if there is none."""
        if self._timer is None:
            self._timer = self._engine.loop.call_later(_SWEEP_S, self._sweep)
        if not self.table.is_full and self._engine.descriptors.has_room_for_flow():
            return True
        return _evict(self.table.first_to_go())

    def free_source_ports(self, newcomer: UdpFlow) -> None:
        """End a few flows at this node's address, so that those after the newcomer get a port."""
        for _ in range(1 + len(self.table) // _PORTS_PART):
            first = self.table.first_to_go()
            # The reactor closes sockets when it has handled all events: too late for this one.
            if first is newcomer or first is None or first.is_preserved:
                return
            _evict(first)

    def close(self) -> None:
        """Stop the timer; listeners end their flows. Idempotent."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _sweep(self) -> None:
        for flow in self.table.expired(self._engine.clock()):
            flow.listener.end(flow, "complete")
        self._timer = (
            self._engine.loop.call_later(_SWEEP_S, self._sweep) if len(self.table) else None
        )


def _evict(flow: UdpFlow | None) -> bool:
    if flow is None:
        return False
    flow.group.counters.evicted_flows += 1
    flow.listener.end(flow, "evicted")
    return True
