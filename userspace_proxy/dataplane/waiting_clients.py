"""Who waits, since when and for what, and which client has the most places.

    add ──▶ waits for any endpoint, or ``at_limit`` ──turn──▶ ``dialled`` ──remove──▶
              ▲                                                   │
              └──────────────────────wait─────────────────────────┘

    clients by number of places      3: {10.0.0.7}   1: {10.0.0.8, fd00::8, fd00::9}
    networks by number of places     3: {10.0.0.7}   2: {fd00::/64}   1: {10.0.0.8}

Rule 1: a client is an IP address, as in ``shares``; each of its connections that waits has a place.
Rule 2: for a new place the client that has the most loses one, if it has more than its share;
otherwise the client with the most in the network (an IPv4 address, an IPv6 /64) that has the most.

Everything is counted as it changes, so a full room of 100,000 costs a new client no look at them.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Hashable, Iterator
from itertools import islice
from typing import Generic, TypeVar

from ..policy.shares import HasClient, client_share, network_of
from ..shares import BySize, remove_from

W = TypeVar("W", bound=HasClient)
K = TypeVar("K", bound=Hashable)


class _Ranking(BySize[K]):
    """How many places each holder has, and which one has the most."""

    __slots__ = ()

    def most_with(self, newcomer: K) -> int:
        """Return the most that a holder would have if a newcomer had one more."""
        return max(self.most, self.amounts.get(newcomer, 0) + 1)

    def largest_with(self, newcomer: K) -> K:
        """Return the holder that would have the most if a newcomer had one more.

        There is at least one. Of equal ones it is the one that has had as many for longest.
        """
        if self.amounts.get(newcomer, 0) >= self.most:
            return newcomer
        return next(iter(self.largest))

    def add(self, holder: K, more: int) -> None:
        self.put(holder, self.amounts.get(holder, 0) + more)


class WaitingClients(Generic[W]):
    """The places of one waiting room, the one that has waited longest first."""

    def __init__(self) -> None:
        self.at_limit: set[W] = set()
        """Those that wait for an endpoint at its limit."""
        self.dialled: set[W] = set()
        """Those for which an endpoint is dialled now; none of them is ``at_limit``."""
        self._since: OrderedDict[W, float] = OrderedDict()
        self._places: dict[str, OrderedDict[W, None]] = {}
        self._clients: _Ranking[str] = _Ranking()
        self._networks: _Ranking[str | bytes] = _Ranking()
        self._clients_in = defaultdict[bytes, _Ranking[str]](_Ranking)
        """Of each IPv6 network; another one has one client."""

    def __len__(self) -> int:
        return len(self._since)

    def __iter__(self) -> Iterator[W]:
        return iter(self._since)

    def __contains__(self, waiter: W) -> bool:
        return waiter in self._since

    def add(self, waiter: W, since: float, *, is_first: bool = False) -> None:
        """Add a place; ``is_first`` means that it has waited longer than all others."""
        self._since[waiter] = since
        places = self._places.setdefault(waiter.client_ip, OrderedDict())
        places[waiter] = None
        if is_first:
            self._since.move_to_end(waiter, last=False)
            places.move_to_end(waiter, last=False)
        self._count(waiter.client_ip, 1)

    def wait(self, waiter: W, *, is_at_limit: bool) -> None:
        """Note that a place waits, and for what."""
        self.dialled.discard(waiter)
        if is_at_limit:
            self.at_limit.add(waiter)
        else:
            self.at_limit.discard(waiter)

    def turn(self, waiter: W) -> None:
        """Note that an endpoint is dialled for a place now."""
        self.at_limit.discard(waiter)
        self.dialled.add(waiter)

    def remove(self, waiter: W) -> None:
        self.at_limit.discard(waiter)
        self.dialled.discard(waiter)
        del self._since[waiter]
        remove_from(self._places, waiter.client_ip, waiter)
        self._count(waiter.client_ip, -1)

    def waits_since(self) -> float | None:
        """Return since when the first place waits; None if there is none."""
        return next(iter(self._since.values()), None)

    def overdue(self, due: float, most: int) -> list[W]:
        """Return the places, of the first ones, that have waited since then or longer."""
        return [waiter for waiter, since in islice(self._since.items(), most) if since <= due]

    def to_end(self, newcomer: str) -> W:
        """Return the place to end for a new one of a client.

        It is the oldest one of the client that loses one. There is at least one place.
        """
        if self._clients.most_with(newcomer) > client_share(len(self)):
            client = self._clients.largest_with(newcomer)
        else:
            network = self._networks.largest_with(network_of(newcomer) or newcomer)
            if isinstance(network, str):
                client = network
            else:
                client = self._clients_in[network].largest_with(newcomer)
        return next(iter(self._places[client]))

    def _count(self, client: str, by: int) -> None:
        network = network_of(client)
        self._clients.add(client, by)
        self._networks.add(network or client, by)
        if network is not None:
            self._clients_in[network].add(client, by)
            if not self._clients_in[network].total:
                del self._clients_in[network]
