"""How much of the new connections each endpoint gets, in proportion to the others' numbers."""

from __future__ import annotations

from collections.abc import Mapping

from ..model import DEFAULT_WEIGHT, SocketAddress


class Weights:
    """The weights of one Service port's endpoints; strategies share it."""

    def __init__(self, configured: Mapping[SocketAddress, int] | None = None) -> None:
        self._configured: Mapping[SocketAddress, int] = configured or {}
        self.version = 0
        """Grows when a weight may have changed."""

    def __bool__(self) -> bool:
        """Whether endpoints may have different weights."""
        return bool(self._configured)

    def configure(self, weights: Mapping[SocketAddress, int]) -> None:
        """Replace the weights; endpoints without one have the default."""
        if weights != self._configured:
            self._configured = weights
            self.version += 1

    def of(self, endpoint: SocketAddress) -> float:
        """Return an endpoint's weight now; more than 0."""
        return self._configured.get(endpoint, DEFAULT_WEIGHT)
