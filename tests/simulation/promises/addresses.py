"""An endpoint sees its client's address if the node preserves it, and otherwise the node's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..addresses import NODE_IPS
from ..routes import keeps_address
from .promise import Promise

if TYPE_CHECKING:
    from ..clients import Client, Dial
    from ..world import World


class Addresses(Promise):
    """Judges the source addresses of one run."""

    name = "addresses"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._keeps: dict[int, bool] = {}
        """Whether the Service preserved client addresses when each client was accepted."""

    def accepted(self, client: Client) -> None:
        """Record whether the client's Service preserves client addresses."""
        self._keeps[client.number] = client.service.serving.handling.keeps_clients

    def dialled(self, client: Client, dial: Dial) -> None:
        """Judge the source address of a dial."""
        world, own, source = self.world, client.party.own.ip, dial.core.local
        is_kept = self._keeps[client.number] and client.ip == own and world.plan.node.is_preserving
        is_kept = is_kept and keeps_address(own, dial.endpoint.ip)
        if source is None or source[0] in NODE_IPS:
            if not world.kernel.lacked("ports"):
                self.check(not is_kept, f"client {client.number} was dialled for from the node")
        else:
            is_right = is_kept and source[0] == own
            self.check(is_right, f"client {client.number} was dialled for from {source[0]}")
