"""Runs async tests on asyncio and on uvloop; a test with a rig must leave no socket open."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
import uvloop

from tests.port_keys import port_key
from userspace_proxy.dataplane import EndpointGroup
from userspace_proxy.dataplane.reactor import Reactor
from userspace_proxy.model.serving import Serving

from .groups import POD_A, POD_B
from .rig import Rig, open_sockets
from .timers import TimerLoop


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> dict[str, Callable]:
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture
async def build() -> AsyncIterator[Callable[..., Rig]]:
    """Yield a function that builds rigs, for tests that set the tuning or the clock."""
    rigs: list[Rig] = []
    before = open_sockets()

    def build(*args: object, **kwargs: object) -> Rig:
        rigs.append(Rig(*args, **kwargs))
        return rigs[-1]

    yield build
    for rig in rigs:
        rig.close()
        assert rig.bugs == []
        assert rig.engine.descriptors.in_use == 0
    assert open_sockets() <= before, "a socket was left open"


@pytest.fixture
async def rig(build: Callable[..., Rig]) -> Rig:
    """A rig with the default tuning."""
    return build()


@pytest.fixture
async def reactor() -> AsyncIterator[Reactor]:
    """A reactor in the test's event loop."""
    reactor = Reactor(asyncio.get_running_loop())
    yield reactor
    reactor.close()


@pytest.fixture
async def timers() -> TimerLoop:
    """The event loop with timers that fire when the test advances the time."""
    return TimerLoop(asyncio.get_running_loop())


@pytest.fixture
async def timed(build: Callable[..., Rig], timers: TimerLoop) -> Rig:
    """A rig with the default tuning, and a clock that the test advances."""
    return build(None, timers.clock, timers)


@pytest.fixture
def group() -> EndpointGroup:
    """The group of a Service port with two endpoints."""
    return EndpointGroup(port_key("shop/web:http"), Serving([POD_A, POD_B]))
