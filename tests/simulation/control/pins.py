"""What must last over a hand-over: pins of clients with affinity, and the socket that is kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

from userspace_proxy.model import SocketAddress

from .calm import UNORDERED
from .clients import Asker, Client
from .plan import MANY

if TYPE_CHECKING:
    from .world import World

KEPT = "pins last"
SOCKET = "the socket is kept"


class Pins:
    """The oracle of one run that compares clients in calm before and after a hand-over."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._pins: dict[tuple[SocketAddress, str], str] = {}
        """By address and client: the endpoint that it had in calm."""
        self._unordered: set[SocketAddress] = set()
        """Where such a client may have had others at other addresses, by other workers."""
        self._kept = 0
        """The number of the socket that workers keep."""

    def note(self) -> None:
        """Note which endpoints clients in calm had."""
        world = self._world
        self._pins = {(one.to, one.address[0]): one.endpoint for one in self._in_calm()}
        self._unordered = {
            one.to
            for one in self._in_calm()
            if world.calm.are_unordered(one, *world.calm.other_addresses(one))
        }
        if world.control is not None:
            self._kept = world.control.kept.core.shared.cookie

    def _in_calm(self) -> list[Client | Asker]:
        return [*self._world.calm.clients, *self._world.calm.askers]

    def check(self) -> None:
        """Check that clients of a Service with affinity have the same endpoints again.

        The socket that was kept must be the same, too.
        """
        world = self._world
        if world.control is not None:
            is_same = world.control.kept.core.shared.cookie == self._kept
            world.judgements.check(SOCKET, is_same, "the socket that workers kept was lost")
        if world.plan.descriptors < MANY:
            # A worker with more sockets than there is room for isn't adopted, nor are its pins.
            return
        for one in self._in_calm():
            serving = world.in_force.at(one.to)
            before = self._pins.get((one.to, one.address[0]), "")
            if serving is None or not serving.affinity_timeout_s or not before:
                continue
            if one.endpoint != before and one.to in self._unordered:
                world.judgements.excuse(KEPT, UNORDERED)
                continue
            world.judgements.check(
                KEPT,
                one.endpoint == before,
                f"a client of {one.to} had {before}, and has {one.endpoint} after a hand-over",
            )
