"""Which Services need pods, because their clients wait for an endpoint.

    a first client waits ──▶ Demand ──▶ Event NeedPods, again each minute
                                  ├──▶ metric and /api/v1/demand, until 90 s after the last wait
                                  └──▶ its workload is scaled from zero, where that is allowed

Rule 1: only Services that name a workload (annotation ``wake``) cause Events and are scaled.
Rule 2: an attempt to scale ends after 5 s; all that are due are made at the same time.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ..model import ServiceKey, Workload
from ..plane import Group, Plane
from ..sources import Happening, Source
from .served_ports import ServedPort, ServedPorts

DEMAND_S = 90.0
"""How long demand lasts after the last client has waited: until an autoscaler has looked twice."""
# Between two looks at clients that wait.
_LOOK_S = 1.0
# Between two attempts to scale a workload whose clients still wait.
_AGAIN_S = 5.0
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
    woken_at: float | None = None
    """When the last attempt to scale its workload began."""

    def waiting(self, now: float) -> int:
        """Return how many clients wait, as of the workers' last reports."""
        return sum(port.group.waiting(now).clients for port in self.ports if not port.is_retired)

    def port_without_endpoints(self) -> ServedPort | None:
        """Return the latest of those ports that has no usable endpoint on any node, if one has."""
        for port in reversed(self.ports):
            if not port.is_retired and port.plan.has_none:
                return port
        return None


class Demand:
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

    async def run(self) -> None:
        """Report demand, and wake workloads, until cancelled."""
        while True:
            self._news.clear()
            await self.look()
            try:
                async with asyncio.timeout(_LOOK_S if self._needs else None):
                    await self._news.wait()
            except TimeoutError:
                continue

    async def look(self) -> None:
        """Follow who waits, and do what is due for it."""
        now = self._clock()
        for key, need in list(self._needs.items()):
            if need.waiting(now):
                need.waited_at = now
            elif now - need.waited_at >= DEMAND_S:
                del self._needs[key]
        due = [need for need in self._needs.values() if now - need.waited_at < _LOOK_S]
        await asyncio.gather(*(self._ask(need, now) for need in due))

    def _note(self, group: Group) -> None:
        served = self._served_ports.of_group(group)
        if served is None:
            return
        now, key = self._clock(), served.plan.key.name.service
        need = self._needs.setdefault(key, _Need({}, now))
        need.ports.pop(served, None)
        need.ports[served] = None
        need.waited_at = now
        if need.woken_at is not None and now - need.woken_at >= _LOOK_S:
            # Clients that waited before have been served: this is a new demand.
            need.woken_at = None
        self._news.set()

    async def _ask(self, need: _Need, now: float) -> None:
        """Ask the cluster for pods of a Service that has none."""
        served = need.port_without_endpoints()
        workload = None if served is None else served.plan.handling.wake
        if served is None or workload is None:
            return
        if need.noted_at is None or now - need.noted_at >= _EVENT_S:
            need.noted_at = now
            self._record(served)
        if not self._is_allowed:
            served.wake_problem = f"{workload} is needed, but {NOT_ALLOWED}"
        elif need.woken_at is None or now - need.woken_at >= _AGAIN_S:
            need.woken_at = now
            namespace = served.plan.key.name.service.namespace
            served.wake_problem = await self._wake(namespace, workload)

    def _record(self, served: ServedPort) -> None:
        # Source: OpenShift's idler (unidler), which acts on Events of this reason.
        name = served.plan.key.name
        note = f"The service-port {name} needs pods."
        happening = Happening("NeedPods", "Wake", note, name.service, is_warning=False)
        self._source.record(happening)

    async def _wake(self, namespace: str, workload: Workload) -> str:
        try:
            async with asyncio.timeout(_AGAIN_S):
                return await self._source.wake(namespace, workload)
        except TimeoutError:
            return f"cannot scale {workload}: the API server did not answer within {_AGAIN_S:g} s"
