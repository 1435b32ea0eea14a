"""Schedules the probes that decide paths: chooses which endpoints to probe, within a budget.

    every 1.5 s ──▶ due ──▶ a queue per Service ──namespaces, then Services, in turn──▶ begin
    begin ──answered──▶ 1.5 s
          └──silent───▶ 1.5, 3, 6 … 30 s

Rule 1: the budget limits how many probes begin per second, whatever the number of endpoints.
Rule 2: namespaces take turns, as do the Services of a namespace and the endpoints of a Service. An
endpoint therefore waits only if its namespace, or its Service within the namespace, uses more than
its share. An endpoint that several Services share takes the first available turn.
Rule 3: a namespace may have at most as many probes in progress as it leaves to other namespaces,
and a Service as many as it leaves to other Services of its namespace.
Rule 4: this module reads no clock and draws no random numbers: both are passed in.
"""

from __future__ import annotations

import heapq
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from ..model import ServiceKey, SocketAddress
from ..pacing import backoff_s
from ..shares import remove_from

EVERY_S = 1.5
"""The average interval of an endpoint's probes, in seconds."""
SILENT_S = 30.0
"""The longest average interval for a failing endpoint; each further failure doubles the
interval. 5,000 endpoints that never answer take a twelfth of the budget, and a recovery is noticed
within 40 s; until then, the Service takes the userspace path."""
PER_SECOND = 2_000
"""The maximum number of probes that begin in a second; a probe takes about 60 µs of a core."""
# Intervals are drawn from 2/3 to 4/3 of the average, so that nodes don't probe in step.
_LEAST, _SPREAD = 2 / 3, 2 / 3
# Probes that are due within this time begin together, so that one timer begins several probes.
GAP_S = 0.01
# The budget of this many seconds may be spent at once after a pause.
_BURST_S = 0.05


_Queue = OrderedDict[SocketAddress, None]


@dataclass(slots=True, eq=False)
class _Probed:
    """The probes of one endpoint, and the Services that request them."""

    failures: int = 0
    """The number of consecutive failed probes."""
    services: Counter[ServiceKey] = field(default_factory=Counter)
    """The Services with this endpoint, each with the number of its ports that use the endpoint."""
    at: float | None = None
    """Seconds of the caller's clock when the next probe is due; None while the endpoint waits for a
    turn or is being probed."""
    turn_of: ServiceKey | None = None
    """The Service whose turn is used for the current probe."""
    began_at: float | None = None
    """Seconds of the caller's clock when the last probe began; None before the first probe."""
    measured_s: float = 0.0
    """Seconds between the last two probes; 0 if there weren't two, or the last one failed."""


class ProbeSchedule:
    """The probed endpoints, each with the time of its next probe.

    Args:
        jitter: Returns a number of at least 0 and less than 1.
        every_s: See ``EVERY_S``.
        per_second: See ``PER_SECOND``.
    """

    def __init__(
        self,
        jitter: Callable[[], float],
        *,
        every_s: float = EVERY_S,
        per_second: int = PER_SECOND,
    ) -> None:
        self.per_second = per_second
        self._jitter = jitter
        self._every_s = every_s
        self._endpoints: dict[SocketAddress, _Probed] = {}
        self._heap: list[tuple[float, SocketAddress]] = []
        """Endpoints that aren't due yet, by due time; entries with an outdated time are ignored."""
        self._queues: OrderedDict[str, OrderedDict[ServiceKey, _Queue]] = OrderedDict()
        """Endpoints that wait for a turn, by namespace and Service: each waits in the queues of all
        its Services. No queue is empty."""
        self._under_way: Counter[ServiceKey | str] = Counter()
        """The number of probes in progress per Service, and per namespace."""
        self._burst = max(1.0, per_second * _BURST_S)
        self._left = self._burst
        """How many probes may begin now."""
        self._then = 0.0
        self._measured = 0
        self._measured_s = 0.0
        """The sum of the intervals of the endpoints counted in ``_measured``."""

    def __len__(self) -> int:
        return len(self._endpoints)

    def __contains__(self, endpoint: SocketAddress) -> bool:
        return endpoint in self._endpoints

    @property
    def interval_s(self) -> float:
        """The average interval between the last two probes of answering endpoints; 0 if unknown."""
        return self._measured_s / self._measured if self._measured else 0.0

    def add(self, endpoint: SocketAddress, service: ServiceKey) -> None:
        """Begin to probe an endpoint of a Service; the first probe is due immediately.

        Call it once for each port of the Service; :meth:`discard` undoes one call.
        """
        known = self._endpoints.get(endpoint)
        if known is None:
            known = self._endpoints[endpoint] = _Probed()
        known.services[service] += 1
        if known.services[service] > 1 or known.turn_of is not None:
            return
        # An endpoint that isn't on the heap is already in the queues of its other Services.
        among = (service,) if known.at is None else known.services
        known.at, known.failures = None, 0
        self._queue(endpoint, among)

    def discard(self, endpoint: SocketAddress, service: ServiceKey) -> None:
        """Stop probing an endpoint for a port of a Service."""
        known = self._endpoints[endpoint]
        known.services[service] -= 1
        if known.services[service]:
            return
        del known.services[service]
        self._drop(endpoint, service)
        if not known.services:
            del self._endpoints[endpoint]
            self._release(known)
            self._measure(known, 0.0)

    def take(self, now: float, room: int) -> list[SocketAddress]:
        """Take the endpoints to probe now; the caller calls :meth:`finished` for each of them.

        Args:
            room: The maximum number of endpoints to return.
        """
        earned = max(0.0, now - self._then) * self.per_second
        self._left = min(self._burst, self._left + earned)
        self._then = now
        self._queue_due(now)
        found: list[SocketAddress] = []
        most = min(room, int(self._left))
        at_bound = 0
        while self._queues and len(found) < most and at_bound < len(self._queues):
            namespace = next(iter(self._queues))
            self._queues.move_to_end(namespace)
            service = self._next_service(namespace, room - len(found))
            if service is None:
                at_bound += 1
                continue
            at_bound = 0
            endpoint = next(iter(self._queues[namespace][service]))
            self._begin(endpoint, service, now)
            found.append(endpoint)
        self._left -= len(found)
        return found

    def finished(self, endpoint: SocketAddress, now: float, *, has_failed: bool) -> None:
        """Schedule the next probe of an endpoint; no effect if it is no longer probed."""
        known = self._endpoints.get(endpoint)
        if known is None:
            return
        self._release(known)
        known.failures = known.failures + 1 if has_failed else 0
        if has_failed:
            self._measure(known, 0.0)
        interval_s = backoff_s(max(1, known.failures), self._every_s, SILENT_S)
        known.at = now + interval_s * (_LEAST + _SPREAD * self._jitter())
        heapq.heappush(self._heap, (known.at, endpoint))

    def next_at(self, now: float) -> float | None:
        """Return when to call :meth:`take`, on the clock of ``now``; None without a next probe."""
        if self._queues:
            return now + GAP_S
        return max(self._heap[0][0], now + GAP_S) if self._heap else None

    def _next_service(self, namespace: str, room: int) -> ServiceKey | None:
        """Choose a namespace's next Service, ending its turn; None if all have used their share."""
        left = room - self._under_way[namespace]
        services = self._queues[namespace]
        for _ in range(len(services) if left > 0 else 0):
            service = next(iter(services))
            services.move_to_end(service)
            if self._under_way[service] < left:
                return service
        return None

    def _queue_due(self, now: float) -> None:
        """Queue due endpoints for a turn of their Services."""
        while self._heap and self._heap[0][0] <= now:
            at, endpoint = heapq.heappop(self._heap)
            known = self._endpoints.get(endpoint)
            if known is not None and known.at == at:
                known.at = None
                self._queue(endpoint, known.services)

    def _queue(self, endpoint: SocketAddress, services: Iterable[ServiceKey]) -> None:
        """Queue an endpoint for a turn of any of these Services."""
        for service in services:
            services = self._queues.setdefault(service.namespace, OrderedDict())
            services.setdefault(service, OrderedDict())[endpoint] = None

    def _begin(self, endpoint: SocketAddress, service: ServiceKey, now: float) -> None:
        known = self._endpoints[endpoint]
        for sharing in known.services:
            self._drop(endpoint, sharing)
        known.turn_of = service
        self._under_way.update((service, service.namespace))
        if known.began_at is not None and not known.failures:
            self._measure(known, now - known.began_at)
        known.began_at = now

    def _drop(self, endpoint: SocketAddress, service: ServiceKey) -> None:
        services = self._queues.get(service.namespace, OrderedDict())
        if endpoint in services.get(service, ()):
            remove_from(services, service, endpoint)
            if not services:
                del self._queues[service.namespace]

    def _release(self, known: _Probed) -> None:
        """Record that the probe of an endpoint is no longer in progress."""
        if known.turn_of is not None:
            for whose in (known.turn_of, known.turn_of.namespace):
                self._under_way[whose] -= 1
                if not self._under_way[whose]:
                    del self._under_way[whose]
            known.turn_of = None

    def _measure(self, known: _Probed, interval_s: float) -> None:
        """Replace the measured interval of an endpoint; 0 removes it."""
        self._measured += bool(interval_s) - bool(known.measured_s)
        self._measured_s += interval_s - known.measured_s
        known.measured_s = interval_s
