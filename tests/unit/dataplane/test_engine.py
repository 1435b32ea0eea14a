import asyncio

from userspace_proxy.dataplane import Tuning
from userspace_proxy.dataplane.engine import Engine

from .rig import open_sockets


async def test_closing_an_engine_twice_leaves_nothing_open():
    before = open_sockets()
    engine = Engine(asyncio.get_running_loop(), Tuning(descriptor_limit=7))
    assert (engine.descriptors.limit, open_sockets()) == (7, before + 1)
    for _ in range(2):
        engine.close()
    assert open_sockets() == before
