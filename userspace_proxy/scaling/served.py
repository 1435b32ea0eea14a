"""Defines the protocols by which scaling uses the agent's served Service ports."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Protocol

from ..model import ServiceKey, SocketAddress, Workload
from ..model.cordoned import Cordoned
from ..plan import PortPlan
from ..plane import Group
from ..policy.usable import EndpointState

WorkloadKey = tuple[str, Workload]
"""A namespace and a workload in it."""


class Served(Protocol):
    """A Service port that is served."""

    plan: PortPlan
    group: Group
    is_retired: bool
    wake_problem: str


class ServedByName(Protocol):
    """All Service ports that one proxy serves."""

    cordoned: Cordoned

    def __iter__(self) -> Iterator[Served]:
        """Yield each served Service port."""

    @property
    def holding(self) -> Collection[Served]:
        """The ports whose clients wait while no endpoint is usable."""

    def of_group(self, group: Group) -> Served | None:
        """Return the Service port of a group; None if it isn't served."""

    def of_service(self, service: ServiceKey) -> Collection[Served]:
        """Return a Service's served ports."""

    def cordon(self, service: ServiceKey, *, is_cordoned: bool) -> None:
        """Cordon the current endpoints of a Service, or uncordon them."""


def workload_of(served: Served) -> WorkloadKey | None:
    """Return the workload that a port's Service names; None if it names no workload."""
    name, wake = served.plan.key.name, served.plan.serving.handling.wake
    return None if wake is None else (name.service.namespace, wake)


def ready_endpoints(served: Served) -> tuple[SocketAddress, ...]:
    """Return the endpoints of a Service port that take clients and aren't terminating."""
    return tuple(
        verdict.address
        for verdict in served.plan.verdicts
        if verdict.code is None and verdict.reason != EndpointState.TERMINATING
    )
