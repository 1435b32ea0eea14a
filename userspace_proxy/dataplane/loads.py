"""How many connections the endpoints of one Service port have in this worker, and may have.

    load = open connections (``CounterTable``) + dials in progress
    limit = this worker's share of ``max-connections``

Rule 1: dials are counted only where something depends on loads as they begin: a limit, or a
strategy that has asked for them.
"""

from __future__ import annotations

from collections.abc import Callable
from types import MappingProxyType
from typing import cast

from ..facts import CounterTable
from ..model import Handling, SocketAddress

Load = Callable[[SocketAddress], int]
"""Returns how many connections an endpoint has, pending dials included."""
# Cost: of all Service ports whose dials aren't counted.
_NONE_DIALLING = cast("dict[SocketAddress, int]", MappingProxyType({}))


class Loads:
    """The loads of one Service port's endpoints.

    Args:
        table: Has the open connections.
        handling: The first one of :meth:`change`.
        index: Which of the processes this is, from 0.
        processes: How many share a limit.
    """

    __slots__ = ("_dialling", "_index", "_processes", "_table", "is_tracked", "limit")

    def __init__(
        self, table: CounterTable, handling: Handling, *, index: int = 0, processes: int = 1
    ) -> None:
        self._table = table
        self._index = index
        self._processes = processes
        self._dialling = _NONE_DIALLING
        self.limit: int | None = None
        """Connections that an endpoint may have; None: any number."""
        self.is_tracked = False
        """Whether dials must be counted."""
        self.change(handling)

    def change(self, handling: Handling) -> None:
        """Change the limit; dials are counted for it alone until a strategy asks for loads."""
        self.limit = self._share_of(handling.max_connections)
        self.is_tracked = self.limit is not None

    def follow(self) -> Load:
        """Return the loads for a strategy, and count dials from now on."""
        self.is_tracked = True
        return self.of

    def of(self, endpoint: SocketAddress) -> int:
        """Return how many connections an endpoint has, including those that are being dialled."""
        return self._table.counters_of(endpoint).active + self._dialling.get(endpoint, 0)

    def is_full(self, endpoint: SocketAddress) -> bool:
        return self.limit is not None and self.of(endpoint) >= self.limit

    def dial_began(self, endpoint: SocketAddress) -> None:
        """Count a dial; call only if ``is_tracked``."""
        if self._dialling is _NONE_DIALLING:
            self._dialling = {}
        self._dialling[endpoint] = self._dialling.get(endpoint, 0) + 1

    def dial_ended(self, endpoint: SocketAddress) -> None:
        """Stop counting a dial that was counted, also if dials aren't any more."""
        self._dialling[endpoint] -= 1
        if not self._dialling[endpoint]:
            del self._dialling[endpoint]

    def _share_of(self, limit: int | None) -> int | None:
        """Return this worker's share of the limit of endpoints: 1 at least."""
        if limit is None:
            return None
        share, rest = divmod(limit, self._processes)
        return max(1, share + (self._index % self._processes < rest))
