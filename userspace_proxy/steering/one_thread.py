"""One thread for calls that block: none overtakes another, and all are in one namespace."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Result = TypeVar("Result")


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
