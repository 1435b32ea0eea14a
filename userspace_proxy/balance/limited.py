"""Leaves out endpoints that have as many connections as they may have."""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from typing import cast

from ..model import SocketAddress
from .balancer import Strategy


class Limited:
    """Another strategy, over the endpoints that are below their limit.

    Args:
        strategy: The other strategy.
        is_full: Returns whether an endpoint is at its limit.
    """

    def __init__(self, strategy: Strategy, is_full: Callable[[SocketAddress], bool]) -> None:
        self._strategy = strategy
        self._is_full = is_full

    def pick(
        self,
        endpoints: Sequence[SocketAddress],
        client: str = "",
        /,
        *,
        skip: Container[SocketAddress] | None = None,
    ) -> SocketAddress | None:
        """Part of Strategy."""
        return self._strategy.pick(endpoints, client, skip=_OrFull(skip, self._is_full))


class _OrFull:
    """What is to be skipped anyway, and the endpoints at their limit."""

    __slots__ = ("_is_full", "_skip")

    def __init__(
        self, skip: Container[SocketAddress] | None, is_full: Callable[[SocketAddress], bool]
    ) -> None:
        self._skip = skip
        self._is_full = is_full

    def __contains__(self, item: object) -> bool:
        if self._skip is not None and item in self._skip:
            return True
        return self._is_full(cast(SocketAddress, item))
