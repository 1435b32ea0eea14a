"""The servers of a proxy that show its state; ``test_agent`` asks them."""

import asyncio
import contextlib

from userspace_proxy.agent import Options
from userspace_proxy.agent.status_servers import StatusServers
from userspace_proxy.agent.tasks import Supervisor
from userspace_proxy.testing.fake_steering import FakeSteering

from ..status.views import make_view


async def open_servers(options, plane, start, stack, refresh):
    loop = await start(FakeSteering())
    supervisor = Supervisor()
    stack.push_async_callback(supervisor.stop)
    servers = StatusServers(make_view, make_view)
    await servers.open(options, plane, loop, refresh, supervisor, stack)
    return servers


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
        servers = await open_servers(options, plane, start, stack, refresh)
        assert b"lastUpdated" in await read(servers.health_address, "/healthz")
        assert refreshed == []
        assert b"userspace_proxy_ready" in await read(servers.admin_address, "/metrics")
        assert refreshed == [True]
    assert servers.problems == ()


async def test_without_an_address_nothing_is_opened(plane, start):
    async with contextlib.AsyncExitStack() as stack:
        servers = await open_servers(Options(), plane, start, stack, refresh=None)
        assert (servers.admin_address, servers.health_address) == (None, None)
