"""Who waits: the clients of one waiting room, and which of them has the most places.

    clients by number of places      3: {10.0.0.7}   1: {10.0.0.8, 10.0.0.9}

Everything is counted as it changes, so a full room of 100,000 costs a new client no look at them.
A client is an IP address, as in ``shares``.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, Protocol, TypeVar


class HasClient(Protocol):
    """What has a place."""

    @property
    def client_ip(self) -> str:
        """The client's IP address."""


W = TypeVar("W", bound=HasClient)


class WaitingClients(Generic[W]):
    """The places of each client, the one that has waited longest first."""

    def __init__(self) -> None:
        self._places: dict[str, OrderedDict[W, None]] = {}
        self._by_number: dict[int, dict[str, None]] = {}
        self._most = 0

    def add(self, waiter: W, *, is_first: bool = False) -> None:
        """Add a place; ``is_first`` means that it has waited longer than its client's others."""
        places = self._places.setdefault(waiter.client_ip, OrderedDict())
        places[waiter] = None
        if is_first:
            places.move_to_end(waiter, last=False)
        self._move(waiter.client_ip, len(places) - 1, len(places))

    def remove(self, waiter: W) -> None:
        """Remove a place."""
        places = self._places[waiter.client_ip]
        del places[waiter]
        if not places:
            del self._places[waiter.client_ip]
        self._move(waiter.client_ip, len(places) + 1, len(places))

    def to_end(self, newcomer: str) -> W:
        """Return the place to end for a new one of a client.

        It is the oldest one of the client that would have the most. There is at least one place.
        """
        own = self._places.get(newcomer, ())
        largest = newcomer if len(own) >= self._most else next(iter(self._by_number[self._most]))
        return next(iter(self._places[largest]))

    def _move(self, client: str, before: int, now: int) -> None:
        if before:
            self._by_number[before].pop(client)
            if not self._by_number[before]:
                del self._by_number[before]
        if now:
            self._by_number.setdefault(now, {})[client] = None
        if now > self._most or before == self._most not in self._by_number:
            self._most = now
