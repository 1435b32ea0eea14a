"""What each promise is told of one run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from userspace_proxy.model import SocketAddress
from userspace_proxy.model.serving import Serving

if TYPE_CHECKING:
    from ..clients import Client, Dial
    from ..datagrams import DatagramSocket
    from ..network import Address
    from ..services import Service
    from ..world import World


class Promise:
    """Something that users rely on; this one takes note of nothing."""

    name = ""

    def __init__(self, world: World) -> None:
        self.world = world
        self._judge = world.judgements
        self._looked_at = 0.0

    def check(self, is_right: bool, why: str) -> None:
        """Judge once."""
        self._judge.check(self.name, is_right, why)

    def is_due(self, every_s: float = 0.5) -> bool:
        """Return whether it is time for another look, until the data plane is closed."""
        now = self.world.timeline.now
        if now < self._looked_at + every_s or self.world.is_closed:
            return False
        self._looked_at = now
        return True

    def accepted(self, client: Client) -> None:
        """Take note that the node has accepted a client."""

    def chosen(self, client: Client, endpoint: SocketAddress) -> None:
        """Take note that an endpoint is about to be dialled for a client."""

    def dialled(self, client: Client, dial: Dial) -> None:
        """Take note of a dial, with its source."""

    def joined(self, client: Client) -> None:
        """Take note that an endpoint has answered a client."""

    def ended(self, client: Client) -> None:
        """Take note that a connection has ended, with the reason that its line of the log has."""

    def arrived(self, core: DatagramSocket | None, payload: bytes, *, is_taken: bool) -> None:
        """Take note that a datagram has reached the node; None: no socket takes it."""

    def connected(self, core: DatagramSocket, to: Address) -> None:
        """Take note of a new flow's socket."""

    def left(self, core: DatagramSocket, payload: bytes, to: Address, source: Address) -> None:
        """Take note that the node sends a datagram: to an endpoint, or to a client."""

    def reached(self, payload: bytes, to: Address, behaviour: str) -> None:
        """Take note of what a datagram meets at its endpoint."""

    def closed(self, core: DatagramSocket) -> None:
        """Take note that the node closes a socket."""

    def changing(self, service: Service, now: Serving) -> None:
        """Take note that a Service is about to be served in another way."""

    def turn_over(self) -> None:
        """Judge after each turn of the loop."""

    def all_read(self) -> None:
        """Judge when all is calm, and there was time to read all that was sent."""

    def all_ended(self) -> None:
        """Judge when all parties have ended, and there was time to pass that on."""

    def at_rest(self) -> None:
        """Judge when no deadline is left."""

    def all_removed(self) -> None:
        """Judge when no listener and no endpoint is left."""

    def all_closed(self) -> None:
        """Judge when the data plane is closed."""
