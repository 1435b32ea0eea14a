"""Every test of the traffic path runs on both event loops, and none may leave a socket behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
import uvloop

from .house import House, open_sockets
from .timers import TimerLoop


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> dict[str, Callable]:
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


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
        assert house.engine.descriptors.in_use == 0
    assert open_sockets() == before, "a socket was left open"


@pytest.fixture
async def house(build: Callable[..., House]) -> House:
    """A data plane with the figures that it has by default."""
    return build()


@pytest.fixture
async def timers() -> TimerLoop:
    """The loop, but for its timers: those fire when the test lets time pass."""
    return TimerLoop(asyncio.get_running_loop())
