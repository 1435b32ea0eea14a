"""Picks an endpoint by the client's address: the same one on each node, after each restart.

    client ─▶ hash ─┬─ with the hash of endpoint A ─▶ 0.31
                    ├─ with the hash of endpoint B ─▶ 0.94   the highest number is picked
                    └─ with the hash of endpoint C ─▶ 0.52   the next one if B is skipped

Rule 1: a number depends on one client and one endpoint alone. So if an endpoint goes, only its own
clients move, over all others; if one is added, clients move only to it.
Rule 2: the hash is part of the interface: a change moves clients during an upgrade.
Rule 3: a client's first choices are remembered in their order, so a connection whose endpoints are
all dead costs two looks at all endpoints, not one for each of its dials.

Source: D. Thaler and C. Ravishankar, "Using Name-Based Mappings to Increase Hit Rates" (1998):
rendezvous hashing; for weights the logarithms of C. Schindelhauer and G. Schomaker, "Weighted
Distributed Hash Tables" (2005). ADR 0041 compares it with Maglev.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Container, Sequence
from hashlib import blake2b

from ..model import SocketAddress
from .weights import Weights

CLIENTS_MAX = 16384
"""Clients whose choices are remembered, on average at most 300 bytes each. For 10,000 endpoints,
the most that a plan has, a choice takes 2.0 ms, with weights 5.5 ms; a change of them takes a
worker 20 ms."""
CHOICES_MAX = 8 * CLIENTS_MAX
"""Remembered choices of all clients, 8 bytes each."""
CHOICES = (1, 24, 512)
"""Choices that are remembered of a client, more if all of these are skipped. A connection dials 16
endpoints, and others have ejected one of 32: 24 are enough. A client that connects again finds its
first 16 ejected, then its first 32, until the candidates change: 512 are more than may be skipped
of 10,000 (``level.SKIPPED_MAX``). Only where nearly all are at their limit more are needed."""

_BITS = 64
_MASK = (1 << _BITS) - 1
# 2**64 divided by the golden ratio, and odd: the upper bits of a product depend on all lower ones.
_FACTOR = 0x9E3779B97F4A7C15


class SourceHash:
    """Gives each client an endpoint of its own, in proportion to the weights.

    The position of turns isn't shared: all workers choose alike.
    """

    def __init__(self, weights: Weights) -> None:
        self._weights = weights
        self._endpoints: Sequence[SocketAddress] = ()
        self._version = weights.version
        self._hashes: dict[SocketAddress, int] = {}
        self._rows: list[tuple[int, SocketAddress, float]] = []
        """The hash of each endpoint, and its weight."""
        self._remembered: dict[str, tuple[SocketAddress, ...]] = {}
        self._choices = 0
        """Of all clients that are remembered."""

    def pick(
        self,
        endpoints: Sequence[SocketAddress],
        client: str = "",
        /,
        *,
        skip: Container[SocketAddress] | None = None,
    ) -> SocketAddress | None:
        """Part of Strategy."""
        if endpoints is not self._endpoints or self._version != self._weights.version:
            self._arrange(endpoints)
        known = self._remembered.get(client) or self._remember(client, 1)
        if skip is None or not known:
            return next(iter(known), None)
        looked = 0
        for count in CHOICES:
            if len(known) < min(count, len(self._rows)):
                known = self._remember(client, count)
            for endpoint in known[looked:]:
                if endpoint not in skip:
                    return endpoint
            looked = len(known)
            if looked == len(self._rows):
                return None
        return next(iter(self._choose(client, 1, skip)), None)

    def _arrange(self, endpoints: Sequence[SocketAddress]) -> None:
        self._endpoints, self._version = endpoints, self._weights.version
        # A hash takes longer than all else about an endpoint.
        known = self._hashes
        self._hashes = {one: known.get(one) or _hash_of(str(one)) for one in endpoints}
        weight_of = self._weights.of
        self._rows = [(own, one, weight_of(one)) for one, own in self._hashes.items()]
        self._forget()

    def _remember(self, client: str, count: int) -> tuple[SocketAddress, ...]:
        choices = self._choose(client, count)
        self._choices += len(choices) - len(self._remembered.pop(client, ()))
        if len(self._remembered) >= CLIENTS_MAX or self._choices > CHOICES_MAX:
            self._forget()
            self._choices = len(choices)
        self._remembered[client] = choices
        return choices

    def _forget(self) -> None:
        self._remembered.clear()
        self._choices = 0

    def _choose(
        self, client: str, count: int, skip: Container[SocketAddress] | None = None
    ) -> tuple[SocketAddress, ...]:
        """Return a client's choices, the first one first; at most that many."""
        rows = self._rows
        if skip is not None:
            rows = [row for row in rows if row[1] not in skip]
        own = _hash_of(client)
        numbers: list[float] = [((own ^ each) * _FACTOR) & _MASK for each, _, _ in rows]
        if self._weights:
            # The order is the same where weights are equal, so that weights move few clients.
            numbers = [
                math.log((number + 0.5) / (_MASK + 1)) / weight
                for number, (_, _, weight) in zip(numbers, rows, strict=True)
            ]
        # Of equal numbers the first endpoint's: endpoints are in the order of their addresses.
        if count == 1:
            return (rows[numbers.index(max(numbers))][1],) if rows else ()
        first = heapq.nlargest(count, range(len(rows)), key=numbers.__getitem__)
        return tuple([rows[index][1] for index in first])


def _hash_of(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(), digest_size=_BITS // 8).digest(), "big")
