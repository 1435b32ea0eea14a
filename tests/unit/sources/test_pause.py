"""Waiting for time to pass."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from userspace_proxy.sources.pause import pause


async def test_a_pause_ends():
    await pause(0.001)


async def test_a_pause_that_is_cancelled_leaves_no_timer():
    loop = asyncio.get_running_loop()
    task = asyncio.create_task(pause(3600))
    loop.call_soon(task.cancel)
    with suppress(asyncio.CancelledError):
        await task
    assert task.cancelled()


async def test_a_pause_that_is_cancelled_as_it_ends_is_quiet():
    loop = asyncio.get_running_loop()
    said = []
    loop.set_exception_handler(lambda _loop, context: said.append(context))
    task = asyncio.create_task(pause(0))
    loop.call_soon(lambda: loop.call_soon(task.cancel))
    with suppress(asyncio.CancelledError):
        await task
    await pause(0)
    assert said == []
