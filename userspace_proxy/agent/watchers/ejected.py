"""Looks at endpoints that fail: ejected ones (``plane.ejected``), and silent ones of UDP."""

from __future__ import annotations

from ...model import Protocol, ServiceKey, SocketAddress
from ...plane import Group, Plane
from ...plane.ejected import EjectedEndpoints
from ...plane.silent_endpoints import SilentEndpoints
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
        """Look once a second."""
        supervisor.start("ejected", self.run)

    async def run(self) -> None:
        """Look, until cancelled."""
        while True:
            await pause(_LOOK_S)
            self._endpoints.look()
            self._silent.look(served.group for served in self._served_ports.of_udp)

    async def close(self) -> None:
        """End all probes."""
        self._endpoints.close()

    def _dropped_by(self, group: Group, endpoint: SocketAddress) -> str:
        served = self._served_ports.of_group(group)
        return "" if served is None else self._way.dropping_chain(endpoint, served.plan.protocol)

    def _probed_for(self, group: Group) -> ServiceKey | None:
        served = self._served_ports.of_group(group)
        if served is None or served.plan.protocol is not Protocol.TCP or not self._can_probe:
            return None
        return served.plan.key.name.service
