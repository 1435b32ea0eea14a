"""Decides when the kernel is asked whether the hosts of unanswered UDP flows are absent.

    flow at the client's address ──3 s unanswered──▶ the kernel is asked: is the host there? ─┐
                                                     ▲──────── 10 s still unanswered ─────────┘

If a host doesn't answer ARP or neighbour discovery, the kernel reports that to the datagram's
source, which is the client: the error never arrives at this proxy's socket.

Rule 1: such a host, or the gateway to it, is absent for all clients. A network policy that denies
one client doesn't make ARP or neighbour discovery fail.
Rule 2: the kernel is asked only about endpoints of unanswered flows, at most 100 times per call
(about 5 ms), because one-way protocols have many such flows. The next call continues with the
remaining flows; flows that were checked before come last.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from ..model import SocketAddress

# The time after which ARP and neighbour discovery have failed: three requests, a second apart
# (arp(7)). Only a later datagram without a refusal counts as a success of the endpoint
# (``dataplane.udp_flow``).
WAIT_S = 3.0
_QUESTIONS_MAX = 100
# The interval between two checks of an endpoint's host, which may disappear later. Pods of a failed
# node are removed from EndpointSlices only after 40 s or more (kube-controller-manager:
# node-monitor-grace-period).
AGAIN_S = 10.0


class Answering(Protocol):
    """A flow, as far as this decision depends on it."""

    endpoint: SocketAddress | None

    @property
    def has_answer(self) -> bool:
        """Whether the endpoint has answered."""


F = TypeVar("F", bound=Answering)


class SilentFlows(Generic[F]):
    """One data plane's flows from client addresses, until they are answered."""

    def __init__(self) -> None:
        self._began: dict[F, float] = {}
        """Monotonic seconds at which flows were connected to their endpoints, in this order."""
        self._asked: dict[F, float] = {}
        """Monotonic seconds at which the kernel was last asked about flows, in this order."""

    def add(self, flow: F, now: float) -> None:
        """Watch a flow that has just been connected to an endpoint."""
        self._began[flow] = now

    def discard(self, flow: F) -> None:
        """Stop watching a flow. Idempotent."""
        self._began.pop(flow, None)
        self._asked.pop(flow, None)

    def take_absent(self, now: float, absent_hop: Callable[[str], object]) -> list[F]:
        """Return, and stop watching, the due, unanswered flows whose endpoint's host is absent.

        Args:
            absent_hop: Returns the next hop to an address if no host answers for it.
        """
        is_absent: dict[str, bool] = {}
        found, present = list[F](), list[F]()
        for flows, wait_s in ((self._began, WAIT_S), (self._asked, AGAIN_S)):
            for flow in self._check(flows, now - wait_s, absent_hop, is_absent):
                del flows[flow]
                ip = _asked_ip(flow)
                if ip:
                    (found if is_absent[ip] else present).append(flow)
        self._asked.update(dict.fromkeys(present, now))
        return found

    def _check(
        self,
        flows: dict[F, float],
        due: float,
        absent_hop: Callable[[str], object],
        is_absent: dict[str, bool],
    ) -> list[F]:
        """Return the due flows that could be checked, and add the kernel's answers."""
        checked: list[F] = []
        for flow, since in flows.items():
            if since > due:
                break
            ip = _asked_ip(flow)
            if ip and ip not in is_absent:
                if len(is_absent) == _QUESTIONS_MAX:
                    break
                is_absent[ip] = bool(absent_hop(ip))
            checked.append(flow)
        return checked


def _asked_ip(flow: Answering) -> str:
    """Return the address to check; empty if a flow needs no check."""
    return flow.endpoint.ip if flow.endpoint and not flow.has_answer else ""
