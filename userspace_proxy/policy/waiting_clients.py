"""Orders the waiting clients of one waiting room, and finds the client with the most places.

    add ──▶ waits for any endpoint, or ``at_limit`` ──turn──▶ ``dialled`` ──remove──▶
              ▲                                                   │
              └──────────────────────wait─────────────────────────┘

    clients by number of places      3: {10.0.0.7}   1: {10.0.0.8, fd00::8, fd00::9}
    networks by number of places     3: {10.0.0.7}   2: {fd00::/64}   1: {10.0.0.8}

Rule 1: a client is an IP address, as in ``shares``; each waiting connection has a place.
Rule 2: in a full room, a new place replaces a place of the largest client if that client exceeds
its share, otherwise of the largest client of the largest network (an IPv4 address, an IPv6 /64).
Each change updates the counts, so a new client costs no pass over a full room of 100,000.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Iterator
from itertools import islice
from typing import Generic, TypeVar

from ..shares import BySize, remove_from
from .shares import HasClient, client_share, network_of

W = TypeVar("W", bound=HasClient)


class WaitingClients(Generic[W]):
    """The places of one waiting room, the longest waiting first."""

    def __init__(self) -> None:
        self.at_limit: set[W] = set()
        """Places of clients that wait for an endpoint at its limit."""
        self.dialled: set[W] = set()
        """Places for which an endpoint is being dialled; none of them is ``at_limit``."""
        self._since: OrderedDict[W, float] = OrderedDict()
        self._places: dict[str, OrderedDict[W, None]] = {}
        self._clients = BySize[str]()
        self._networks = BySize[str | bytes]()
        self._clients_in = defaultdict[bytes, BySize[str]](BySize)
        """The clients of each IPv6 network; an IPv4 network is one client."""

    def __len__(self) -> int:
        return len(self._since)

    def __iter__(self) -> Iterator[W]:
        return iter(self._since)

    def __contains__(self, waiter: W) -> bool:
        return waiter in self._since

    def add(self, waiter: W, since: float, *, is_first: bool = False) -> None:
        """Add a place whose wait began at a monotonic time; with ``is_first``, ahead of all."""
        self._since[waiter] = since
        places = self._places.setdefault(waiter.client_ip, OrderedDict())
        places[waiter] = None
        if is_first:
            self._since.move_to_end(waiter, last=False)
            places.move_to_end(waiter, last=False)
        self._count(waiter.client_ip, 1)

    def wait(self, waiter: W, *, is_at_limit: bool) -> None:
        """Record that a client waits, and whether for an endpoint at its limit."""
        self.dialled.discard(waiter)
        if is_at_limit:
            self.at_limit.add(waiter)

    def turn(self, waiter: W) -> None:
        """Record that the proxy dials an endpoint for a waiting client."""
        self.at_limit.discard(waiter)
        self.dialled.add(waiter)

    def remove(self, waiter: W) -> None:
        self.at_limit.discard(waiter)
        self.dialled.discard(waiter)
        del self._since[waiter]
        remove_from(self._places, waiter.client_ip, waiter)
        self._count(waiter.client_ip, -1)

    def waits_since(self) -> float | None:
        """Return the monotonic seconds when the longest wait began; None without places."""
        return next(iter(self._since.values()), None)

    def overdue(self, due: float, most: int) -> list[W]:
        """Return the places, of the first ``most``, whose wait began at ``due`` or earlier."""
        return [waiter for waiter, since in islice(self._since.items(), most) if since <= due]

    def to_end(self, newcomer: str) -> W:
        """Return the place that must end to make room for a new client's place.

        It is the oldest place of the losing client; of clients with equally many places, the client
        that reached this number first loses. There must be a place.
        """
        self._count(newcomer, 1)
        is_above = self._clients.most > client_share(len(self))
        loser = next(iter((self._clients if is_above else self._networks).largest))
        if isinstance(loser, bytes):
            loser = next(iter(self._clients_in[loser].largest))
        self._count(newcomer, -1)
        return next(iter(self._places[loser]))

    def _count(self, client: str, more: int) -> None:
        network = network_of(client)
        self._clients.add(client, more)
        self._networks.add(network or client, more)
        if network is not None:
            self._clients_in[network].add(client, more)
            if not self._clients_in[network].total:
                del self._clients_in[network]
