"""Background tasks whose failures are always reported.

A task that raises an error on purpose (:class:`UserspaceProxyError`) ends the proxy:
the caller of :meth:`Supervisor.failed` receives it. Anything else is a bug:
it is logged with its traceback, and the task starts again after a pause.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from ..errors import UserspaceProxyError

_log = logging.getLogger("userspace_proxy.agent")

# Long enough that a bug that strikes at once doesn't fill the log, short enough to be a hiccup.
_RESTART_S = 1.0
# Nobody notices.
_TURN_S = 0.01


class Supervisor:
    """The background tasks of one proxy."""

    def __init__(self) -> None:
        self._tasks: list[asyncio.Task[None]] = []
        self._failure: asyncio.Future[UserspaceProxyError] | None = None

    @property
    def failure(self) -> UserspaceProxyError | None:
        """What ended a task on purpose; None while all is well."""
        if self._failure is not None and self._failure.done() and not self._failure.cancelled():
            return self._failure.result()
        return None

    def start(self, name: str, run: Callable[[], Awaitable[None]]) -> None:
        """Run something until :meth:`stop`."""
        if self._failure is None:
            self._failure = asyncio.get_running_loop().create_future()
        self._tasks.append(asyncio.create_task(self._guard(name, run), name=name))

    async def failed(self) -> UserspaceProxyError:
        """Wait until a task ends on purpose, and return its error."""
        if self._failure is None:
            self._failure = asyncio.get_running_loop().create_future()
        return await asyncio.shield(self._failure)

    async def stop(self) -> None:
        """Cancel all tasks and wait for their end; idempotent."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _guard(self, name: str, run: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await run()
            except UserspaceProxyError as exc:
                if self._failure is not None and not self._failure.done():
                    self._failure.set_result(exc)
                return
            except Exception:
                _log.exception(
                    "bug: a background task failed and was restarted", extra={"task": name}
                )
            else:
                return
            await pause(_RESTART_S)


async def pause(seconds: float) -> None:
    """Wait; the one place of this room where time passes."""
    await asyncio.sleep(seconds)  # noqa: TID251 - the back-off itself


class Pace:
    """Lets others of the loop have their turn in between, where much is done at once."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._until = clock() + _TURN_S

    async def turn(self) -> None:
        """Give up the loop for a turn if it was held for long."""
        if self._clock() >= self._until:
            await pause(0)
            self._until = self._clock() + _TURN_S
