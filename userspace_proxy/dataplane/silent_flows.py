"""Finds UDP flows at the client's address whose endpoint no host has.

    flow at the client's address ──3 s unanswered──▶ the neighbour table: is the host there?

The kernel reports a host that doesn't answer ARP or neighbour discovery to the source of the
datagram. That is the client, so the error never arrives at this proxy's socket.

Rule 1: such a host is absent for all clients. A network policy that denies one client doesn't make
ARP or neighbour discovery fail.
Rule 2: the table is read only while such a flow is unanswered, and for a hundredth of the time at
most: endpoints of one-way protocols never answer.
Rule 3: the network namespace is that of the calling thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from ..kernel.neighbours import absent_hosts
from .udp_flow import UdpFlow

# ARP and neighbour discovery have failed by then: three requests, a second apart (arp(7)). Only
# later does a further datagram without a refusal count as a success of the endpoint (``udp``).
WAIT_S = 3.0
_SHARE = 0.01


class SilentFlows:
    """The flows of one data plane at client addresses, from their start until they are checked.

    Args:
        absent_hosts: Reads the neighbour table.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        absent_hosts: Callable[[], Mapping[str, str]] = absent_hosts,
    ) -> None:
        self._clock = clock
        self._absent_hosts = absent_hosts
        self._began: dict[UdpFlow, float] = {}
        """In the order in which they were connected to their endpoints."""
        self._read_at = 0.0
        """When the neighbour table may be read again."""

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
        if now < self._read_at:
            return []
        due = []
        for flow, began in self._began.items():
            if now - began < WAIT_S:
                break
            due.append(flow)
        for flow in due:
            del self._began[flow]
        silent = [flow for flow in due if not flow.has_answer]
        if not silent:
            return []
        absent = self._absent_hosts()
        self._read_at = now + (self._clock() - now) / _SHARE
        return [flow for flow in silent if flow.endpoint and flow.endpoint.ip in absent]
