"""Waiting, for loops whose condition can only be polled."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

Pause = Callable[[float], Awaitable[None]]
"""Returns after that many seconds; tests pass one that returns at their word."""


async def pause(seconds: float) -> None:
    """Return after that many seconds."""
    loop = asyncio.get_running_loop()
    passed = loop.create_future()
    timer = loop.call_later(seconds, _end, passed)
    try:
        await passed
    finally:
        timer.cancel()


def _end(passed: asyncio.Future[None]) -> None:
    # In the turn in which the waiting task was cancelled the timer may be due as well.
    if not passed.done():
        passed.set_result(None)
