"""Picks an endpoint by the client's address: the same one on each node, after each restart.

    client ─▶ hash ─┬─ with the hash of endpoint A ─▶ 0.31
                    ├─ with the hash of endpoint B ─▶ 0.94   the highest number is picked
                    └─ with the hash of endpoint C ─▶ 0.52   the next one if B is skipped

Rule 1: a number depends on one client and one endpoint alone. So if an endpoint goes, only its own
clients move, over all others; if one is added, clients move only to it.
Rule 2: the hash is part of the interface: a change moves clients during an upgrade.

Source: D. Thaler and C. Ravishankar, "Using Name-Based Mappings to Increase Hit Rates" (1998):
rendezvous hashing; for weights the logarithms of C. Schindelhauer and G. Schomaker, "Weighted
Distributed Hash Tables" (2005). ADR 0041 compares it with Maglev.
"""

from __future__ import annotations

import math
from collections.abc import Container, Iterable, Sequence
from hashlib import blake2b

from ..model import SocketAddress
from .weights import Weights

CLIENTS_MAX = 16384
"""Clients whose endpoint is remembered, at most 200 bytes each: a choice takes 0.15 µs for each
endpoint."""

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
        self._hashes: list[tuple[int, SocketAddress]] = []
        self._remembered: dict[str, SocketAddress] = {}

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
        remembered = self._remembered.get(client)
        if remembered is None:
            remembered = self._choose(client, self._hashes)
            if remembered is None:
                return None
            if len(self._remembered) >= CLIENTS_MAX:
                self._remembered.clear()
            self._remembered[client] = remembered
        if skip is None or remembered not in skip:
            return remembered
        return self._choose(client, [one for one in self._hashes if one[1] not in skip])

    def _arrange(self, endpoints: Sequence[SocketAddress]) -> None:
        self._endpoints, self._version = endpoints, self._weights.version
        self._hashes = [(_hash_of(str(endpoint)), endpoint) for endpoint in endpoints]
        self._remembered.clear()

    def _choose(
        self, client: str, hashes: Sequence[tuple[int, SocketAddress]]
    ) -> SocketAddress | None:
        if not hashes:
            return None
        own = _hash_of(client)
        numbers: Iterable[float] = [((own ^ each) * _FACTOR) & _MASK for each, _ in hashes]
        if self._weights:
            # The order is the same where weights are equal, so that weights move few clients.
            numbers = [
                math.log((number + 0.5) / (_MASK + 1)) / self._weights.of(endpoint)
                for number, (_, endpoint) in zip(numbers, hashes, strict=True)
            ]
        # Of equal numbers the first endpoint's: endpoints are in the order of their addresses.
        return max(zip(numbers, hashes, strict=True), key=_number)[1][1]


def _number(item: tuple[float, object]) -> float:
    return item[0]


def _hash_of(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(), digest_size=_BITS // 8).digest(), "big")
