"""Every test of the traffic path runs on both event loops, and none may leave a socket behind.

Those that start processes run on the agent's loop alone: each start costs a tenth of a second.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
import uvloop

from .house import House, open_sockets

ON_ONE_LOOP = {"test_base.py", "test_pool.py", "test_serving.py", "test_shared_listeners.py"}


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> dict[str, Callable]:
    factories = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
    if item.path.name in ON_ONE_LOOP:
        del factories["asyncio"]
    return factories


@pytest.fixture
async def build() -> AsyncIterator[Callable[..., House]]:
    """Makes houses, for tests that set the tuning or the clock."""
    houses: list[House] = []
    before = open_sockets()

    def build(*args: object, **kwargs: object) -> House:
        houses.append(House(*args, **kwargs))
        return houses[-1]

    yield build
    for house in houses:
        house.close()
        assert house.bugs == []
        assert house.plane.descriptors.in_use == 0
    assert open_sockets() == before, "a socket was left open"


@pytest.fixture
async def house(build: Callable[..., House]) -> House:
    """A data plane with the figures that it has by default."""
    return build()
