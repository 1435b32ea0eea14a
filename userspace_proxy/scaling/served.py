"""What scaling needs of the Service ports that are served; the agent has them."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Protocol

from ..model import ServiceKey, SocketAddress, Workload
from ..model.quiesced import Quiesced
from ..plan import PortPlan
from ..plane import Group
from ..policy.usable import EndpointState

WorkloadKey = tuple[str, Workload]
"""A workload, after its namespace."""


class Served(Protocol):
    """A Service port that is served."""

    plan: PortPlan
    group: Group
    is_retired: bool
    wake_problem: str


class ServedByName(Protocol):
    """All Service ports that one proxy serves."""

    quiesced: Quiesced

    def __iter__(self) -> Iterator[Served]:
        """Yield each of them."""

    @property
    def holding(self) -> Collection[Served]:
        """Those whose clients wait while no endpoint is usable."""

    def of_group(self, group: Group) -> Served | None:
        """Return the Service port of a group, if it is served."""

    def of_service(self, service: ServiceKey) -> Collection[Served]:
        """Return a Service's ports that are served."""

    def quiesce(self, service: ServiceKey, *, is_quiesced: bool) -> None:
        """Lead no new client to the present endpoints of a Service, or do so again."""


def workload_of(served: Served) -> WorkloadKey | None:
    """Return the workload that the Service of a port names."""
    name, wake = served.plan.key.name, served.plan.serving.handling.wake
    return None if wake is None else (name.service.namespace, wake)


def ready_endpoints(served: Served) -> tuple[SocketAddress, ...]:
    """Return the endpoints of a Service port that take clients, and aren't about to end."""
    return tuple(
        verdict.address
        for verdict in served.plan.verdicts
        if verdict.code is None and verdict.reason != EndpointState.TERMINATING
    )
