"""Runs backends' plain functions in threads, so that they may block.

Rule: the threads are daemons. A hanging function prevents neither its proxy nor the program from
ending; its later result is dropped.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from .calls import CallResult
from .http_serving import AsyncHttpHandler, HttpAnswer, HttpHandler, HttpRequest

MOST = 40
"""The maximum of concurrent calls of a backend's function, as in Starlette; further calls wait."""


def is_coroutine_function(function: Callable[..., Any]) -> bool:
    """Return whether calls are awaited: for an ``async def``, or an object with such a method."""
    call = getattr(function, "__call__", None)  # noqa: B004 - an object with an async method
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(call)


def in_threads(function: HttpHandler) -> AsyncHttpHandler:
    """Return a coroutine function that calls this one in a thread, ``MOST`` at a time.

    If the function returns an awaitable, that is awaited in the event loop.
    """
    room = asyncio.Semaphore(MOST)

    async def handle(request: HttpRequest) -> HttpAnswer:
        if is_coroutine_function(function):
            answer = function(request)
        else:
            async with room:
                answer = await _call_in_thread(function, request)
        return await answer if inspect.isawaitable(answer) else answer

    return handle


async def _call_in_thread(function: Callable[..., Any], argument: object) -> Any:
    result: Future[CallResult] = Future()
    # From here on the call can't be cancelled, because threads can't.
    result.set_running_or_notify_cancel()

    def run() -> None:
        try:
            result.set_result(CallResult(function(argument)))
        except BaseException as exc:  # noqa: BLE001 - sys.exit() and pytest.fail(), too
            result.set_result(CallResult(error=exc))

    threading.Thread(target=run, name="userspace-proxy backend", daemon=True).start()
    outcome = await asyncio.wrap_future(result)
    if outcome.error is not None:
        raise outcome.error
    return outcome.value
