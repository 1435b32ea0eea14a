"""A failed background task ends the proxy or is restarted; failures are logged."""

import asyncio

import pytest

from userspace_proxy.agent.rounds import tasks
from userspace_proxy.agent.rounds.tasks import (
    READING_S,
    Pace,
    SharedReading,
    Supervisor,
    first_of,
    pause,
)
from userspace_proxy.errors import SourceError


async def test_an_expected_error_of_a_task_is_returned_by_failed():
    supervisor = Supervisor()

    async def fail():
        raise SourceError("cannot read services/: no such folder")

    waiting = asyncio.ensure_future(supervisor.failed())
    await pause(0)
    supervisor.start("source", fail)
    failure = await asyncio.wait_for(waiting, 30)
    supervisor.start("another source", fail)
    await asyncio.wait(supervisor._tasks)
    assert await supervisor.failed() is failure
    assert str(failure) == "cannot read services/: no such folder"
    assert supervisor.failure is failure
    await supervisor.stop()


async def test_an_unexpected_exception_is_logged_and_the_task_restarts(caplog, monkeypatch):
    monkeypatch.setattr(tasks, "_RESTART_S", 0)
    supervisor = Supervisor()
    attempts = asyncio.Semaphore(0)
    count = 0

    async def stumble():
        nonlocal count
        count += 1
        attempts.release()
        if count == 1:
            raise ZeroDivisionError
        await asyncio.Event().wait()

    supervisor.start("sync", stumble)
    for _ in range(2):
        await asyncio.wait_for(attempts.acquire(), 60)
    assert supervisor.failure is None
    await supervisor.stop()
    (record,) = caplog.records
    assert record.exc_info is not None
    assert record.task == "sync"


async def test_a_failed_one_shot_task_is_logged_and_not_restarted(caplog, monkeypatch):
    monkeypatch.setattr(tasks, "_RESTART_S", 0)
    supervisor, attempts = Supervisor(), []

    async def stumble():
        attempts.append(1)
        raise ZeroDivisionError

    supervisor.start("check", stumble, restarts=False)
    await asyncio.wait_for(asyncio.gather(*supervisor._tasks), 60)
    assert attempts == [1]
    assert [record.task for record in caplog.records] == ["check"]


async def test_the_first_outcome_is_returned_and_other_tasks_are_cancelled():
    cancelled = []

    async def wait():
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.append(True)

    async def outcome(value):
        if isinstance(value, Exception):
            raise value
        return value

    assert await first_of(wait(), outcome(1), outcome(2)) == 1
    with pytest.raises(SourceError):
        await first_of(wait(), outcome(SourceError("cannot read services/")))
    assert cancelled == [True, True]


async def test_stop_ends_all_tasks_and_is_idempotent():
    supervisor = Supervisor()
    ended = []

    async def wait():
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(True)

    began = asyncio.Event()

    async def begin():
        began.set()
        await wait()

    supervisor.start("one", begin)
    supervisor.start("two", begin)
    await asyncio.wait_for(began.wait(), 60)
    await supervisor.stop()
    await supervisor.stop()
    assert ended == [True, True]


async def test_a_task_that_swallowed_its_cancellation_is_cancelled_again(monkeypatch, caplog):
    monkeypatch.setattr(tasks, "_CANCEL_AGAIN_S", 0.01)
    supervisor, began = Supervisor(), asyncio.Event()
    lost = []

    async def lose():
        while len(lost) < 2:
            try:
                began.set()
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                lost.append(True)
        await asyncio.Event().wait()

    supervisor.start("careless", lose)
    await asyncio.wait_for(began.wait(), 60)
    await supervisor.stop()
    assert len(lost) == 2
    text = "bug: background task careless ignored its cancellation, cancelling it again"
    assert caplog.messages == [text] * 2


async def test_a_reading_is_reused_for_requests_shortly_afterwards():
    times, readings = [1.0, 1.0, 1.0, 1.0 + READING_S, 1.0 + READING_S], []

    async def read():
        readings.append(len(times))

    reading = SharedReading(read, lambda: times.pop(0))
    for _ in range(3):
        await reading.refresh()
    assert readings == [4, 1]


async def test_long_work_lets_other_tasks_run_in_between():
    now, turns = 0.0, []
    counted = []
    pace = Pace(lambda: counted.append(now), lambda: now)

    async def others():
        while True:
            turns.append(now)
            await pause(0)

    task = asyncio.create_task(others())
    await pause(0)
    turns.clear()
    for _ in range(20):
        now += 0.004
        await pace.turn()
    task.cancel()
    assert (len(turns), len(counted)) == (6, 20)
