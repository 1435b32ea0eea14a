"""Runs a reflector of Services for a test, and records what it does."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from userspace_proxy.cluster import Store
from userspace_proxy.sources.base import pause
from userspace_proxy.sources.kubernetes.client import ApiClient, Stream
from userspace_proxy.sources.kubernetes.credentials import Credentials
from userspace_proxy.sources.kubernetes.reflector import Reflector, Timing
from userspace_proxy.sources.kubernetes.resources import SERVICES, ResourceCache
from userspace_proxy_testing.fakes.api_server import FakeApiServer

DEADLINE_S = 120.0
CHECK = "/namespaces/default/services?fieldSelector="


class Lucky(random.Random):
    """Always draws 0, so that there is no jitter."""

    def random(self) -> float:
        return 0.0


class CountingClient(ApiClient):
    """A client that counts its open streams."""

    streams = 0

    def __init__(self, credentials: Credentials) -> None:
        super().__init__(credentials)
        self.on_stream: Callable[[], None] = lambda: None
        """Called before the client sees the stream."""

    @asynccontextmanager
    async def stream(self, path: str, query: Mapping[str, str]) -> AsyncIterator[Stream]:
        async with super().stream(path, query) as stream:
            self.on_stream()
            self.streams += 1
            try:
                yield stream
            finally:
                self.streams -= 1


@dataclass
class Reflection:
    """A running reflector, and a record of its requests, pauses and problems."""

    api: FakeApiServer
    client: CountingClient
    store: Store = field(default_factory=Store)
    now_s: float = 0.0
    waits: list[float] = field(default_factory=list)
    """The pauses of the reflector, except turns of the event loop."""
    problems: list[str] = field(default_factory=list)
    """All problems, in order; an empty text for each recovery."""
    reflector: Reflector = field(init=False)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _released: asyncio.Event = field(default_factory=asyncio.Event)

    def changed(self) -> None:
        problem = self.reflector.problem.replace(self.api.url, "URL")
        if problem != (self.problems[-1] if self.problems else ""):
            self.problems.append(problem)
        self._changed.set()

    async def pause(self, seconds: float) -> None:
        if seconds:
            self.waits.append(seconds)
            self._changed.set()
            await self._released.wait()
        await pause(0)

    def hold(self) -> None:
        """Block all pauses from now on."""
        self._released.clear()

    def release(self) -> None:
        """End all pauses, including blocked ones."""
        self._released.set()

    @property
    def names(self) -> list[str]:
        return sorted(key.name for key in self.store.snapshot().services)

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    @property
    def requests(self) -> list[str]:
        """All requests except checks of whether the server has the last state."""
        return [each for each in self.api.requests if CHECK not in each]

    async def watching(self, *, requests: int = 2) -> None:
        """Wait until at least this many ``requests`` have been sent and a watch is open."""
        async with asyncio.timeout(DEADLINE_S):
            await self.api.until(
                lambda a: len(self.requests) >= requests and a.watch_count("services") == 1
            )
        await self.until(lambda: self.client.streams == 1)


@asynccontextmanager
async def reflecting(
    api: FakeApiServer,
    timing: Timing | None = None,
    recovered: Callable[[], None] = lambda: None,
    url: str = "",
) -> AsyncIterator[Reflection]:
    client = CountingClient(Credentials(master=url or api.url))
    await client.open()
    reflection = Reflection(api, client)
    reflection.release()
    reflection.reflector = Reflector(
        ResourceCache(SERVICES, reflection.store),
        client,
        reflection.changed,
        recovered,
        timing=timing or Timing(),
        rng=Lucky(),
        clock=lambda: reflection.now_s,
        pause=reflection.pause,
    )
    task = asyncio.create_task(reflection.reflector.run())
    try:
        yield reflection
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        await client.close()
