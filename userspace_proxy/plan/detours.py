"""Stores detours: addresses that are dialled instead of endpoints, for embedding programs.

Rule 1: an endpoint without a detour is dialled directly, and its Service port has no extra cost.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from ..model import Protocol, ServiceKey, SocketAddress
from ..model.serving import Serving
from .plan import PortPlan


class At(NamedTuple):
    """An endpoint: TCP and UDP on one address are two endpoints."""

    protocol: Protocol
    endpoint: SocketAddress


Reasons = Mapping[At, Sequence[str]]
"""The injected faults of endpoints with detours, as text."""
Faults = Mapping[SocketAddress, Sequence[str]]
"""The injected faults of one Service port's endpoints, as text."""


class Detours:
    """The detours of one proxy, by Service."""

    def __init__(self) -> None:
        self._of: dict[ServiceKey, tuple[Mapping[At, SocketAddress], Callable[[], Reasons]]] = {}

    def set(
        self, service: ServiceKey, detours: Mapping[At, SocketAddress], why: Callable[[], Reasons]
    ) -> None:
        """Replace the detours of a Service and their reasons; without detours, remove both."""
        self._of[service] = detours, why
        if not detours:
            del self._of[service]

    def faults_of(self, plan: PortPlan) -> Faults:
        """Return the current faults of a Service port's endpoints."""
        found = self._of.get(plan.key.name.service)
        if not found:
            return {}
        reasons = found[1]().items()
        return {at.endpoint: words for at, words in reasons if at.protocol is plan.protocol}

    def lead(self, plan: PortPlan) -> Serving:
        """Return the plan's ``Serving``, with its Service's detours for the protocol, if any."""
        found = self._of.get(plan.key.name.service)
        if not found:
            return plan.serving
        return plan.serving.detoured(
            tuple((at.endpoint, to) for at, to in found[0].items() if at.protocol is plan.protocol)
        )
