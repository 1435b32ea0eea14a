"""Fixtures for planes and workers, which check that no socket is left open."""

import asyncio
import contextlib
import gc
from collections.abc import Callable

import pytest
import pytest_asyncio
import uvloop

from userspace_proxy.plane.messages import Running

from ..dataplane.peers import TcpEndpoint
from ..dataplane.rig import open_sockets
from ..dataplane.waiting import turns, until
from .control import Control
from .planes import PLANES, SharedRig, make_plane
from .pool import Pool

# Tests that start processes run only on the agent's loop, because each start takes 0.1 s.
ON_ONE_LOOP = {
    "test_link.py",
    "test_workers.py",
    "test_watchdog.py",
    "test_substitutes.py",
    "test_plane.py",
    "test_listeners.py",
}


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> dict[str, Callable]:
    factories = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
    if item.path.name in ON_ONE_LOOP:
        del factories["asyncio"]
    return factories


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=PLANES.values(), ids=PLANES)
async def plane(request):
    """A plane that all tests of a module share; each test opens its own groups."""
    with contextlib.closing(make_plane(request.param)) as plane:
        await until(lambda: plane.state().is_running)
        yield plane
        assert [worker.restarts for worker in plane.state().workers] == [0] * (request.param or 0)


@pytest_asyncio.fixture(loop_scope="module")
async def rig(plane):
    rig = SharedRig(plane=plane)
    yield rig
    rig.close_kept()
    assert rig.bugs == []


@pytest_asyncio.fixture(loop_scope="module", params=[None, 2], ids=["in-loop", "2-workers"])
async def own_rig(request):
    """A rig with its own data plane, which may be drained and closed."""
    before = open_sockets()
    rig = SharedRig(plane=make_plane(request.param))
    yield rig
    rig.close()
    assert open_sockets() <= before, "a socket was left open"


@pytest.fixture
async def make():
    before, pools = open_sockets(), []

    async def make(count=2, **kwargs):
        pools.append(Pool(count, **kwargs))
        await pools[-1].open()
        return pools[-1]

    yield make
    for pool in pools:
        pool.close()
        assert pool.bugs == []
        assert pool.timers.waiting == 0
    assert open_sockets() <= before, "a socket was left open"


@pytest.fixture
async def pool(make):
    return await make()


@pytest.fixture
async def idle(clean_logging, monkeypatch):
    """A worker that hasn't received a message yet."""
    before = open_sockets()
    # A worker freezes all objects of its process, which would include the test's garbage.
    monkeypatch.setattr(gc, "freeze", lambda: None)
    control = Control()
    yield control
    for closeable in reversed(control.kept):
        closeable.close()
    control.main.close()
    await turns(2)
    assert open_sockets() <= before, "a socket was left open"


@pytest.fixture
async def control(idle):
    """A worker that has started."""
    idle.start()
    await idle.hear(Running)
    return idle


@pytest.fixture
def pod(control):
    return control.keep(TcpEndpoint())
