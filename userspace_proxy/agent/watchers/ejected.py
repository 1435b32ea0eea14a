"""Watches failing endpoints: ejected ones (``plane.ejected``), and silent ones of UDP.

    UDP clients of the last minute got no answer ──▶ which chain drops packets to the endpoint?

If a rule drops a datagram, the endpoint appears to be silent, and no probe can show more.

Rule 1: only Service ports whose clients got no answer in the last minute are checked.
Rule 2: a look asks at most ``QUESTIONS_MAX`` times, which takes 5 ms; the endpoints checked longest
ago come first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from ...clocks import Clocks
from ...model import Failure, Protocol, ServiceKey, SocketAddress
from ...model.node_network import DroppedBy
from ...plane import Group, Plane
from ...plane.ejected import QUESTIONS_MAX, EjectedEndpoints
from ...steering import Steering
from ..rounds.component import Component
from ..rounds.served_ports import ServedPorts
from ..rounds.tasks import Supervisor, pause

_LOOK_S = 1.0


class EjectionProbes(Component):
    """The ejected endpoints of one proxy; ``can_probe`` if they are dialled by address."""

    def __init__(self, plane: Plane, ports: ServedPorts, way: Steering, *, can_probe: bool) -> None:
        self._served_ports, self._can_probe = ports, can_probe
        self._way = way
        self._endpoints = EjectedEndpoints(plane, self._probed_for, dropped_by=self._dropped_by)
        self._silent = SilentEndpoints(self._dropped_by)

    async def start(self, supervisor: Supervisor) -> None:
        supervisor.start("ejected", self.run)

    async def run(self) -> None:
        while True:
            await pause(_LOOK_S)
            self._endpoints.look()
            self._silent.look(served.group for served in self._served_ports.of_udp)

    async def close(self) -> None:
        self._endpoints.close()

    def _dropped_by(self, group: Group, endpoint: SocketAddress) -> str:
        served = self._served_ports.of_group(group)
        return "" if served is None else self._way.dropping_chain(endpoint, served.plan.protocol)

    def _probed_for(self, group: Group) -> ServiceKey | None:
        served = self._served_ports.of_group(group)
        if served is None or served.plan.protocol is not Protocol.TCP or not self._can_probe:
            return None
        return served.plan.key.name.service


class SilentEndpoints:
    """The UDP endpoints of one proxy; its owner calls :meth:`look` once a second.

    Args:
        dropped_by: Returns which chain drops an endpoint's packets or answers; empty: none.
    """

    def __init__(
        self,
        dropped_by: Callable[[Group, SocketAddress], str],
        clock: Callable[[], float] = Clocks.monotonic,
    ) -> None:
        self._dropped_by = dropped_by
        self._clock = clock
        self._asked_at: dict[tuple[Group, SocketAddress], float] = {}
        """When silent endpoints were last checked; absent: never."""

    def look(self, groups: Iterable[Group]) -> None:
        """Note which chain drops packets of silent endpoints, and which endpoints answer.

        Args:
            groups: The groups of all UDP Service ports.
        """
        now = self._clock()
        silent = [
            (group, endpoint)
            for group in groups
            if group.last_minute.failing(now).unanswered
            for endpoint, counters in group.each_counters()
            if counters.ends.is_on
            and counters.ends.part.failure is Failure.NO_DATAGRAM
            and not counters.dials.is_on
        ]
        self._forget(self._asked_at.keys() - {*silent})
        silent.sort(key=lambda one: self._asked_at.get(one, 0.0))
        for group, endpoint in silent[:QUESTIONS_MAX]:
            self._asked_at[group, endpoint] = now
            chain = self._dropped_by(group, endpoint)
            group.note_obstacle(endpoint, DroppedBy(chain) if chain else None, "answers")

    def _forget(self, others: Iterable[tuple[Group, SocketAddress]]) -> None:
        for group, endpoint in others:
            del self._asked_at[group, endpoint]
            group.note_obstacle(endpoint, None, "answers")
