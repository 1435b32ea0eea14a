"""Endpoints and queues keep within the Service's limits on connections and waiting clients."""

from __future__ import annotations

from typing import TYPE_CHECKING

from userspace_proxy.model import SocketAddress

from .promise import Promise

if TYPE_CHECKING:
    from ..clients import Client
    from ..datagrams import DatagramSocket
    from ..network import Address


class Limits(Promise):
    """Judges the limits of one run."""

    name = "limits"

    def chosen(self, client: Client, endpoint: SocketAddress) -> None:
        """Check before a dial that the endpoint has room."""
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
        """Check that the number of flows to an endpoint is within the limit."""
        endpoint = SocketAddress(*to)
        for service in self.world.services:
            if service.is_udp and endpoint in service.planned.pool and service.limit is not None:
                closing = {self.world.kernel.files.get(fd) for fd in self.world.reactor._late}
                flows = [flow for flow in self.world.flows.to(to) if flow.core not in closing]
                why = f"{endpoint} has {len(flows)} flows, and gets another one"
                self.check(len(flows) <= service.limit, why)

    def turn_over(self) -> None:
        """Check the number of waiting clients twice a second."""
        if not self.is_due():
            return
        world, now = self.world, self._looked_at
        for service in world.services:
            room, hold = service.group.waiting_room, service.serving.handling.waits
            if room is None or hold is None:
                continue
            # Clients that waited before the limit changed may wait until their hold ends.
            until = service.changed_at + hold.seconds + 1.0
            if now > until + world.stopped_since(service.changed_at):
                why = f"{len(room)} clients wait, not {service.places}"
                self.check(len(room) <= service.places, why)
