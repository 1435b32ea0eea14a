"""``sessionAffinity: ClientIP``: remembers which endpoint served which client."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Container, Iterable

from ..model import SocketAddress

Pin = tuple[str, SocketAddress, float]
"""A client, its endpoint, and the seconds since the pin was used."""

# A pin is about 300 bytes: 20 MB for a Service port with the clients of a whole /16.
MAX_CLIENTS = 65536


class AffinityTable:
    """The pins of one Service port, the longest unused first.

    Args:
        timeout_s: Seconds from the last use until a pin is forgotten.
        max_clients: A new client beyond this replaces the longest unused.
    """

    def __init__(self, timeout_s: float, max_clients: int = MAX_CLIENTS) -> None:
        self.timeout_s = timeout_s
        self._max_clients = max_clients
        self._pins: OrderedDict[str, tuple[SocketAddress, float]] = OrderedDict()

    def list(self, now: float) -> list[Pin]:
        """Return all pins, the longest unused first; some may have timed out."""
        return [(client, endpoint, now - used) for client, (endpoint, used) in self._pins.items()]

    def restore(self, pins: Iterable[Pin], now: float) -> None:
        """Add pins of a former process, except for clients that have one; longest unused first."""
        present = self._pins
        self._pins = OrderedDict()
        for client, endpoint, age_s in pins:
            self.pin(client, endpoint, now - age_s)
        for client, (endpoint, used) in present.items():
            self.pin(client, endpoint, used)

    def __len__(self) -> int:
        return len(self._pins)

    def lookup(
        self, client: str, usable: Container[SocketAddress], now: float
    ) -> SocketAddress | None:
        """Return the client's endpoint, without counting as a use.

        Returns:
            None for a client without a pin, whose pin has timed out, or whose endpoint is no
            longer usable.
        """
        pin = self._pins.get(client)
        if pin is None:
            return None
        endpoint, used = pin
        if now - used >= self.timeout_s or endpoint not in usable:
            del self._pins[client]
            return None
        return endpoint

    def pin(self, client: str, endpoint: SocketAddress, now: float) -> None:
        """Remember the choice for a client, or that it was used again."""
        self._pins[client] = (endpoint, now)
        self._pins.move_to_end(client)
        if len(self._pins) > self._max_clients:
            self._pins.popitem(last=False)
