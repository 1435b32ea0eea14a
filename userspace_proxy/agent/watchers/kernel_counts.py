"""Counts the connections that the kernel forwards to endpoints, or refuses, per Service port.

    metrics, page, JSON ──refresh──▶ steering reads the kernel's counters ──▶ ServedPort.path

Rule 1: counters are read on request, never by a timer.
Rule 2: readings take at most a twentieth of a thread's time, regardless of the number of Services;
a reading for 10,000 Services takes 20 to 30 ms.
Rule 3: growth since the last reading counts for the Service port that has the frontend now.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from ...causes.services import dials_other_port
from ...clocks import Clocks
from ...errors import SteeringError
from ...facts import StatusFacts
from ...model import Frontend, FrontendKind, PortKey
from ...steering import Steering
from ..rounds.component import Component
from ..rounds.served_port import ServedPort
from ..rounds.served_ports import ServedPorts
from ..rounds.tasks import SharedReading

_WAIT_S = 1.0


def _unused_last(served: ServedPort) -> tuple[bool, PortKey]:
    return not served.group.has_counted, served.plan.key


class KernelCounts(Component):
    """Counts connections on the kernel path of one proxy's Service ports."""

    def __init__(
        self,
        steering: Steering,
        served_ports: ServedPorts,
        clock: Callable[[], float] = Clocks.monotonic,
    ) -> None:
        self.total: int | None = None
        """The connections of all Service ports; None if they aren't counted. Connections of removed
        ports since the last reading are missing."""
        self._steering = steering
        self._served_ports = served_ports
        self._before: Mapping[Frontend, int] = {}
        self._has_others = False
        self._reading = SharedReading(self._read, clock)

    def show(self, facts: StatusFacts) -> None:
        facts.totals.kernel_connections = self.total

    async def refresh(self) -> None:
        await self._reading.refresh()

    async def _read(self) -> None:
        try:
            async with asyncio.timeout(_WAIT_S):
                counts = await self._steering.kernel_connections()
                others = await self._steering.other_ports()
        except SteeringError:
            # The next repair will also fail and report the error, so don't report it twice.
            return
        except TimeoutError:
            # Show the last counts, because the steering thread is busy with rules.
            return
        if others or self._has_others:
            self._note_others(others)
        if counts is None:
            self._forget()
        else:
            self._note(counts)

    def _note(self, counts: Mapping[Frontend, int]) -> None:
        before, self._before = self._before, counts
        grown = {
            # The counter of a frontend that was removed and added in between begins at 0.
            frontend: count - known if (known := before.get(frontend, 0)) <= count else count
            for frontend, count in counts.items()
            if count != before.get(frontend, 0)
        }
        self.total = (self.total or 0) + sum(grown.values())
        for served in self._served_ports:
            if served.was_in_kernel:
                more = sum(grown.get(f, 0) for f in served.plan.frontends) if grown else 0
                had = served.path.kernel_connections
                if more or had is None:
                    served.path = served.path._replace(kernel_connections=(had or 0) + more)

    def _note_others(self, others: Mapping[Frontend, int]) -> None:
        """Attribute dials of ports that a ClusterIP lacks to one of its ports, a used one first."""
        self._has_others = bool(others)
        by_ip: dict[str, list[Frontend]] = {}
        for frontend in sorted(others):
            by_ip.setdefault(frontend.ip, []).append(frontend)
        for served in sorted(self._served_ports, key=_unused_last):
            of_ip = (f.ip for f in served.plan.frontends if f.kind is FrontendKind.CLUSTER_IP)
            ip = next(of_ip, "")
            served.other_ports = None
            if dialled := by_ip.pop(ip, None):
                ports = self._served_ports.of_service(served.plan.key.name.service)
                has = sorted(f for one in ports for f in one.plan.frontends if f.ip == ip)
                cause = dials_other_port(tuple(map(str, dialled)), tuple(map(str, has)))
                served.other_ports = cause.replace(count=sum(others[one] for one in dialled))

    def _forget(self) -> None:
        self.total = None
        for served in self._served_ports:
            if served.path.kernel_connections is not None:
                served.path = served.path._replace(kernel_connections=None)
