"""Takes samples of the proxy for pages and streams, and records the history of traffic.

    request ──▶ Sampler.look ───┐
                                ├──▶ view ──▶ History ──▶ Sample
    streams ──▶ Sampler.after ──┘ once a second  ▲
    agent ────▶ Sampler.record ──counters, every 5 s

Rule 1: all streams share samples, and requests share recent ones: the number of streams doesn't
affect the cost of sampling, and requests don't affect when streams get a sample.
Rule 2: while no samples are taken, the history records only counters, without views.
Rule 3: samples take at most a quarter of a CPU, however many Services there are.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

from ..clocks import Clocks
from ..facts import StatusFacts
from ..pacing import Pacing
from .history import Counted, History
from .single_flight import SingleFlight
from .timeline import Event

_T = TypeVar("_T")

PERIOD_S = 1.0
SHARE = 0.25
"""The share of the event loop's time that views for requests may take; samples may take the
same."""
# The interval of workers' reports.
_RECORD_S = 5.0
_FOLLOWED_S = 60.0
# The maximum age of a sample that a request gets: a reader doesn't notice the delay.
_RECENT_S = 0.3


@dataclass(frozen=True, slots=True)
class Sample:
    """The data that a page is rendered from."""

    view: StatusFacts
    now: float
    """Unix time of the sample."""
    history: History = field(default_factory=History)
    events: Sequence[Event] = ()
    """Events, the newest first."""
    is_followed: bool = False
    """Whether the previous sample was taken less than a minute earlier."""


class RenderThread:
    """A queue of functions that are called in a thread, one at a time.

    Each call holds the GIL for a fraction of a second, and a flood of requests mustn't start a
    flood of threads.
    """

    def __init__(self) -> None:
        self._working = asyncio.Lock()

    async def work(self, render: Callable[[], _T]) -> _T:
        """Call a function in a thread, and return its result.

        If the caller is cancelled, ``CancelledError`` is raised only once the function has
        returned, because a thread can't be stopped.
        """
        async with self._working:
            thread = asyncio.get_running_loop().run_in_executor(None, render)
            is_cancelled = False
            while not thread.done():
                try:
                    await asyncio.wait([thread])
                except asyncio.CancelledError:
                    is_cancelled = True
            error = thread.exception()
            if is_cancelled:
                raise asyncio.CancelledError from error
            return thread.result()


class Sampler:
    """The samples of one proxy.

    Args:
        take: Returns the current view.
        events: Returns the node's events, the newest first.
        unix: Returns the Unix time.
        clock: Returns monotonic seconds.
        pause: Waits for a number of seconds.
    """

    def __init__(
        self,
        take: Callable[[], Awaitable[StatusFacts]],
        *,
        events: Callable[[], Sequence[Event]] = tuple,
        unix: Callable[[], float] = Clocks.time,
        clock: Callable[[], float] = Clocks.monotonic,
        pause: Callable[[float], Awaitable[object]] = asyncio.sleep,  # noqa: TID251 - the period
    ) -> None:
        self._history = History()
        self._take = take
        self._events = events
        self._unix = unix
        self._clock = clock
        self._pause = pause
        self._latest: Sample | None = None
        self._taken_at = float("-inf")
        self._count = 0
        self._shown = 0
        """The number of the last sample that streams received."""
        self._pacing = Pacing(SHARE, PERIOD_S)
        """The pace of samples for streams."""
        # One sample is taken at a time, and all waiting callers share it.
        self._taking = asyncio.Lock()
        self.work = RenderThread().work
        """Calls a function that uses a view or a sample, in the render thread."""

    async def look(self) -> Sample:
        """Return the latest sample if it is less than 0.3 s old; otherwise, take a new one."""
        async with self._taking:
            if self._latest is None or self._clock() - self._taken_at >= _RECENT_S:
                return await self._sample()
            return self._latest

    async def after(self, count: int) -> tuple[int, Sample]:
        """Wait until the next sample is due; return its number and the sample.

        Args:
            count: The number of the caller's last sample; 0 if it has none, and then it gets a
                sample immediately, like a request.
        """
        if not count:
            sample = await self.look()
            return self._count, sample
        while self._shown <= count and (wait_s := self._pacing.due - self._clock()) > 0:
            await self._pause(wait_s)
        async with self._taking:
            # The first stream takes the sample, unless a request has taken one in the meantime.
            if self._shown <= count:
                await self._sample()
            assert self._latest is not None
            return self._count, self._latest

    async def record(self, counters: Callable[[], Awaitable[Counted | None]]) -> None:
        """Record counters of Service ports every 5 s while no samples are taken, until cancelled.

        Args:
            counters: Returns the counters, or None to leave a gap.
        """
        while True:
            await self._pause(_RECORD_S)
            if self._clock() - self._taken_at < _RECORD_S:
                continue
            if (samples := await counters()) is not None:
                await self.work(partial(self._history.record, samples, self._clock()))

    async def _sample(self) -> Sample:
        """Take a sample, which also serves as the streams' next sample if that is due."""
        began = self._clock()
        is_followed = began - self._taken_at < _FOLLOWED_S
        view = await self._take()
        at = self._clock()
        await self.work(lambda: self._history.note(view.ports, at))
        self._taken_at = self._clock()
        self._count += 1
        if began >= self._pacing.due:
            self._pacing.note(began, self._taken_at)
            self._shown = self._count
        self._latest = Sample(
            view, self._unix(), self._history, self._events(), is_followed=is_followed
        )
        return self._latest

    def close(self) -> None:
        """Drop all references to the proxy; later attempts to take a sample raise RuntimeError."""
        self._take, self._events, self._latest = _is_closed, tuple, None


async def _is_closed() -> StatusFacts:
    return is_closed()


class FreshViews:
    """The views of one proxy, taken for requests in the event loop.

    A view is taken after its requests arrived, so it contains everything that happened before.
    However many requests there are, views take no more than their share: a view of ten thousand
    Services takes a fraction of a second, during which no probe is answered and no change is
    applied.

    Args:
        view: Returns the current state.
        refresh: Awaited before ``view``, to fetch counters from workers; returns how many seconds
            of the event loop it took, if these count towards the share.
        clock: Returns monotonic seconds.
        pause: Waits for a number of seconds.
    """

    def __init__(
        self,
        view: Callable[[], StatusFacts],
        refresh: Callable[[], Awaitable[float | None]] | None = None,
        *,
        clock: Callable[[], float] = Clocks.monotonic,
        pause: Callable[[float], Awaitable[object]] = asyncio.sleep,  # noqa: TID251 - the share
    ) -> None:
        self._view = view
        self._refresh = refresh
        self._clock = clock
        self._pause = pause
        self._pacing = Pacing(SHARE)
        self._flights: SingleFlight[StatusFacts] = SingleFlight()

    async def take(self) -> StatusFacts:
        """Return a view that is taken after this call."""
        return await self._flights.get((), self._take)

    def close(self) -> None:
        """Drop all references to the proxy; later calls of :meth:`take` raise RuntimeError."""
        self._view, self._refresh = is_closed, None

    async def _take(self) -> StatusFacts:
        if (wait_s := self._pacing.due - self._clock()) > 0:
            await self._pause(wait_s)
        took_s = await self._refresh() if self._refresh is not None else None
        began = self._clock() - (took_s or 0.0)
        view = self._view()
        self._pacing.note(began, self._clock())
        return view


def is_closed() -> StatusFacts:
    """Raise an error instead of returning a view of a closed server."""
    raise RuntimeError("this status server is closed")
