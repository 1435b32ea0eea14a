"""Which Services need pods, because their clients wait for an endpoint.

    a first client waits ──▶ Demand ──▶ Event NeedPods, again each minute
                                  ├──▶ metric and /api/v1/demand, until 90 s after the last wait
                                  └──▶ its workload is scaled from zero, where that is allowed

Rule 1: only Services that name a workload (annotation ``wake``) cause Events and are scaled.
Rule 2: one attempt to scale is made at a time, so they share a connection to the API server; it
ends after 5 s.
Rule 3: while a workload's Services get no endpoint, each attempt doubles the time until the next.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ...facts import StatusFacts
from ...model import ServiceKey, Workload
from ...plane import Group, Plane
from ...sources import Happening, Source
from ..rounds.component import Component
from ..rounds.served_port import ServedPort
from ..rounds.served_ports import ServedPorts
from ..rounds.tasks import Supervisor

WorkloadKey = tuple[str, Workload]
"""A workload, after its namespace."""

DEMAND_S = 90.0
"""How long demand lasts after the last client has waited: until an autoscaler has looked twice."""
# Between two looks at clients that wait.
_LOOK_S = 1.0
# Between the first two attempts to scale a workload whose clients still wait.
_AGAIN_S = 5.0
# The longest time between two of them: a permission that was missing is noticed within a minute,
# and 300 workloads that can't be scaled cost 5 requests a second.
_AGAIN_MAX_S = 60.0
_EVENT_S = 60.0
NOT_ALLOWED = "it isn't scaled by this proxy, which needs --allow-wake for that"


@dataclass(slots=True, eq=False)
class _Need:
    """A Service whose clients wait, or have waited a moment ago."""

    ports: dict[ServedPort, None]
    """Those of its Service ports whose clients have waited, the latest last."""
    waited_at: float
    """Monotonic seconds when a client last waited, as far as is known."""
    noted_at: float | None = None
    """When the last Event was recorded."""

    def waiting(self, now: float) -> int:
        """Return how many clients wait, as of the workers' last reports."""
        return sum(port.group.waiting(now).clients for port in self.ports if not port.is_retired)

    def port_without_endpoints(self) -> ServedPort | None:
        """Return the latest of those ports that has no usable endpoint on any node, if one has."""
        for port in reversed(self.ports):
            if not port.is_retired and port.plan.serving.has_none:
                return port
        return None


@dataclass(slots=True, eq=False)
class _Attempts:
    """The attempts to scale a workload."""

    again_s: float = 0.0
    """Seconds from the last attempt to the next; 0 before the first one."""
    last_at: float = 0.0
    """Monotonic seconds when the last one began."""
    problem: str = ""
    """Why the last one failed."""

    @property
    def again_at(self) -> float:
        return self.last_at + self.again_s


_NEVER = _Attempts()


class Demand(Component):
    """The demand for pods at one proxy.

    Args:
        plane: Tells it of clients that wait.
        is_allowed: Whether it may have workloads scaled.
    """

    def __init__(
        self,
        plane: Plane,
        served_ports: ServedPorts,
        source: Source,
        *,
        is_allowed: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._served_ports = served_ports
        self._source = source
        self._is_allowed = is_allowed
        self._clock = clock
        self._needs: dict[ServiceKey, _Need] = {}
        self._attempts: dict[WorkloadKey, _Attempts] = {}
        self._news = asyncio.Event()
        plane.on_waits = self._note

    def services(self) -> Mapping[ServiceKey, int]:
        """Return the Services with demand: how many clients wait, at least 1."""
        now = self._clock()
        return {
            key: max(1, need.waiting(now))
            for key, need in self._needs.items()
            if now - need.waited_at < DEMAND_S
        }

    async def start(self, supervisor: Supervisor) -> None:
        """Follow the clients that wait."""
        supervisor.start("demand", self.run)

    def show(self, facts: StatusFacts) -> None:
        """Part of Component."""
        facts.demand = self.services()

    async def run(self) -> None:
        """Report demand, and wake workloads, until cancelled."""
        while True:
            next_at = self._clock() + _LOOK_S
            await self.look()
            rest_s = max(0.0, next_at - self._clock()) if self._needs else None
            try:
                async with asyncio.timeout(rest_s):
                    await self._news.wait()
            except TimeoutError:
                continue

    async def look(self) -> None:
        """Follow which clients wait; for a second, scale what is due for them.

        New demand ends it earlier: workloads that were never tried precede those that were.
        """
        self._news.clear()
        now = self._clock()
        due = self._follow(now)
        for key in sorted(due, key=self._precedence):
            await self._scale(key, due[key])
            if self._news.is_set() or self._clock() - now >= _LOOK_S:
                return

    def _follow(self, now: float) -> dict[WorkloadKey, list[ServedPort]]:
        """Follow which clients wait, and return the workloads that are to be scaled for them."""
        due: dict[WorkloadKey, list[ServedPort]] = {}
        for service, need in list(self._needs.items()):
            if need.waiting(now):
                need.waited_at = now
            elif now - need.waited_at >= DEMAND_S:
                del self._needs[service]
                continue
            served = need.port_without_endpoints()
            workload = _workload_of(served or next(reversed(need.ports)))
            if workload is None:
                continue
            attempts = self._attempts.get(workload)
            if served is None:
                if attempts is not None:
                    attempts.again_s = min(attempts.again_s, _AGAIN_S)
            elif now - need.waited_at < _LOOK_S:
                self._note_need(need, served, now)
                if not self._is_allowed:
                    served.wake_problem = f"{workload[1]} is needed, but {NOT_ALLOWED}"
                elif attempts is None or attempts.again_at <= now:
                    due.setdefault(workload, []).append(served)
                else:
                    served.wake_problem = attempts.problem
        for workload, attempts in list(self._attempts.items()):
            if workload not in due and attempts.again_at + _AGAIN_MAX_S <= now:
                del self._attempts[workload]
        return due

    def _note(self, group: Group) -> None:
        served = self._served_ports.of_group(group)
        if served is None:
            return
        now, key = self._clock(), served.plan.key.name.service
        need = self._needs.setdefault(key, _Need({}, now))
        need.ports.pop(served, None)
        need.ports[served] = None
        need.waited_at = now
        self._news.set()

    def _precedence(self, workload: WorkloadKey) -> tuple[float, float]:
        """Return the sort key of a workload: the fewest attempts first, then the longest due."""
        attempts = self._attempts.get(workload, _NEVER)
        return attempts.again_s, attempts.again_at

    def _note_need(self, need: _Need, served: ServedPort, now: float) -> None:
        """Record an Event, unless one was recorded within a minute."""
        if need.noted_at is not None and now - need.noted_at < _EVENT_S:
            return
        need.noted_at = now
        # Source: OpenShift's idler (unidler), which acts on Events of this reason.
        name = served.plan.key.name
        note = f"The service-port {name} needs pods."
        happening = Happening("NeedPods", "Wake", note, name.service, is_warning=False)
        self._source.record(happening)

    async def _scale(self, key: WorkloadKey, ports: list[ServedPort]) -> None:
        """Make an attempt to scale a workload, for these ports."""
        attempts = self._attempts.setdefault(key, _Attempts())
        attempts.last_at = self._clock()
        attempts.again_s = min(2 * attempts.again_s, _AGAIN_MAX_S) or _AGAIN_S
        namespace, workload = key
        try:
            async with asyncio.timeout(_AGAIN_S):
                attempts.problem = await self._source.wake(namespace, workload)
        except TimeoutError:
            attempts.problem = (
                f"cannot scale {workload}: the API server did not answer within {_AGAIN_S:g} s"
            )
        for served in ports:
            served.wake_problem = attempts.problem


def _workload_of(served: ServedPort) -> WorkloadKey | None:
    """Return the workload that the Service of a port names."""
    name, wake = served.plan.key.name, served.plan.serving.handling.wake
    return None if wake is None else (name.service.namespace, wake)
