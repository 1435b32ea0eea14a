"""Runs blocking calls in a thread, in order and in one network namespace."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, Protocol, TypeVar


class Closable(Protocol):
    """An object that is closed in the thread that created it."""

    def close(self) -> None:
        """Release all resources."""


Result = TypeVar("Result")
Thing = TypeVar("Thing", bound=Closable)


class OneThread:
    """A thread that starts with the first call."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._executor: ThreadPoolExecutor | None = None

    @property
    def has_begun(self) -> bool:
        """Whether a call has been made since creation or the last :meth:`close`."""
        return self._executor is not None

    async def run(self, call: Callable[[], Result]) -> Result:
        if self._executor is None:
            self._executor = ThreadPoolExecutor(1, thread_name_prefix=self._name)
        return await asyncio.get_running_loop().run_in_executor(self._executor, call)

    def close(self) -> None:
        """End the thread once pending calls are done; idempotent."""
        if self._executor is not None:
            self._executor.shutdown(wait=False)
            self._executor = None


class InOneThread(Generic[Thing]):
    """An object that one thread creates on the first call, uses, and closes.

    Args:
        make: Creates the object, in the network namespace of the first caller.
    """

    def __init__(self, name: str, make: Callable[[], Thing]) -> None:
        self._thread = OneThread(name)
        self._make = make
        self._thing: Thing | None = None

    async def do(self, call: Callable[[Thing], Result]) -> Result:
        """Call a function with the object in the thread; return its result."""
        return await self._thread.run(lambda: self._call(call))

    async def close(self) -> None:
        """Close the object and end the thread; idempotent. The next call creates another object."""
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
