"""Takes samples of the proxy for those that watch it, and keeps the last minute.

    request ──▶ Sampler.look ───┐
                                ├──▶ view ──▶ History
    streams ──▶ Sampler.after ──┘ once a second

Rule 1: all streams share the samples: their number doesn't change what sampling costs.
Rule 2: nothing is sampled while nothing watches; the first sample after that covers the time since.
Rule 3: samples take a quarter of a processor at most, however many Services there are.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from .history import History
from .view import StatusView

_T = TypeVar("_T")

PERIOD_S = 1.0
_SHARE = 0.25


class Sampler:
    """The samples of one proxy.

    Args:
        take: Returns the view at this moment.
        clock: Monotonic seconds.
        pause: Waits for so many seconds.
    """

    def __init__(
        self,
        take: Callable[[], Awaitable[StatusView]],
        *,
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[float], Awaitable[object]] = asyncio.sleep,  # noqa: TID251 - the period
    ) -> None:
        self.history = History()
        self._take = take
        self._clock = clock
        self._pause = pause
        self._latest: StatusView | None = None
        self._count = 0
        self._due = 0.0
        """The time of the next sample for streams."""
        self._turn = asyncio.Lock()
        # One page is rendered at a time: each holds the interpreter for a part of a
        # second, and a flood of requests must not start a flood of threads.
        self._working = asyncio.Lock()

    async def look(self) -> StatusView:
        """Take a sample now, and return it."""
        began = self._clock()
        view = await self._take()
        at = self._clock()
        await self.work(lambda: self.history.note(view.ports, at))
        self._due = began + max(PERIOD_S, (self._clock() - began) / _SHARE)
        self._latest = view
        self._count += 1
        return view

    async def after(self, count: int) -> tuple[int, StatusView]:
        """Wait until the next sample is due; return its number and the sample.

        Args:
            count: The number of the last sample that the caller has; 0 for none: then a sample
                is taken now.
        """
        if not count:
            view = await self.look()
            return self._count, view
        # One of the streams takes the sample, and the others wait for it.
        async with self._turn:
            while self._count <= count and (wait_s := self._due - self._clock()) > 0:
                await self._pause(wait_s)
            if self._count <= count:
                await self.look()
            assert self._latest is not None
            return self._count, self._latest

    async def work(self, render: Callable[[], _T]) -> _T:
        """Call a function that uses a view or the history, in a thread, one at a time."""
        async with self._working:
            return await asyncio.to_thread(render)
