"""Takes views for requests, in the event loop, for at most a quarter of its time.

    requests ──▶ those that wait ──▶ pause ──▶ refresh ──▶ view ──▶ all get it
                                       3 times as long as the last view took

Rule 1: a view is taken after its requests arrived, so it contains everything before them.
Rule 2: however many requests arrive, and whatever they search for, views take no more than their
share: ten thousand Services take a fraction of a second, during which no probe is answered and no
change is applied.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from ..clocks import Clocks
from ..facts import StatusFacts
from ..pacing import Pacing
from .single_flight import SingleFlight

# The share of the event loop's time; samples of the page take as much (``sampling``).
SHARE = 0.25


class FreshViews:
    """The views of one proxy.

    Args:
        view: Returns the current state.
        refresh: Awaited before ``view``, to fetch counters from workers; returns the seconds of the
            event loop that it took, if they count towards the share.
        clock: Monotonic seconds.
        pause: Waits for that many seconds.
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
        """Take no more views, and drop all references."""
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
    """Raise in place of the views of a closed server."""
    raise RuntimeError("this status server is closed")
