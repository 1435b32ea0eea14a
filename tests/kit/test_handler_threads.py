"""Plain functions of a test run in threads, because they may block."""

import asyncio
import functools
import threading

import pytest

from userspace_proxy_testing.handler_threads import MOST, in_threads, is_coroutine_function
from userspace_proxy_testing.http_serving import HttpRequest

REQUEST = HttpRequest("GET", "/a", {}, b"")


def place(_):
    thread = threading.current_thread()
    return f"{thread.name} {thread.daemon}"


async def async_place(request):
    return place(request)


def returns_a_coroutine(request):
    return async_place(request)


class Handler:
    """An object whose ``__call__`` is a coroutine function."""

    async def __call__(self, request):
        return place(request)


async def test_a_plain_function_runs_in_a_daemon_thread():
    assert await in_threads(place)(REQUEST) == "userspace-proxy backend True"


@pytest.mark.parametrize(
    "function",
    [
        pytest.param(async_place, id="function"),
        pytest.param(Handler(), id="object"),
        pytest.param(functools.partial(async_place), id="partial"),
        pytest.param(returns_a_coroutine, id="result"),
    ],
)
async def test_a_coroutine_runs_in_the_event_loop(function):
    assert await in_threads(function)(REQUEST) == place(None)


def test_an_object_with_an_asynchronous_call_method_is_a_coroutine_function():
    assert is_coroutine_function(Handler())
    assert not is_coroutine_function(place)


@pytest.mark.parametrize(
    ("error", "expected"), [(SystemExit, SystemExit), (StopIteration, RuntimeError)]
)
async def test_an_exception_in_a_threaded_function_is_raised_in_the_caller(error, expected):
    def fail(_):
        raise error

    with pytest.raises(expected):
        await in_threads(fail)(REQUEST)


async def test_the_number_of_threads_of_a_function_is_bounded():
    all_begin, may_end, began = threading.Barrier(MOST + 1), threading.Event(), []

    def wait(request):
        began.append(request)
        all_begin.wait(60)
        may_end.wait(60)
        return "done"

    handle = in_threads(wait)
    calls = [asyncio.create_task(handle(REQUEST)) for _ in range(MOST + 1)]
    await asyncio.to_thread(all_begin.wait, 60)
    calls[-1].cancel()
    may_end.set()
    assert await asyncio.gather(*calls[:-1]) == ["done"] * MOST
    assert len(began) == MOST


async def test_a_result_that_arrives_after_cancellation_is_dropped():
    may_end, began = threading.Event(), threading.Event()

    def wait(_):
        began.set()
        may_end.wait(60)

    call = asyncio.create_task(in_threads(wait)(REQUEST))
    await asyncio.to_thread(began.wait, 60)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    may_end.set()
