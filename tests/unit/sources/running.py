"""Runs a source for a test, and waits for its snapshots."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

from userspace_proxy.cluster import Snapshot
from userspace_proxy.sources import Source

DEADLINE_S = 120.0
"""The deadline of any wait; the awaited events take milliseconds."""


class Published:
    """All snapshots that a source has published."""

    def __init__(self) -> None:
        self.snapshots: list[Snapshot] = []
        self._one_more = asyncio.Event()

    def __call__(self, snapshot: Snapshot) -> None:
        self.snapshots.append(snapshot)
        self._one_more.set()

    @property
    def last(self) -> Snapshot:
        return self.snapshots[-1]

    async def until(self, condition: Callable[[Snapshot], bool]) -> Snapshot:
        """Return the newest snapshot as soon as the condition holds for it."""
        async with asyncio.timeout(DEADLINE_S):
            while not (self.snapshots and condition(self.last)):
                self._one_more.clear()
                await self._one_more.wait()
        return self.last

    async def first(self) -> Snapshot:
        return await self.until(lambda _: True)


@asynccontextmanager
async def running(source: Source) -> AsyncIterator[Published]:
    """Run a source for the duration of the block; then raise the source's exception, if any."""
    published = Published()
    task = asyncio.create_task(source.run(published))
    try:
        yield published
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
