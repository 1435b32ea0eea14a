"""Counts the connections of each endpoint of one Service port in this worker, and limits them.

    load = open connections (``CounterTable``) + dials in progress
    limit = this worker's share of ``max-connections``

Rule 1: dials are counted from their beginning only if a limit or a strategy depends on loads.
"""

from __future__ import annotations

from collections.abc import Callable
from types import MappingProxyType
from typing import cast

from ..facts import CounterTable
from ..model import Handling, SocketAddress

Load = Callable[[SocketAddress], int]
"""Returns how many connections an endpoint has, pending dials included."""
# Cost: all Service ports whose dials aren't counted share this mapping.
_NONE_DIALLING = cast("dict[SocketAddress, int]", MappingProxyType({}))


class Loads:
    """The loads of one Service port's endpoints.

    Args:
        table: Counts the open connections.
        handling: The initial handling; :meth:`change` replaces it.
        index: The index of this process, from 0.
        processes: How many processes share a limit.
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
        """The maximum number of connections per endpoint; None: any number."""
        self.is_tracked = False
        """Whether dials must be counted."""
        self.change(handling)

    def change(self, handling: Handling) -> None:
        """Change the limit; without one, dials aren't counted until a strategy requests loads."""
        self.limit = self._share_of(handling.max_connections)
        self.is_tracked = self.limit is not None

    def follow(self) -> Load:
        """Return the loads for a strategy, and count dials from now on."""
        self.is_tracked = True
        return self.of

    def of(self, endpoint: SocketAddress) -> int:
        """Return how many connections an endpoint has, including pending dials."""
        return self._table.counters_of(endpoint).active + self._dialling.get(endpoint, 0)

    def is_full(self, endpoint: SocketAddress) -> bool:
        return self.limit is not None and self.of(endpoint) >= self.limit

    def dial_began(self, endpoint: SocketAddress) -> None:
        """Count a dial; call only if ``is_tracked``."""
        if self._dialling is _NONE_DIALLING:
            self._dialling = {}
        self._dialling[endpoint] = self._dialling.get(endpoint, 0) + 1

    def dial_ended(self, endpoint: SocketAddress) -> None:
        """Remove a counted dial; call this even if dials are no longer tracked."""
        self._dialling[endpoint] -= 1
        if not self._dialling[endpoint]:
            del self._dialling[endpoint]

    def _share_of(self, limit: int | None) -> int | None:
        """Return this worker's share of an endpoint's limit; at least 1."""
        if limit is None:
            return None
        share, rest = divmod(limit, self._processes)
        return max(1, share + (self._index % self._processes < rest))
