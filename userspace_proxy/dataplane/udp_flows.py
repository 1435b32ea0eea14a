"""The UDP flows of one data plane: their limit, and the end of idle ones."""

from __future__ import annotations

import asyncio

from ..kernel.ephemeral import EPHEMERAL
from ..kernel.neighbours import absent_hop
from ..model import DialFailure, Failure
from ..model.connection_ends import EndReason
from ..policy.flow_table import FlowTable
from ..policy.shares import CONNECTION_BYTES
from .engine import Engine
from .silent_flows import SilentFlows
from .udp_flow import UdpFlow

_NO_HOST = DialFailure(Failure.NO_HOST)
_SWEEP_S = 1.0
# If other programs use so many source ports that none is left, a sixteenth of the flows ends: each
# datagram that finds none is lost, so there should be few.
_PORTS_PART = 16


class UdpFlows:
    """All flows; the engine's descriptors and timers are used."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        tuning = engine.tuning
        ports = EPHEMERAL.count(engine.clock()) // 2 // tuning.processes
        max_flows = tuning.max_flows or max(16, min(engine.descriptors.limit // 4, ports))
        self.table: FlowTable[UdpFlow] = FlowTable(max_flows, tuning.udp_idle_s)
        self.silent = SilentFlows(engine.clock, absent_hop)
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self.table)

    def make_room(self) -> bool:
        """Make room for one more flow, if necessary by ending one; returns whether there is."""
        if self._timer is None:
            self._timer = self._engine.loop.call_later(_SWEEP_S, self._sweep)
        is_full = self.table.is_full or (
            self._engine.memory.is_short
            and len(self.table) >= self._engine.memory.spared_bytes // CONNECTION_BYTES
        )
        if not is_full and self._engine.descriptors.has_room_for_flow():
            return True
        return _evict(self.table.first_to_go())

    def free_source_ports(self, newcomer: UdpFlow) -> None:
        """End some flows at this node's address, so that those after the newcomer get a port."""
        for _ in range(1 + len(self.table) // _PORTS_PART):
            first = self.table.first_to_go()
            # The reactor closes sockets at the end of the dispatch: too late for this flow.
            if first is newcomer or first is None or first.is_preserved:
                return
            _evict(first)

    def close(self) -> None:
        """Stop the timer; listeners end their flows. Idempotent."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _sweep(self) -> None:
        self._engine.reactor.tick()
        for flow in self.silent.take_absent():
            flow.listener.endpoint_refused(flow, _NO_HOST)
        for flow in self.table.expired(self._engine.clock()):
            # One that waits has a deadline of its own.
            if not flow.is_waiting:
                flow.listener.end(flow, EndReason.IDLE)
        self._timer = (
            self._engine.loop.call_later(_SWEEP_S, self._sweep) if len(self.table) else None
        )


def _evict(flow: UdpFlow | None) -> bool:
    if flow is None:
        return False
    flow.group.counters.evicted += 1
    flow.listener.end(flow, EndReason.EVICTED)
    return True
