"""Endpoints that are dialled elsewhere, because a program that embeds the proxy asks for it.

Rule 1: an endpoint without a detour is dialled itself, and its Service port costs nothing more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from ..model import Protocol, ServiceKey, SocketAddress
from ..model.serving import Serving
from .plan import PortPlan


class At(NamedTuple):
    """An endpoint: TCP and UDP of one address are two endpoints."""

    protocol: Protocol
    endpoint: SocketAddress


Reasons = Mapping[At, Sequence[str]]
"""Why endpoints have detours: their faults on purpose in words."""
Faults = Mapping[SocketAddress, Sequence[str]]
"""Those of the endpoints of one Service port."""


class Detours:
    """The detours of one proxy, by Service."""

    def __init__(self) -> None:
        self._of: dict[ServiceKey, tuple[Mapping[At, SocketAddress], Callable[[], Reasons]]] = {}

    def set(
        self, service: ServiceKey, detours: Mapping[At, SocketAddress], why: Callable[[], Reasons]
    ) -> None:
        """Replace the detours of a Service; without any, their reasons end, too."""
        self._of[service] = detours, why
        if not detours:
            del self._of[service]

    def faults_of(self, plan: PortPlan) -> Faults:
        """Return the faults of a Service port's endpoints at this moment."""
        found = self._of.get(plan.key.name.service)
        if not found:
            return {}
        reasons = found[1]().items()
        return {at.endpoint: words for at, words in reasons if at.protocol is plan.protocol}

    def lead(self, plan: PortPlan) -> Serving:
        """Return what workers get: nearly always the plan's, as it is."""
        found = self._of.get(plan.key.name.service)
        if not found:
            return plan.serving
        return plan.serving.detoured(
            tuple((at.endpoint, to) for at, to in found[0].items() if at.protocol is plan.protocol)
        )
