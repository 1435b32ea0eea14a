"""Finds UDP flows at the client's address whose endpoint no host has.

    flow at the client's address ──3 s unanswered──▶ the kernel is asked: is the host there?

The kernel reports a host that doesn't answer ARP or neighbour discovery to the source of the
datagram. That is the client, so the error never arrives at this proxy's socket.

Rule 1: such a host, or the gateway to it, is absent for all clients. A network policy that denies
one client doesn't make ARP or neighbour discovery fail.
Rule 2: the kernel is asked only about endpoints of such flows that are unanswered, of which one-way
protocols have many: 100 times a call at most, some 5 ms. Further flows are left to the next call.
Rule 3: the network namespace is that of the calling thread.
"""

from __future__ import annotations

from collections.abc import Callable

from .udp_flow import UdpFlow

# ARP and neighbour discovery have failed by then: three requests, a second apart (arp(7)). Only
# later does a further datagram without a refusal count as a success of the endpoint (``udp``).
WAIT_S = 3.0
_QUESTIONS_MAX = 100


class SilentFlows:
    """The flows of one data plane at client addresses, from their start until they are checked.

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
        """In the order in which they were connected to their endpoints."""

    def __len__(self) -> int:
        return len(self._began)

    def add(self, flow: UdpFlow, now: float) -> None:
        """Watch a flow that has just been connected to an endpoint."""
        self._began[flow] = now

    def discard(self, flow: UdpFlow) -> None:
        """Stop watching a flow. Idempotent."""
        self._began.pop(flow, None)

    def take_absent(self) -> list[UdpFlow]:
        """Return the flows that are due, unanswered, and whose endpoint no host has."""
        now = self._clock()
        is_absent: dict[str, bool] = {}
        checked, found = [], []
        for flow, began in self._began.items():
            if now - began < WAIT_S:
                break
            ip = flow.endpoint.ip if flow.endpoint and not flow.has_answer else ""
            if ip and ip not in is_absent:
                if len(is_absent) == _QUESTIONS_MAX:
                    break
                is_absent[ip] = bool(self._absent_hop(ip))
            checked.append(flow)
            if ip and is_absent[ip]:
                found.append(flow)
        for flow in checked:
            del self._began[flow]
        return found
