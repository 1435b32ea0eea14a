"""Allocates source ports to one process's sockets that use client addresses.

    (client, port) ──▶ the endpoints of flows from this address

The kernel distinguishes TCP connections from one port to different endpoints, and refuses a second
connection to the same endpoint. But it permits two UDP sockets between the same addresses, and one
of them gets all replies. So this process records its flows.

Rule 1: ports are used in turn, so a released port is reused only after all others.
"""

from __future__ import annotations

import random

from ..model import SocketAddress
from ..policy.locality import FIRST_PORT, LAST_PORT


class ClientPorts:
    """The next port, and the UDP flows from each; ``first`` and ``last`` are inclusive."""

    def __init__(self, first: int = FIRST_PORT, last: int = LAST_PORT) -> None:
        self._first = first
        self._last = last
        self._port = random.randint(first, last)
        # Tuples: most ports have one endpoint, and a set takes four times the memory.
        self._endpoints: dict[tuple[str, int], tuple[SocketAddress, ...]] = {}

    def next(self) -> int:
        self._port = self._port + 1 if self._port < self._last else self._first
        return self._port

    def random(self) -> int:
        return random.randint(self._first, self._last)

    def endpoints(self, client: str, port: int) -> tuple[SocketAddress, ...]:
        """Return the endpoints of this process's flows from a client's port."""
        return self._endpoints.get((client, port), ())

    def take(self, client: str, port: int, endpoint: SocketAddress) -> None:
        """Add a flow; it must be the first from this client's port to the endpoint."""
        self._endpoints[client, port] = (*self.endpoints(client, port), endpoint)

    def give(self, client: str, port: int, endpoint: SocketAddress) -> None:
        """Remove a flow. Idempotent."""
        left = tuple(known for known in self.endpoints(client, port) if known != endpoint)
        if left:
            self._endpoints[client, port] = left
        else:
            self._endpoints.pop((client, port), None)
