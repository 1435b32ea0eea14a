"""Tests of calls into an event loop that runs in a thread."""

import asyncio
import os
import threading

import pytest

from userspace_proxy.embedding.loop_thread import LoopThread


@pytest.fixture
def thread():
    thread = LoopThread()
    thread.start()
    yield thread
    thread.close()


def test_calls_in_the_loop_thread_return_results_and_raise_exceptions(thread):
    async def fails():
        raise LookupError("no such thing")

    assert thread.call(asyncio.sleep(0, "done")) == "done"  # noqa: TID251 - yields once
    assert thread.do(lambda: 7) == 7
    with pytest.raises(LookupError, match="no such thing"):
        thread.call(fails())


def test_all_calls_run_in_the_thread_of_the_event_loop(thread):
    names = {thread.do(lambda: threading.current_thread().name) for _ in range(3)}
    assert names == {"userspace-proxy"}


def test_a_blocking_call_in_the_loop_thread_is_an_error_instead_of_a_deadlock(thread):
    with pytest.raises(RuntimeError, match="would wait for itself"):
        thread.do(lambda: thread.do(int))


def test_a_call_after_close_is_an_error(thread):
    thread.close()
    thread.close()
    assert not thread.is_running
    with pytest.raises(RuntimeError, match="isn't running"):
        thread.do(int)


def test_close_cancels_running_tasks(thread):
    ended = threading.Event()

    async def waits():
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    tasks = []
    thread.do(lambda: tasks.append(asyncio.ensure_future(waits())))
    thread.close()
    assert ended.is_set()


def test_calls_during_close_raise_an_error(thread):
    errors, begun = [], threading.Barrier(4)

    def call_until_the_end():
        begun.wait()
        try:
            while True:
                thread.do(int)
        except RuntimeError as exc:
            errors.append(str(exc))

    # A thread that waits forever would prevent the exit of this process, unless it's a daemon.
    callers = [threading.Thread(target=call_until_the_end, daemon=True) for _ in range(3)]
    for caller in callers:
        caller.start()
    begun.wait()
    thread.close()
    for caller in callers:
        caller.join(60)
    assert [error.partition(":")[0] for error in errors] == ["this proxy isn't running"] * 3


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_calls_raise_an_error_after_a_function_ended_the_loop(thread):
    def ends():
        raise SystemExit

    def call_until_the_end():
        while True:
            thread.do(int)

    thread.do(lambda: asyncio.get_running_loop().call_soon(ends))
    with pytest.raises(RuntimeError, match="isn't running"):
        call_until_the_end()


def test_a_call_in_a_forked_process_is_an_error_mentioning_the_fork(thread):
    pid = os.fork()
    if pid == 0:
        try:
            thread.do(int)
        except RuntimeError as exc:
            os._exit(7 if "forked" in str(exc) else 8)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
