"""An event loop in a thread of its own, for programs that have none."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

_T = TypeVar("_T")


class LoopThread:
    """An event loop that runs in a thread from :meth:`start` to :meth:`close`.

    The thread doesn't keep the program from ending.
    """

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop
        self._thread = threading.Thread(target=self._run, name="userspace-proxy", daemon=True)

    def start(self) -> None:
        """Start the thread, once."""
        self._loop = asyncio.new_event_loop()
        self._thread.start()

    @property
    def ident(self) -> int:
        """The thread's identifier."""
        assert self._thread.ident is not None, "it was started"
        return self._thread.ident

    @property
    def is_running(self) -> bool:
        """Whether it was started, and hasn't been closed."""
        return self._thread.is_alive()

    def call(self, coroutine: Coroutine[Any, Any, _T]) -> _T:
        """Run a coroutine in the loop, and return its result or raise its exception.

        An exception in the calling thread, such as KeyboardInterrupt, cancels the coroutine.

        Raises:
            RuntimeError: The loop is closed, or this is its own thread.
        """
        if threading.current_thread() is self._thread:
            coroutine.close()
            raise RuntimeError("a blocking call in the proxy's own thread would wait for itself")
        if not self.is_running:
            coroutine.close()
            raise RuntimeError(
                "this proxy isn't running: use it in a `with` block, or call start()"
            )
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def do(self, function: Callable[[], _T]) -> _T:
        """Call a function in the loop, and return its result or raise its exception."""

        async def called() -> _T:
            return function()

        return self.call(called())

    def close(self) -> None:
        """End the loop and its thread; what still runs in it is cancelled. Idempotent."""
        if self.is_running:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        finally:
            left = asyncio.all_tasks(self._loop)
            for task in left:
                task.cancel()
            self._loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.run_until_complete(self._loop.shutdown_default_executor())
            self._loop.close()
