"""One thread for blocking calls: they run in order, in one network namespace."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, Protocol, TypeVar


class Closable(Protocol):
    """What has to be closed where it was made."""

    def close(self) -> None:
        """Let go of everything."""


Result = TypeVar("Result")
Thing = TypeVar("Thing", bound=Closable)


class OneThread:
    """A thread that begins with the first call.

    Args:
        name: Of the thread.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._executor: ThreadPoolExecutor | None = None

    @property
    def has_begun(self) -> bool:
        """Whether there was a call since the beginning, or the last :meth:`close`."""
        return self._executor is not None

    async def run(self, call: Callable[[], Result]) -> Result:
        """Return what a call returns, or raise what it raises."""
        if self._executor is None:
            self._executor = ThreadPoolExecutor(1, thread_name_prefix=self._name)
        return await asyncio.get_running_loop().run_in_executor(self._executor, call)

    def close(self) -> None:
        """Let the thread end after the calls that were made; idempotent."""
        if self._executor is not None:
            self._executor.shutdown(wait=False)
            self._executor = None


class InOneThread(Generic[Thing]):
    """A thing that is made by the first call, used and closed in one thread.

    Args:
        name: Of the thread.
        make: Makes it; its network namespace is that of who calls first.
    """

    def __init__(self, name: str, make: Callable[[], Thing]) -> None:
        self._thread = OneThread(name)
        self._make = make
        self._thing: Thing | None = None

    async def do(self, call: Callable[[Thing], Result]) -> Result:
        """Return what a call of the thing returns, or raise what it raises."""
        return await self._thread.run(lambda: self._call(call))

    async def close(self) -> None:
        """Close the thing and let the thread end; idempotent, the next call makes another."""
        if self._thread.has_begun:
            await self._thread.run(self._close)
            self._thread.close()

    def _call(self, call: Callable[[Thing], Result]) -> Result:
        if self._thing is None:
            self._thing = self._make()
        return call(self._thing)

    def _close(self) -> None:
        thing, self._thing = self._thing, None
        if thing is not None:
            thing.close()
