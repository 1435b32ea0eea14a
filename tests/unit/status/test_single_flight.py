import asyncio

import pytest

from userspace_proxy.status.single_flight import SingleFlight


class Making:
    """A computation that returns a new object once ``go`` is set."""

    def __init__(self):
        self.calls = 0
        self.began = asyncio.Event()
        self.go = asyncio.Event()

    async def __call__(self):
        self.calls += 1
        self.began.set()
        await self.go.wait()
        return object()


async def test_requests_waiting_for_the_same_key_share_a_result():
    flights, making = SingleFlight(), Making()
    async with asyncio.TaskGroup() as tasks:
        first = tasks.create_task(flights.get("a", making))
        await making.began.wait()
        later = [tasks.create_task(flights.get("a", making)) for _ in range(5)]
        other = tasks.create_task(flights.get("b", making))
        making.go.set()
    shared = {task.result() for task in later}
    assert len(shared) == 1
    assert len({first.result(), other.result(), *shared}) == making.calls == 3


async def test_a_request_arriving_after_the_computation_began_gets_a_later_result():
    flights, making = SingleFlight(), Making()
    making.go.set()
    assert await flights.get("a", making) is not await flights.get("a", making)


async def test_after_a_failure_the_next_request_computes_the_result():
    flights, making = SingleFlight(), Making()

    async def fail():
        await making()
        raise ValueError("failed")

    async with asyncio.TaskGroup() as tasks:
        blocking = tasks.create_task(flights.get("b", making))
        await making.began.wait()
        failing = asyncio.ensure_future(flights.get("a", fail))
        next_one = tasks.create_task(flights.get("a", making))
        making.go.set()
        with pytest.raises(ValueError, match="failed"):
            await failing
    assert next_one.result() is not blocking.result()
