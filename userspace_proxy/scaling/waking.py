"""Scales workloads from zero while clients of their Services wait for an endpoint.

    a first client waits ──▶ Waking ──▶ Event NeedPods, repeated each minute
                                  └──▶ its workload is scaled from zero, if that is allowed

``usage`` defines demand and how long it lasts.

Rule 1: only Services that name a workload (annotation ``wake``) cause Events and are scaled.
Rule 2: attempts to scale run one at a time, so they share a connection to the API server; each
attempt ends after 5 s. Attempts are ``_APART_S`` apart, and namespaces take turns.
Rule 3: no workload is woken while its pods may be about to terminate (``cordons``).
Rule 4: while a workload's Services have no endpoint, each attempt doubles the time to the next.
Rule 5: only a Service that selects the workload's pods may have it scaled (``rights``). Attempts
for other Services are counted separately, so they don't delay attempts that are allowed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter
from typing import NamedTuple

from ..clocks import Clocks
from ..model import ServiceKey, Workload
from ..pacing import backoff_s
from ..plane import Group, Plane
from ..sources import Happening, Source
from ..sources.base import Pause, pause
from ..turns import Turns
from .cordons import Cordons
from .rights import Selector, Services, refusal_reason, selector_of
from .served import Served, ServedByName, WorkloadKey, workload_of
from .usage import RECENT_S, Usage

# The interval between two checks for waiting clients.
_LOOK_S = 1.0
# The interval while the pods of a workload that was scaled to zero are terminating.
_ENDING_S = 0.1
# The interval between the starts of two attempts, each of at most two requests: 12 requests a
# second, and 16 with Events, however many workloads are needed.
_APART_S = 1 / 6
# The interval between the first two attempts to scale a workload whose clients still wait.
_AGAIN_S = 5.0
# The longest time between two attempts: a newly granted permission is noticed within a minute, and
# 300 workloads that can't be scaled cost 5 requests a second.
_AGAIN_MAX_S = 60.0
_EVENT_S = 60.0
NOT_ALLOWED = "it isn't scaled by this proxy, which needs --allow-wake for that"


@dataclass(slots=True, eq=False)
class _Need:
    """A Service whose clients wait, or waited a moment ago."""

    ports: dict[Served, None]
    """Its Service ports whose clients have waited, the latest last."""
    waited_at: float
    """When a client was last known to wait, in monotonic seconds."""
    noted_at: float | None = None
    """When the last Event was recorded, in monotonic seconds; None before the first Event."""

    def waiting(self, now: float) -> int:
        """Return the number of waiting clients, as of the workers' last reports."""
        return sum(port.group.waiting(now).clients for port in self.ports if not port.is_retired)

    def port_without_endpoints(self) -> Served | None:
        """Return the port whose client waited last and that has no usable endpoint, or None."""
        for port in reversed(self.ports):
            if not port.is_retired and port.group.serving.has_none:
                return port
        return None


class _Claim(NamedTuple):
    """A workload, and the selector of the Services that name it."""

    namespace: str
    workload: Workload
    selector: Selector

    @property
    def key(self) -> WorkloadKey:
        return self.namespace, self.workload


@dataclass(slots=True, eq=False)
class _Attempts:
    """The attempts to scale a claim's workload."""

    number: int = 0
    """The number of consecutive attempts; at most 1 once a Service has had an endpoint."""
    last_at: float = 0.0
    """When the last attempt began, in monotonic seconds."""
    problem: str = ""
    """Why the last attempt failed; empty if it succeeded."""

    @property
    def again_s(self) -> float:
        """Seconds from the last attempt to the next; 0 before the first attempt."""
        return backoff_s(self.number, _AGAIN_S, _AGAIN_MAX_S)

    @property
    def again_at(self) -> float:
        return self.last_at + self.again_s


_NEVER = _Attempts()


class Waking:
    """Scales up workloads, and records Events, for clients of one proxy that wait for pods.

    Args:
        plane: Reports clients that begin to wait.
        services: Returns all Services of the cluster.
        usage: Records clients that begin to wait.
        is_allowed: Whether this proxy may scale workloads.
    """

    def __init__(
        self,
        plane: Plane,
        served_ports: ServedByName,
        source: Source,
        services: Callable[[], Services],
        usage: Usage,
        cordons: Cordons,
        *,
        is_allowed: bool,
        clock: Callable[[], float] = Clocks.monotonic,
        pause: Pause = pause,
    ) -> None:
        self._served_ports = served_ports
        self._source = source
        self._services = services
        self._usage = usage
        self._cordons = cordons
        self._is_allowed = is_allowed
        self._clock = clock
        self._pause = pause
        self._needs: dict[ServiceKey, _Need] = {}
        self._attempts: dict[_Claim, _Attempts] = {}
        self._turns = Turns[str]()
        """The turns of the namespaces."""
        self._look_took_s = 0.0
        """Seconds that the last check took to find due workloads."""
        self._next_at = 0.0
        """When the next attempt may begin, in monotonic seconds."""
        self._waits_for_ends = False
        """Whether the pods of a needed workload are about to terminate."""
        self._news = asyncio.Event()
        plane.on_waits = self._note

    async def run(self) -> None:
        """Report needs, and wake workloads, until cancelled."""
        while True:
            began = self._clock()
            await self.look()
            if self._look_took_s:
                # Clients that begin to wait during a check share the next check.
                await self._pause(self._look_took_s)
            next_at = began + (_ENDING_S if self._waits_for_ends else _LOOK_S)
            rest_s = max(0.0, next_at - self._clock()) if self._needs else None
            try:
                async with asyncio.timeout(rest_s):
                    await self._news.wait()
            except TimeoutError:
                continue

    def hurry(self, service: ServiceKey) -> None:
        """If a Service's clients wait, make the next attempt at once: its workload is at zero."""
        if (need := self._needs.get(service)) is not None:
            for served in need.ports:
                if (claim := self._claim_of(served)) is not None:
                    self._attempts.pop(claim, None)
            self._news.set()

    async def look(self) -> None:
        """Update the waiting clients, and scale due workloads for up to a second.

        A new need ends the call earlier: within a namespace, workloads that were never tried come
        first.
        """
        self._news.clear()
        now = self._clock()
        due = self._follow(now)
        self._look_took_s = self._clock() - now
        order = self._turns.order(sorted(due, key=self._precedence), attrgetter("namespace"))
        for _ in due:
            if (wait_s := self._next_at - self._clock()) > 0:
                await self._pause(wait_s)
                if self._news.is_set():
                    return
            claim = next(order)
            await self._scale(claim, due[claim])
            if self._news.is_set() or self._clock() - now >= _LOOK_S:
                return

    def _claim_of(self, served: Served) -> _Claim | None:
        """Return the claim of a port's Service; None if it names no workload."""
        if (workload := workload_of(served)) is None:
            return None
        return _Claim(*workload, selector_of(self._services(), served.plan.key.name.service))

    def _follow(self, now: float) -> dict[_Claim, list[Served]]:
        """Update the waiting clients; return the claims to scale for them, each with its ports."""
        due: dict[_Claim, list[Served]] = {}
        self._waits_for_ends = False
        for service, need in list(self._needs.items()):
            if need.waiting(now):
                need.waited_at = now
            elif now - need.waited_at >= RECENT_S:
                del self._needs[service]
                continue
            served = need.port_without_endpoints()
            claim = self._claim_of(served or next(reversed(need.ports)))
            if claim is None:
                continue
            attempts = self._attempts.get(claim)
            if served is None:
                if attempts is not None:
                    attempts.number = min(attempts.number, 1)
            elif self._cordons.are_pods_ending(claim.key):
                self._waits_for_ends = True
            elif now - need.waited_at < _LOOK_S:
                self._note_need(need, served, now)
                if not self._is_allowed:
                    served.wake_problem = f"{claim.workload} is needed, but {NOT_ALLOWED}"
                elif attempts is None or attempts.again_at <= now:
                    due.setdefault(claim, []).append(served)
                else:
                    served.wake_problem = attempts.problem
        self._attempts = {
            claim: attempts
            for claim, attempts in self._attempts.items()
            if claim in due or attempts.again_at + _AGAIN_MAX_S > now
        }
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
        self._usage.note(served)
        self._news.set()

    def _precedence(self, claim: _Claim) -> tuple[float, float]:
        """Return a claim's sort key: fewest attempts first, then longest due."""
        attempts = self._attempts.get(claim, _NEVER)
        return attempts.again_s, attempts.again_at

    def _note_need(self, need: _Need, served: Served, now: float) -> None:
        """Record an Event unless one was recorded within the last minute."""
        if need.noted_at is not None and now - need.noted_at < _EVENT_S:
            return
        need.noted_at = now
        # Source: OpenShift's unidling controller, which acts on Events with this reason.
        name = served.plan.key.name
        note = f"The service-port {name} needs pods."
        happening = Happening("NeedPods", "Wake", note, name.service, is_warning=False)
        self._source.record(happening)

    async def _scale(self, claim: _Claim, ports: list[Served]) -> None:
        """Attempt to scale a claim's workload on behalf of these ports."""
        attempts = self._attempts.setdefault(claim, _Attempts())
        attempts.last_at = self._clock()
        self._next_at = attempts.last_at + _APART_S
        attempts.number += 1
        namespace, workload, selector = claim
        try:
            async with asyncio.timeout(_AGAIN_S):
                attempts.problem = await self._source.wake(
                    namespace,
                    workload,
                    lambda labels: refusal_reason(selector, workload, labels) or None,
                )
        except TimeoutError:
            attempts.problem = (
                f"cannot scale {workload}: the API server did not answer within {_AGAIN_S:g} s"
            )
        for served in ports:
            served.wake_problem = attempts.problem
        if not attempts.problem:
            self._cordons.note_woken(claim.key)
