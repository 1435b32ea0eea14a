"""Runs backends' plain functions in threads, so that they may block.

Rule: the threads are daemons. A hanging function prevents neither its proxy nor the program from
ending; a late result is dropped.
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
"""The maximum number of concurrent calls of a backend's function, as in Starlette."""


def is_coroutine_function(function: Callable[..., Any]) -> bool:
    """Return whether this is an ``async def`` function, or an object with such a ``__call__``."""
    call = getattr(function, "__call__", None)  # noqa: B004 - an object with an async method
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(call)


def in_threads(function: HttpHandler) -> AsyncHttpHandler:
    """Return a coroutine function that calls a plain function in one of up to ``MOST`` threads.

    A coroutine function, or an awaitable that a function returns, runs in the event loop.
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
    # Mark the call as running, because a call in a thread can't be cancelled.
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
