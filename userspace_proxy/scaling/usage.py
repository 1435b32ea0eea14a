"""Measures each Service's demand for pods, for the metric, JSON, Events and scaling.

    demand = waiting clients + open connections + live flows
             at least 1 until idle-after, or RECENT_S, has passed since the last client

Rule 1: new endpoints count as use, so pods stay for that time after they are scaled or replaced.
All endpoints count as use after a restart, or after the crash of a worker with endpoints, because
past use is unknown or unreported.
Rule 2: only Services that hold connections have demand: without pods, other Services refuse
clients.
Rule 3: the cost of a check depends on the changes; unchanged Service ports cost next to nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ..clocks import Clocks
from ..model import ServiceKey, SocketAddress
from .served import Served, ServedByName

RECENT_S = 90.0
"""How long demand lasts after the last client if ``idle-after`` isn't set: two polls of an
autoscaler."""


@dataclass(slots=True, eq=False)
class _Use:
    """The last observation of a Service port."""

    used_at: float
    """When the port was last used, in monotonic seconds."""
    revision: int = -1
    traffic: tuple[int, ...] = ()
    ended_workers: int = 0
    """The number of ended workers at the last check that found endpoints."""
    active: int = 0
    endpoints: frozenset[SocketAddress] = frozenset()


class Usage:
    """Clients' use of one proxy's Service ports."""

    def __init__(
        self, served_ports: ServedByName, clock: Callable[[], float] = Clocks.monotonic
    ) -> None:
        self._served_ports = served_ports
        self._clock = clock
        self._seen: dict[Served, _Use] = {}

    def demand(self) -> Mapping[ServiceKey, int]:
        """Return the demand of each Service that holds connections, 0 included.

        The demand is as current as the workers' reports.
        """
        now = self._clock()
        counts: dict[ServiceKey, int] = defaultdict(int)
        recent: set[ServiceKey] = set()
        for served in self._followed(now):
            seen, key = self._seen[served], served.plan.key.name.service
            counts[key] += seen.active + served.group.waiting(now).clients
            if now - seen.used_at < recent_s(served):
                recent.add(key)
        return {key: max(count, int(key in recent)) for key, count in counts.items()}

    def note(self, served: Served) -> None:
        """Record a client of a Service port that no worker has counted yet."""
        self._seen.setdefault(served, _Use(0.0)).used_at = self._clock()

    def look(self) -> None:
        """Update the usage of Service ports that hold connections; call it about once a second."""
        self._followed(self._clock())

    def _followed(self, now: float) -> list[Served]:
        holding = list(self._served_ports.holding)
        for served in holding:
            self._follow(served, now)
        if len(self._seen) > len(holding):
            self._seen = {served: self._seen[served] for served in holding}
        return holding

    def _follow(self, served: Served, now: float) -> None:
        group, seen = served.group, self._seen.get(served)
        if seen is None:
            seen = self._seen[served] = _Use(float("-inf"))
        was_active = seen.active
        if group.revision != seen.revision:
            seen.revision = group.revision
            totals, waits = group.totals(), group.counters.waits
            endpoints = frozenset(served.plan.serving.all_endpoints)
            if endpoints:
                seen.ended_workers = group.ended_workers
            bytes_ = totals.received_bytes, totals.sent_bytes
            traffic = totals.connections, *bytes_, waits.total, seen.ended_workers
            if traffic != (seen.traffic or (0,) * len(traffic)) or not endpoints <= seen.endpoints:
                seen.used_at = now
            seen.traffic, seen.active, seen.endpoints = traffic, totals.active, endpoints
        # A connection that ended since the last check counts until now.
        if was_active or seen.active or group.waiting(now).clients:
            seen.used_at = now


def recent_s(served: Served) -> float:
    """Return the seconds that demand lasts after the last client of a Service port."""
    idle_after_s = served.plan.serving.handling.idle_after_s
    return RECENT_S if idle_after_s is None else idle_after_s
