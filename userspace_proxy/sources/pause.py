"""Waits for loops that poll."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

Pause = Callable[[float], Awaitable[None]]
"""Returns after that many seconds; tests pass one that they control."""


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
    # The timer may be due in the iteration in which the waiting task was cancelled.
    if not passed.done():
        passed.set_result(None)
