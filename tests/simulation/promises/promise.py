"""The base class of guarantees' judges: the events that they receive during a run."""

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
    """Judges a guarantee to users; the methods of this base class do nothing."""

    name = ""

    def __init__(self, world: World) -> None:
        self.world = world
        self._judge = world.judgements
        self._looked_at = 0.0

    def check(self, is_right: bool, why: str) -> None:
        """Count one judgement, and record a violation unless it is right."""
        self._judge.check(self.name, is_right, why)

    def is_due(self, every_s: float = 0.5) -> bool:
        """Return whether a periodic check is due, and if so, begin its next period."""
        now = self.world.timeline.now
        if now < self._looked_at + every_s or self.world.is_closed:
            return False
        self._looked_at = now
        return True

    def accepted(self, client: Client) -> None:
        """Called when the node has accepted a client."""

    def chosen(self, client: Client, endpoint: SocketAddress) -> None:
        """Called when an endpoint is about to be dialled for a client."""

    def dialled(self, client: Client, dial: Dial) -> None:
        """Called when a client's endpoint is dialled, with the dial's source."""

    def joined(self, client: Client) -> None:
        """Called when an endpoint has answered a client."""

    def ended(self, client: Client) -> None:
        """Called when a connection was closed, with the logged reason."""

    def arrived(self, core: DatagramSocket | None, payload: bytes, *, is_taken: bool) -> None:
        """Called when a datagram has reached the node; ``core`` is None if no socket gets it."""

    def connected(self, core: DatagramSocket, to: Address) -> None:
        """Called with a new flow's socket and its destination."""

    def left(self, core: DatagramSocket, payload: bytes, to: Address, source: Address) -> None:
        """Called when the node sends a datagram to an endpoint or a client."""

    def reached(self, payload: bytes, to: Address, behaviour: str) -> None:
        """Called with an endpoint's reaction to a datagram."""

    def closed(self, core: DatagramSocket) -> None:
        """Called when the node closes a datagram socket."""

    def changing(self, service: Service, now: Serving) -> None:
        """Called before a Service's settings or endpoints change."""

    def turn_over(self) -> None:
        """Called after each turn of the loop."""

    def all_read(self) -> None:
        """Called when a run was calm for long enough to read all sent bytes."""

    def all_ended(self) -> None:
        """Called when all parties have closed, and there was time to pass that on."""

    def at_rest(self) -> None:
        """Called when no deadline is left."""

    def all_removed(self) -> None:
        """Called when no listener and no endpoint is left."""

    def all_closed(self) -> None:
        """Called when the data plane is closed."""
