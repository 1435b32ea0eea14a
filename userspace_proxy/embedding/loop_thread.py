"""Runs an event loop in its own thread, for programs without an event loop."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError, Future
from typing import Any, TypeVar

from ..clocks import Clocks
from ..linux import require_own_threads

_T = TypeVar("_T")
_NOT_RUNNING = "this proxy isn't running: use it in a `with` block, or call start()"
_FORKED = (
    "this proxy runs in the process that this one was forked from: "
    "before the fork, take what is needed of it, such as an address"
)


class LoopThread:
    """An event loop that runs in a thread from :meth:`start` to :meth:`close`.

    The program may exit while the thread runs, because it is a daemon thread.
    """

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop
        self._lock = threading.Lock()
        """Serializes calls with the loop's end: a call submitted later would wait forever."""
        self._takes_calls = False
        self._thread = threading.Thread(target=self._run, name="userspace-proxy", daemon=True)

    def start(self) -> None:
        """Start the thread; call this once.

        Raises:
            UserspaceProxyError: A library has replaced threads, sockets or select.
        """
        require_own_threads()
        self._loop = asyncio.new_event_loop()
        # Use the real clock, because a test may have frozen time in all threads.
        self._loop.time = Clocks.monotonic  # type: ignore[method-assign]
        self._takes_calls = True
        self._pid = os.getpid()
        self._thread.start()

    @property
    def ident(self) -> int:
        assert self._thread.ident is not None, "it was started"
        return self._thread.ident

    @property
    def is_running(self) -> bool:
        """Whether the thread is running; false in a forked process, which doesn't inherit it."""
        return self._thread.is_alive()

    def call(self, coroutine: Coroutine[Any, Any, _T]) -> _T:
        """Run a coroutine in the loop, and return its result or raise its exception.

        An exception in the calling thread, such as KeyboardInterrupt, cancels the coroutine.

        Raises:
            RuntimeError: The loop is closed, closes during the call, or runs in the calling thread.
        """
        try:
            future = self._submit(coroutine)
        except RuntimeError:
            coroutine.close()
            raise
        try:
            return future.result()
        except CancelledError:
            if self._takes_calls:
                raise
            raise RuntimeError(_NOT_RUNNING) from None
        except BaseException:
            future.cancel()
            raise

    def _submit(self, coroutine: Coroutine[Any, Any, _T]) -> Future[_T]:
        self.check_caller()
        with self._lock:
            # Check the thread, which a forked process doesn't inherit.
            if self._takes_calls and self.is_running:
                return asyncio.run_coroutine_threadsafe(coroutine, self._loop)
            is_forked = self._takes_calls and self._pid != os.getpid()
        raise RuntimeError(_FORKED if is_forked else _NOT_RUNNING)

    def check_caller(self) -> None:
        """Raise a RuntimeError in the loop's own thread, which must not wait for itself."""
        if threading.current_thread() is self._thread:
            raise RuntimeError("a blocking call in the proxy's own thread would wait for itself")

    def do(self, function: Callable[[], _T]) -> _T:
        """Call a function in the loop, and return its result or raise its exception."""

        async def called() -> _T:
            return function()

        return self.call(called())

    def close(self) -> None:
        """Stop the loop and its thread, and cancel tasks that still run. Idempotent."""
        with self._lock:
            if self._takes_calls and self.is_running:
                self._loop.call_soon_threadsafe(self._loop.stop)
            self._takes_calls = False
        if self.is_running:
            self._thread.join()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        finally:
            with self._lock:
                self._takes_calls = False
            # Calls submitted just now become tasks in this iteration, and are cancelled below.
            self._loop.run_until_complete(asyncio.sleep(0))  # noqa: TID251 - yields once
            left = asyncio.all_tasks(self._loop)
            for task in left:
                task.cancel()
            self._loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.run_until_complete(self._loop.shutdown_default_executor())
            self._loop.close()
