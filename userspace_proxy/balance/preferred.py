"""One endpoint once, then the choice as before; for tests that must reach a particular one."""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence

from ..model import SocketAddress
from .balancer import Strategy


class Preferred:
    """Picks an endpoint as soon as it may be picked, and ends.

    Args:
        endpoint: The one to pick.
        then: Picks until then, and afterwards.
        end: Called when the endpoint was picked.
    """

    def __init__(self, endpoint: SocketAddress, then: Strategy, end: Callable[[], object]) -> None:
        self._endpoint = endpoint
        self._then = then
        self._end = end

    def pick(
        self,
        endpoints: Sequence[SocketAddress],
        client: str = "",
        /,
        *,
        skip: Container[SocketAddress] | None = None,
    ) -> SocketAddress | None:
        """Part of Strategy."""
        if self._endpoint in endpoints and (skip is None or self._endpoint not in skip):
            self._end()
            return self._endpoint
        return self._then.pick(endpoints, client, skip=skip)
