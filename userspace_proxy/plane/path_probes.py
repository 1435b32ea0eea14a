"""Probes endpoints over TCP, to decide between the kernel path and the userspace path.

    schedule ──due──▶ connect ──answered, refused, unreachable, 1 s of silence──▶ note, next time

Rule 1: there is no task per endpoint: one timer begins probes, and one epoll reports their results.
Rule 2: the listening program never notices a probe: servers log, count and block clients that
connect and send nothing.
Rule 3: a probe that fails for lack of local resources proves nothing about the endpoint.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Callable

from ..dataplane.probes import ProbeDials
from ..dataplane.reactor import Reactor
from ..model import DialFailure, ServiceKey, SocketAddress
from ..model.failures import SHORTAGES
from .probe_schedule import ProbeSchedule

Note = Callable[[SocketAddress, DialFailure | None], None]
"""Called with an endpoint and the failure of its probe, or None if the endpoint answered."""

DEADLINE_S = 1.0
MAX_UNDER_WAY = 512
"""The maximum number of probes in progress. A namespace may use at most as many as it leaves to
other namespaces, so a single namespace uses up to 256."""


class PathProbes:
    """The probes of one proxy, in the event loop in which the first endpoint is added.

    Args:
        schedule: Decides when to probe; None for a schedule with the default budget.
    """

    def __init__(self, note: Note, schedule: ProbeSchedule | None = None) -> None:
        self.sent = 0
        self.failed = 0
        """The number of failed probes, except for lack of local resources."""
        self.schedule = ProbeSchedule(random.random) if schedule is None else schedule
        self._note = note
        self.is_open = False
        self._reactor: Reactor
        self._dials: ProbeDials
        self._timer: asyncio.Handle | None = None
        """The timer that begins the next probes."""
        self._timer_at = math.inf
        """When the timer fires, in seconds of the reactor's clock."""
        self._is_soon = False
        """Whether the timer fires in the next iteration of the loop."""

    def add(self, endpoint: SocketAddress, service: ServiceKey) -> None:
        """Begin to probe a Service's endpoint; :meth:`discard` undoes one call."""
        if not self.is_open:
            self._reactor = Reactor(asyncio.get_running_loop())
            self._dials = ProbeDials(self._reactor, DEADLINE_S, self._ended)
            self.is_open = True
        self.schedule.add(endpoint, service)
        self._begin_soon()

    def discard(self, endpoint: SocketAddress, service: ServiceKey) -> None:
        """Undo one call of :meth:`add`; ``note`` isn't called once all calls are undone."""
        self.schedule.discard(endpoint, service)
        if endpoint not in self.schedule:
            self._dials.stop(endpoint)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self.is_open:
            self._dials.close()
            self._reactor.close()

    def _begin_soon(self) -> None:
        if not self._is_soon:
            if self._timer is not None:
                self._timer.cancel()
            self._is_soon, self._timer_at = True, -math.inf
            self._timer = self._reactor.loop.call_soon(self._begin_due)

    def _begin_due(self) -> None:
        self._is_soon = False
        now = self._reactor.clock()
        for endpoint in self.schedule.take(now, MAX_UNDER_WAY - len(self._dials)):
            if failed := self._dials.begin(endpoint):
                self._take(endpoint, failed, now)
        self._timer, self._timer_at = None, math.inf
        self._sleep(now)

    def _sleep(self, now: float) -> None:
        """Move the timer to the next due probe if the probe is due earlier."""
        at = self.schedule.next_at(now)
        if at is not None and at < self._timer_at:
            if self._timer is not None:
                self._timer.cancel()
            self._timer, self._timer_at = (
                self._reactor.loop.call_later(at - now, self._begin_due),
                at,
            )

    def _ended(self, endpoint: SocketAddress, failed: DialFailure | None) -> None:
        self._take(endpoint, failed, self._reactor.clock())

    def _take(self, endpoint: SocketAddress, failed: DialFailure | None, now: float) -> None:
        is_shortage = failed is not None and failed.failure in SHORTAGES
        self.schedule.finished(endpoint, now, has_failed=failed is not None and not is_shortage)
        self._sleep(now)
        if is_shortage:
            return
        self.sent += 1
        self.failed += failed is not None
        self._note(endpoint, failed)
