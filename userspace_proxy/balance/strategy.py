"""Defines the contract of strategies, and two strategies that wrap other strategies."""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from typing import Protocol, cast

from ..model import SocketAddress

Skip = Container[SocketAddress] | None
"""Endpoints that must not be picked; None if all endpoints may be picked."""


class Strategy(Protocol):
    """A method of choosing one of several usable endpoints."""

    def pick(
        self, endpoints: Sequence[SocketAddress], client: str = "", /, *, skip: Skip = None
    ) -> SocketAddress | None:
        """Return an endpoint, or None if all must be skipped.

        Args:
            endpoints: Usable endpoints in plan order; may be empty.
            client: The client's address.
            skip: Endpoints already tried for this connection, or ejected; None if there are none.
        """


class Limited:
    """A strategy that applies another strategy to the endpoints below their limit.

    Args:
        strategy: The other strategy.
        is_full: Returns whether an endpoint is at its limit.
    """

    def __init__(self, strategy: Strategy, is_full: Callable[[SocketAddress], bool]) -> None:
        self._strategy = strategy
        self._is_full = is_full

    def pick(
        self, endpoints: Sequence[SocketAddress], client: str = "", /, *, skip: Skip = None
    ) -> SocketAddress | None:
        return self._strategy.pick(endpoints, client, skip=_OrFull(skip, self._is_full))


class _OrFull:
    """The union of the endpoints to skip and the endpoints at their limit."""

    __slots__ = ("_is_full", "_skip")

    def __init__(self, skip: Skip, is_full: Callable[[SocketAddress], bool]) -> None:
        self._skip = skip
        self._is_full = is_full

    def __contains__(self, item: object) -> bool:
        if self._skip is not None and item in self._skip:
            return True
        return self._is_full(cast(SocketAddress, item))


class Preferred:
    """A strategy that picks a given endpoint once, when possible; for tests that must reach it.

    Args:
        endpoint: The endpoint to pick.
        then: The strategy before and after that pick.
        end: Called when the endpoint is picked; it must replace this strategy.
    """

    def __init__(self, endpoint: SocketAddress, then: Strategy, end: Callable[[], object]) -> None:
        self._endpoint = endpoint
        self._then = then
        self._end = end

    def pick(
        self, endpoints: Sequence[SocketAddress], client: str = "", /, *, skip: Skip = None
    ) -> SocketAddress | None:
        if self._endpoint in endpoints and (skip is None or self._endpoint not in skip):
            self._end()
            return self._endpoint
        return self._then.pick(endpoints, client, skip=skip)
