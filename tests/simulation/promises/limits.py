"""An endpoint has no more connections than its Service says, and no more clients wait for one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from userspace_proxy.model import SocketAddress

from ..sockets import core_of
from .promise import Promise

if TYPE_CHECKING:
    from ..clients import Client
    from ..datagrams import DatagramSocket
    from ..network import Address
    from ..world import World

_CHECK_EVERY_S = 0.5


class Limits(Promise):
    """The promise of one run."""

    name = "limits"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._looked_at = 0.0

    def chosen(self, client: Client, endpoint: SocketAddress) -> None:
        """Judge whether there is room at an endpoint, before it is dialled."""
        service = client.service
        if service.limit is not None and not self.world.is_closed:
            taken = sum(
                other.at == endpoint and (other.is_joined or other.chosen_at > service.changed_at)
                for other in self.world.clients_seen.open
                if other is not client and other.service is service
            )
            why = f"{endpoint} has {taken} connections, and gets that of client {client.number}"
            self.check(taken < service.limit, why)

    def connected(self, core: DatagramSocket, to: Address) -> None:
        """Judge the number of flows to an endpoint."""
        endpoint = SocketAddress(*to)
        for service in self.world.services:
            if service.is_udp and endpoint in service.planned.pool and service.limit is not None:
                closing = {core_of(sock) for sock in self.world.reactor._late}
                flows = [flow for flow in self.world.flows.to(to) if flow.core not in closing]
                why = f"{endpoint} has {len(flows)} flows, and gets another one"
                self.check(len(flows) <= service.limit, why)

    def turn_over(self) -> None:
        """Judge how many clients wait, twice a second."""
        world = self.world
        now = world.timeline.now
        if now < self._looked_at + _CHECK_EVERY_S or world.is_closed:
            return
        self._looked_at = now
        for service in world.services:
            room, hold = service.group.waiting_room, service.serving.handling.waits
            if room is None or hold is None:
                continue
            # Those that waited before a change may stay for as long.
            until = service.changed_at + hold.seconds + 1.0
            if now > until + world.stopped_since(service.changed_at):
                why = f"{len(room)} clients wait, not {service.places}"
                self.check(len(room) <= service.places, why)
