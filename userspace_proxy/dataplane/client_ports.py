"""Allocates source ports to the sockets of one process that use client addresses.

    (client, port) ──▶ the endpoints that flows from there go to

The kernel keeps two TCP connections apart that begin at one port, and refuses a second one to
the same endpoint. For UDP it does neither: two sockets that are connected alike are both let be,
and one of them gets all answers. So this process keeps which flow goes where.

Rule 1: ports are taken in turn: one that was given back rests as long as all others are tried.
"""

from __future__ import annotations

import random

from ..model import SocketAddress
from ..policy.locality import FIRST_PORT, LAST_PORT


class ClientPorts:
    """The turn of ports, and the UDP flows from each.

    Args:
        first: The lowest.
        last: The highest.
    """

    def __init__(self, first: int = FIRST_PORT, last: int = LAST_PORT) -> None:
        self._first = first
        self._last = last
        self._port = random.randint(first, last)
        # Tuples: most have one endpoint, and a set is four times as large.
        self._endpoints: dict[tuple[str, int], tuple[SocketAddress, ...]] = {}

    def next(self) -> int:
        """Return the port whose turn it is."""
        self._port = self._port + 1 if self._port < self._last else self._first
        return self._port

    def random(self) -> int:
        """Return any port."""
        return random.randint(self._first, self._last)

    def endpoints(self, client: str, port: int) -> tuple[SocketAddress, ...]:
        """Return where this process's flows from a client's port go; empty: it has none."""
        return self._endpoints.get((client, port), ())

    def take(self, client: str, port: int, endpoint: SocketAddress) -> None:
        """Note a flow; none from there to that endpoint is noted yet."""
        self._endpoints[client, port] = (*self.endpoints(client, port), endpoint)

    def give(self, client: str, port: int, endpoint: SocketAddress) -> None:
        """Forget a flow; one that wasn't noted is no error."""
        left = tuple(known for known in self.endpoints(client, port) if known != endpoint)
        if left:
            self._endpoints[client, port] = left
        else:
            self._endpoints.pop((client, port), None)
