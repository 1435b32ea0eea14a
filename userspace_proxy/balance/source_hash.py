"""Picks an endpoint by the client's address, identically on every node and after a restart.

    client ─▶ hash ─┬─ with the hash of endpoint A ─▶ 0.31
                    ├─ with the hash of endpoint B ─▶ 0.94   the highest number is picked
                    └─ with the hash of endpoint C ─▶ 0.52   the next highest if B is skipped

Rule 1: a number depends only on one client and one endpoint. If an endpoint is removed, only its
own clients move, spread over all others; if an endpoint is added, clients move only to it.
Rule 2: the hash is part of the interface: changing it moves clients during an upgrade.
Rule 3: a client's first choices are cached in order, so a connection whose endpoints are all dead
costs two passes over all endpoints, not one per dial.

Source: D. Thaler and C. Ravishankar, "Using Name-Based Mappings to Increase Hit Rates" (1998):
rendezvous hashing; for weights the logarithms of C. Schindelhauer and G. Schomaker, "Weighted
Distributed Hash Tables" (2005). ADR 0041 compares it with Maglev.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Iterator, Sequence
from hashlib import blake2b
from itertools import groupby

from ..model import SocketAddress
from .bulk_products import Lanes, factor_of
from .strategy import Skip
from .weights import Weights

CLIENTS_MAX = 16384
"""The maximum number of clients with cached choices, on average at most 300 bytes each. With 10,000
endpoints, the maximum of a plan, a choice takes 0.4 ms; with few distinct weights 0.6 ms, with
distinct weights for all 3.3 ms. A change of the endpoints takes a worker 20 ms."""
CHOICES_MAX = 8 * CLIENTS_MAX
"""The maximum number of cached choices of all clients, 8 bytes each."""
CHOICES = (1, 24, 512)
"""The number of choices cached per client; the next number applies if all are skipped. A connection
dials 16 endpoints, and other clients have ejected one in 32: 24 choices are enough. A client that
reconnects finds its first 16 choices ejected, then its first 32, until the candidates change: 512
are more than may be skipped of 10,000 (``SKIPPED_MAX``), unless nearly all are at their limit."""

_BITS = 64
# The minimum number of endpoints per weight at which weights are handled separately, at 0.5 µs per
# weight; otherwise all endpoints are compared, at 0.3 µs per endpoint.
_ENDPOINTS_OF_WEIGHT = 4


class SourceHash:
    """A strategy that maps each client to one endpoint, in proportion to the weights.

    It has no round-robin position, so all workers choose the same endpoint for a client.
    """

    def __init__(self, weights: Weights) -> None:
        self._weights = weights
        self._endpoints: Sequence[SocketAddress] = ()
        self._version = weights.version
        self._hashes: dict[SocketAddress, int] = {}
        self._endpoint_of: dict[int, SocketAddress] = {}
        """The endpoints by their hashes, grouped by weight."""
        self._lanes = Lanes(())
        """The hashes of ``_endpoint_of``."""
        self._by_weight: list[tuple[float, int]] = []
        """Each weight, with the number of its endpoints."""
        self._remembered: dict[str, tuple[SocketAddress, ...]] = {}
        self._choices = 0
        """The number of cached choices of all clients."""

    def pick(
        self, endpoints: Sequence[SocketAddress], client: str = "", /, *, skip: Skip = None
    ) -> SocketAddress | None:
        if endpoints is not self._endpoints or self._version != self._weights.version:
            self._arrange(endpoints)
        known = self._remembered.get(client) or self._remember(client, 1)
        if skip is None or not known:
            return next(iter(known), None)
        looked = 0
        for count in CHOICES:
            if len(known) < min(count, len(self._endpoint_of)):
                known = self._remember(client, count)
            for endpoint in known[looked:]:
                if endpoint not in skip:
                    return endpoint
            looked = len(known)
            if looked == len(self._endpoint_of):
                return None
        everything = self._choose(client, len(self._endpoint_of))
        return next((endpoint for endpoint in everything if endpoint not in skip), None)

    def _arrange(self, endpoints: Sequence[SocketAddress]) -> None:
        self._endpoints, self._version = endpoints, self._weights.version
        # Reuse hashes: computing a hash takes longer than all other work for an endpoint.
        known = self._hashes
        self._hashes = {one: known.get(one) or _hash_of(str(one)) for one in endpoints}
        weight_of, rows = self._weights.of, iter(self._hashes)
        if self._weights:
            rows = iter(sorted(rows, key=weight_of))
        self._endpoint_of = {self._hashes[endpoint]: endpoint for endpoint in rows}
        self._lanes = Lanes(self._endpoint_of)
        equal = groupby(map(weight_of, self._endpoint_of.values()))
        self._by_weight = [(weight, sum(1 for _ in those)) for weight, those in equal]
        self._forget()

    def _remember(self, client: str, count: int) -> tuple[SocketAddress, ...]:
        choices = tuple(self._choose(client, count))
        self._choices += len(choices) - len(self._remembered.pop(client, ()))
        if len(self._remembered) >= CLIENTS_MAX or self._choices > CHOICES_MAX:
            self._forget()
            self._choices = len(choices)
        self._remembered[client] = choices
        return choices

    def _forget(self) -> None:
        self._remembered.clear()
        self._choices = 0

    def _choose(self, client: str, count: int) -> Iterator[SocketAddress]:
        """Yield at most ``count`` choices of a client, best first."""
        own, endpoint_of = _hash_of(client), self._endpoint_of
        for product in self._highest(own, count) if endpoint_of else ():
            yield endpoint_of[factor_of(product, own)]

    def _highest(self, own: int, count: int) -> Sequence[int]:
        """Return the products of a client's choices, best first."""
        by_weight = self._by_weight
        if len(by_weight) == 1:
            if count == 1:
                return (self._lanes.highest(own),)
            return heapq.nlargest(count, self._lanes.products(own))
        products: Sequence[int] = self._lanes.products(own)
        if len(products) > _ENDPOINTS_OF_WEIGHT * len(by_weight):
            # Endpoints of equal weight keep the order that they have without weights, so weights
            # move few clients: only the highest products of each weight are compared by logarithm.
            by_weight, products = _highest_of_each(count, by_weight, products)
        weights = (weight for weight, many in by_weight for _ in range(many))
        numbers = [
            math.log((product + 0.5) / (1 << _BITS)) / weight
            for product, weight in zip(products, weights, strict=True)
        ]
        if count == 1:
            return (products[numbers.index(max(numbers))],)
        first = heapq.nlargest(count, range(len(numbers)), key=numbers.__getitem__)
        return [products[index] for index in first]


def _highest_of_each(
    count: int, by_weight: Iterable[tuple[float, int]], products: Sequence[int]
) -> tuple[list[tuple[float, int]], list[int]]:
    """Return the highest products of each weight, at most ``count`` per weight."""
    kept: list[tuple[float, int]] = []
    highest: list[int] = []
    start = 0
    for weight, many in by_weight:
        own = products[start : start + many]
        highest += (max(own),) if count == 1 else heapq.nlargest(count, own)
        kept.append((weight, min(count, many)))
        start += many
    return kept, highest


def _hash_of(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(), digest_size=_BITS // 8).digest(), "big")
