"""Owns the UDP flows of one data plane: their limit, idle timeout, and checks for absent hosts.

Absent hosts are looked up in the network namespace of the calling thread.
"""

from __future__ import annotations

from ..kernel.ephemeral import EPHEMERAL
from ..kernel.neighbours import absent_hop
from ..model import DialFailure, Failure
from ..model.connection_ends import EndReason
from ..policy.flow_table import FlowTable
from ..policy.shares import CONNECTION_BYTES
from ..policy.silent_flows import SilentFlows
from .engine import Engine
from .reactor import LoopTimer
from .udp_flow import UdpFlow

_NO_HOST = DialFailure(Failure.NO_HOST)
_SWEEP_S = 1.0


class UdpFlows:
    """All UDP flows on one engine, within its limits of descriptors and memory."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        tuning = engine.tuning
        ports = EPHEMERAL.count(engine.clock()) // 2 // tuning.processes
        max_flows = tuning.max_flows or max(16, min(engine.descriptors.limit // 4, ports))
        self.table: FlowTable[UdpFlow] = FlowTable(max_flows, tuning.udp_idle_s)
        self.silent: SilentFlows[UdpFlow] = SilentFlows()
        self._timer = LoopTimer(engine.loop, self._sweep)

    def make_room(self) -> bool:
        """Make room for a flow, if necessary by ending another; return whether there is room."""
        self._timer.start(_SWEEP_S)
        is_full = self.table.is_full or (
            self.engine.memory.state.is_short
            and len(self.table) >= self.engine.memory.spared_bytes // CONNECTION_BYTES
        )
        descriptors = self.engine.descriptors
        if not is_full and descriptors.in_use < descriptors.limit:
            return True
        first = self.table.first_to_go()
        if first is not None:
            first.evict()
        return first is not None

    def close(self) -> None:
        """Stop the timer; listeners end their flows. Idempotent."""
        self._timer.stop()

    def _sweep(self) -> None:
        self.engine.reactor.tick()
        for flow in self.silent.take_absent(self.engine.clock(), absent_hop):
            flow.refused(_NO_HOST)
        for flow in self.table.expired(self.engine.clock()):
            # A waiting flow ends at the deadline of its wait, not when it is idle.
            if not flow.is_waiting:
                flow.end(EndReason.IDLE)
        if len(self.table):
            self._timer.start(_SWEEP_S)
