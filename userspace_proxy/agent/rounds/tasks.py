"""Runs background tasks, and reports their failures; no other module of the agent starts tasks.

A task that raises a :class:`UserspaceProxyError` stops the proxy: the caller of
:meth:`Supervisor.failed` receives it. Any other exception is a bug: it is logged with its
traceback, and the task restarts after a pause, unless it should run only once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from ...clocks import Clocks
from ...errors import UserspaceProxyError
from ...log_fields import FieldLogger
from ...pacing import Pacing

_log = FieldLogger("userspace_proxy.agent")

_T = TypeVar("_T")

# The pause before a failed task restarts, so that a recurring bug doesn't flood the log.
_RESTART_S = 1.0
# Seconds after which a task that still runs is cancelled again; cleaning up takes far less time.
_CANCEL_AGAIN_S = 10.0
# The share of a thread's time that readings may take.
_READING_SHARE = 0.05
READING_S = 1.0
"""The maximum age of a reading in seconds, unless readings take longer than their share."""
# The time for which a round may block the event loop: connections tolerate a delay of 10 ms.
_TURN_S = 0.01


class Supervisor:
    """The background tasks of one proxy."""

    def __init__(self) -> None:
        self.failure: UserspaceProxyError | None = None
        """The error with which a task stopped the proxy; None without such an error."""
        self._tasks: list[asyncio.Task[None]] = []
        self._has_failed = asyncio.Event()

    def start(
        self, name: str, run: Callable[[], Awaitable[None]], *, restarts: bool = True
    ) -> None:
        """Run a function as a task until it returns, stops the proxy, or :meth:`stop` is called.

        Args:
            run: Called again after a pause if it raised an exception other than
                UserspaceProxyError.
            restarts: If False, ``run`` isn't called again.
        """
        self._tasks.append(asyncio.create_task(self._guard(name, run, restarts), name=name))

    async def failed(self) -> UserspaceProxyError:
        """Wait for a UserspaceProxyError raised by a task, and return the error."""
        while self.failure is None:
            await self._has_failed.wait()
        return self.failure

    async def stop(self, name: str | None = None) -> None:
        """Cancel all tasks, or tasks with one name, and wait until they are done; idempotent.

        An error in a task's clean-up may replace its cancellation. Such a task is cancelled again.
        """
        tasks = {task for task in self._tasks if name in (None, task.get_name())}
        self._tasks = [task for task in self._tasks if task not in tasks]
        while tasks:
            for task in tasks:
                task.cancel()
            _, tasks = await asyncio.wait(tasks, timeout=_CANCEL_AGAIN_S)
            for task in tasks:
                _log.warning(
                    "bug: background task %(task)s ignored its cancellation, cancelling it again",
                    extra={"task": task.get_name()},
                )

    async def _guard(self, name: str, run: Callable[[], Awaitable[None]], restarts: bool) -> None:
        while True:
            try:
                await run()
                return
            except UserspaceProxyError as exc:
                self.failure = self.failure or exc
                self._has_failed.set()
                return
            except Exception:
                _log.exception(
                    "bug: background task %(task)s failed",
                    extra={"task": name, "restarts": restarts},
                )
            if not restarts:
                return
            await pause(_RESTART_S)


async def first_of(*awaitables: Awaitable[_T]) -> _T:
    """Wait until one awaitable is done, cancel the others, and return or raise its outcome.

    If several are done, the outcome of the first of these arguments counts.
    """
    futures = [asyncio.ensure_future(awaitable) for awaitable in awaitables]
    try:
        await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)
        return next(future for future in futures if future.done()).result()
    finally:
        for future in futures:
            future.cancel()
        await asyncio.gather(*futures, return_exceptions=True)


async def pause(seconds: float) -> None:
    """Sleep; the agent calls no other function to wait for time to pass."""
    await asyncio.sleep(seconds)  # noqa: TID251 - the back-off itself


class Pace:
    """The pace of a long round, which yields to the loop's other tasks.

    Args:
        on_turn: Called at each turn, to show progress.
    """

    def __init__(
        self,
        on_turn: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = Clocks.monotonic,
    ) -> None:
        self._on_turn = on_turn
        self._clock = clock
        self._until = clock() + _TURN_S

    async def turn(self) -> None:
        """Call ``on_turn``; yield to other tasks if this task has blocked the loop for too long."""
        self._on_turn()
        if self._clock() >= self._until:
            await pause(0)
            self._until = self._clock() + _TURN_S


class SharedReading:
    """A reading taken on request, about once per READING_S; requests in between share it."""

    def __init__(self, read: Callable[[], Awaitable[None]], clock: Callable[[], float]) -> None:
        self._read = read
        self._clock = clock
        self._pacing = Pacing(_READING_SHARE, READING_S)
        self._reading = asyncio.Lock()

    async def refresh(self) -> None:
        """Take a new reading unless the last one is recent."""
        async with self._reading:
            began = self._clock()
            if began < self._pacing.due:
                return
            try:
                await self._read()
            finally:
                self._pacing.note(began, self._clock())
