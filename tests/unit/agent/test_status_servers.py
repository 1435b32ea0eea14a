"""The servers of a proxy that show its state; ``test_agent`` asks them."""

import asyncio
import contextlib

from userspace_proxy.agent import Options
from userspace_proxy.agent.rounds.component import OwnAddresses
from userspace_proxy.agent.rounds.tasks import Supervisor
from userspace_proxy.agent.status_servers import Shown, StatusServers
from userspace_proxy.facts import StatusFacts
from userspace_proxy.testing.fake_steering import FakeSteering

from ..status.views import make_view


async def open_servers(options, plane, start, stack, refresh):
    """Return what the servers show of themselves, and their addresses."""
    loop = await start(FakeSteering())
    supervisor, own, facts = Supervisor(), OwnAddresses(), StatusFacts()
    servers = StatusServers(options, plane, loop, Shown(make_view, make_view, refresh), own)
    stack.push_async_callback(servers.close)
    stack.push_async_callback(supervisor.stop)
    await servers.start(supervisor)
    servers.show(facts)
    return facts, own


async def read(address, path):
    reader, writer = await asyncio.open_connection(*address)
    writer.write(f"GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
    try:
        return await reader.read()
    finally:
        writer.close()


async def test_counters_are_brought_up_to_date_before_they_are_shown(plane, start):
    refreshed = []

    async def refresh():
        refreshed.append(True)

    async with contextlib.AsyncExitStack() as stack:
        options = Options(admin=("127.0.0.1", 0), health=("127.0.0.1", 0))
        facts, own = await open_servers(options, plane, start, stack, refresh)
        assert b"lastUpdated" in await read(own.health, "/healthz")
        assert refreshed == []
        assert b"userspace_proxy_ready" in await read(own.admin, "/metrics")
        assert refreshed == [True]
    assert facts.unserved == []


async def test_without_an_address_nothing_is_opened(plane, start):
    async with contextlib.AsyncExitStack() as stack:
        _, own = await open_servers(Options(), plane, start, stack, refresh=None)
        assert own == OwnAddresses()
