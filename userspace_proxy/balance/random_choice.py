"""Picks a random endpoint for each connection, as kube-proxy's rules do.

Source: kube-proxy's iptables rules (``--mode random``) and nftables rules (``numgen random``).
"""

from __future__ import annotations

from collections.abc import Container, Sequence

from ..model import SocketAddress
from .power_of_two import DRAWS, RandomNumbers, draw


class RandomChoice:
    """Gives every endpoint the same chance, whatever was picked before."""

    def __init__(self, rng: RandomNumbers) -> None:
        self._rng = rng

    def pick(
        self,
        endpoints: Sequence[SocketAddress],
        _client: str = "",
        /,
        *,
        skip: Container[SocketAddress] | None = None,
    ) -> SocketAddress | None:
        """Part of Strategy."""
        if skip is not None and len(endpoints) > DRAWS:
            endpoint = draw(endpoints, self._rng, skip)
            if endpoint is not None:
                return endpoint
        candidates = endpoints if skip is None else [e for e in endpoints if e not in skip]
        return candidates[self._rng.randrange(len(candidates))] if candidates else None
