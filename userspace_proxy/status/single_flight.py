"""Shares one result among the requests that wait for it (singleflight).

    requests ──▶ grouped by key ──▶ one result at a time ──▶ shared by the group

Rule 1: a result is made after its requests arrived, so it contains everything that happened before.
Rule 2: a waiting request holds only its place in the queue.
Rule 3: results aren't kept: only the requests that received one refer to it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar
from weakref import WeakValueDictionary

_T = TypeVar("_T")


class _Flight(Generic[_T]):
    """The requests that share one result."""

    def __init__(self) -> None:
        self.results: list[_T] = []
        """The result; an empty list until the result is made."""


class SingleFlight(Generic[_T]):
    """A computation of one result at a time, which the requests that wait for it share."""

    def __init__(self) -> None:
        self._turn = asyncio.Lock()
        self._waiting: WeakValueDictionary[Hashable, _Flight[_T]] = WeakValueDictionary()

    async def get(self, key: Hashable, make: Callable[[], Awaitable[_T]]) -> _T:
        """Return the result of ``make``, called once for all requests that wait with this key.

        If ``make`` raises, only the request that called it fails; the next request calls its own.
        """
        flight = self._waiting.setdefault(key, _Flight())
        async with self._turn:
            if not flight.results:
                # Requests that arrive from now on need a later result, so they must not join this
                # flight.
                if self._waiting.get(key) is flight:
                    del self._waiting[key]
                flight.results.append(await make())
            return flight.results[0]
