"""Owns the UDP flows of one data plane: their limit, idle timeout, and checks for absent hosts.

    flow at the client's address ──3 s unanswered──▶ the kernel is asked: is the host there? ─┐
                                                     ▲──────── 10 s still unanswered ─────────┘

If a host doesn't answer ARP or neighbour discovery, the kernel reports that to the datagram's
source, which is the client: the error never arrives at this proxy's socket.

Rule 1: such a host, or the gateway to it, is absent for all clients. A network policy that denies
one client doesn't make ARP or neighbour discovery fail.
Rule 2: the kernel is asked only about endpoints of unanswered flows, at most 100 times per call
(about 5 ms), because one-way protocols have many such flows. The next call continues with the
remaining flows; flows that were checked before come last.
Rule 3: the kernel answers for the network namespace of the calling thread.
"""

from __future__ import annotations

from collections.abc import Callable

from ..kernel.ephemeral import EPHEMERAL
from ..kernel.neighbours import absent_hop
from ..model import DialFailure, Failure
from ..model.connection_ends import EndReason
from ..policy.flow_table import FlowTable
from ..policy.shares import CONNECTION_BYTES
from .engine import Engine
from .reactor import LoopTimer
from .udp_flow import UdpFlow

_NO_HOST = DialFailure(Failure.NO_HOST)
_SWEEP_S = 1.0
# The time after which ARP and neighbour discovery have failed: three requests, a second apart
# (arp(7)). Only a later datagram without a refusal counts as a success of the endpoint (``udp``).
WAIT_S = 3.0
_QUESTIONS_MAX = 100
# The interval between two checks of an endpoint's host, which may disappear later. Pods of a failed
# node are removed from EndpointSlices only after 40 s or more (kube-controller-manager:
# node-monitor-grace-period).
AGAIN_S = 10.0
# The part of the flows that ends if other programs leave no source port: a sixteenth, because each
# flow that finds no port loses a datagram.
_PORTS_PART = 16


class SilentFlows:
    """One data plane's flows from client addresses, until they are answered.

    Args:
        absent_hop: Returns the next hop to an address if no host answers for it.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        absent_hop: Callable[[str], object],
    ) -> None:
        self._clock = clock
        self._absent_hop = absent_hop
        self._began: dict[UdpFlow, float] = {}
        """When flows were connected to their endpoints, in this order."""
        self._asked: dict[UdpFlow, float] = {}
        """When the kernel was last asked about flows, in this order."""

    def add(self, flow: UdpFlow, now: float) -> None:
        """Watch a flow that has just been connected to an endpoint."""
        self._began[flow] = now

    def discard(self, flow: UdpFlow) -> None:
        """Stop watching a flow. Idempotent."""
        self._began.pop(flow, None)
        self._asked.pop(flow, None)

    def take_absent(self) -> list[UdpFlow]:
        """Return, and stop watching, the due, unanswered flows whose endpoint's host is absent."""
        is_absent: dict[str, bool] = {}
        found, present = list[UdpFlow](), list[UdpFlow]()
        for flows, wait_s in ((self._began, WAIT_S), (self._asked, AGAIN_S)):
            checked = self._check(flows, wait_s, is_absent)
            for flow in checked:
                del flows[flow]
                ip = _asked_ip(flow)
                if ip:
                    (found if is_absent[ip] else present).append(flow)
        self._asked.update(dict.fromkeys(present, self._clock()))
        return found

    def _check(
        self, flows: dict[UdpFlow, float], wait_s: float, is_absent: dict[str, bool]
    ) -> list[UdpFlow]:
        """Return the due flows that could be checked, and add the kernel's answers."""
        now, checked = self._clock(), []
        for flow, since in flows.items():
            if now - since < wait_s:
                break
            ip = _asked_ip(flow)
            if ip and ip not in is_absent:
                if len(is_absent) == _QUESTIONS_MAX:
                    break
                is_absent[ip] = bool(self._absent_hop(ip))
            checked.append(flow)
        return checked


class UdpFlows:
    """All UDP flows on one engine, within its limits of descriptors and memory."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        tuning = engine.tuning
        ports = EPHEMERAL.count(engine.clock()) // 2 // tuning.processes
        max_flows = tuning.max_flows or max(16, min(engine.descriptors.limit // 4, ports))
        self.table: FlowTable[UdpFlow] = FlowTable(max_flows, tuning.udp_idle_s)
        self.silent = SilentFlows(engine.clock, absent_hop)
        self._timer = LoopTimer(engine.loop, self._sweep)

    def __len__(self) -> int:
        return len(self.table)

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
        return _evict(self.table.first_to_go())

    def free_source_ports(self, newcomer: UdpFlow) -> None:
        """End some flows from this node's address, so that flows after the newcomer get a port."""
        for _ in range(1 + len(self.table) // _PORTS_PART):
            first = self.table.first_to_go()
            # The reactor closes sockets at the end of the dispatch, too late to give the newcomer a
            # port, so end only older flows and stop when the newcomer is next.
            if first is newcomer or first is None or first.is_preserved:
                return
            _evict(first)

    def close(self) -> None:
        """Stop the timer; listeners end their flows. Idempotent."""
        self._timer.stop()

    def _sweep(self) -> None:
        self.engine.reactor.tick()
        for flow in self.silent.take_absent():
            flow.listener.endpoint_refused(flow, _NO_HOST)
        for flow in self.table.expired(self.engine.clock()):
            # A waiting flow ends at the deadline of its wait, not when it is idle.
            if not flow.is_waiting:
                flow.listener.end(flow, EndReason.IDLE)
        if len(self.table):
            self._timer.start(_SWEEP_S)


def _asked_ip(flow: UdpFlow) -> str:
    """Return the address to check; empty if a flow needs no check."""
    return flow.endpoint.ip if flow.endpoint and not flow.has_answer else ""


def _evict(flow: UdpFlow | None) -> bool:
    if flow is None:
        return False
    flow.group.counters.evicted += 1
    flow.listener.end(flow, EndReason.EVICTED)
    return True
