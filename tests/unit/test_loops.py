"""Tests of choosing an event loop, and of servers that close while a client connects."""

from __future__ import annotations

import asyncio
import gc
import socket
import subprocess
import sys
import warnings
from collections.abc import Awaitable, Callable

import pytest
import uvloop

from tests.unit.dataplane.waiting import turns
from tests.unit.nodes.dashboard.clusters import live_of, sick_cluster
from tests.unit.port_numbers import free_port
from tests.unit.status.views import make_view
from userspace_proxy.lookup.dns_server import DnsServer
from userspace_proxy.loops import loop_factory
from userspace_proxy.model import ServiceKey, SocketAddress
from userspace_proxy.plan import HealthCheck
from userspace_proxy.status.health_checks import HealthCheckPorts
from userspace_proxy.status.server import StatusServer
from userspace_proxy_kubectl.nodes.dashboard.server import Dashboard
from userspace_proxy_testing.fakes.api_server import FakeApiServer
from userspace_proxy_testing.faults.toxiproxy import ToxiproxyApi

WITHOUT = """\
import sys
sys.modules["uvloop"] = None
from userspace_proxy.loops import loop_factory
import asyncio
print(loop_factory() is asyncio.new_event_loop)
"""


def test_the_loop_factory_uses_uvloop_if_installed():
    assert loop_factory() is uvloop.new_event_loop
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        assert isinstance(runner.get_loop(), uvloop.Loop)


def test_without_uvloop_the_loop_factory_uses_asyncio():
    done = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("True\n", "")


Served = tuple[tuple[str, int], Callable[[], Awaitable[None]]]
ANY = ("127.0.0.1", 0)


async def of_the_page() -> Served:
    server = StatusServer(make_view)
    return await server.serve_admin(ANY), server.close


async def of_all_nodes() -> Served:
    server = Dashboard(live_of(sick_cluster()))
    printed = (await server.serve()).printed
    return ("127.0.0.1", int(printed.split("/")[2].partition(":")[2])), server.close


async def of_names() -> Served:
    server = DnsServer(lambda data, *, is_udp: data)
    return await server.open(SocketAddress(*ANY)), server.close


async def of_objects() -> Served:
    server = FakeApiServer()
    await server.start()
    return ("127.0.0.1", int(server.url.rpartition(":")[2])), server.stop


async def of_health_checks() -> Served:
    server, port = HealthCheckPorts(lambda: True), free_port()
    await server.apply([HealthCheck(ServiceKey("shop", "web"), port, 1)], ["127.0.0.1"])
    return ("127.0.0.1", port), server.close


async def of_toxiproxy() -> Served:
    server = ToxiproxyApi(None)  # type: ignore[arg-type] - nothing is asked
    return await server.serve(ANY), server.close


@pytest.fixture
def new_garbage():
    """Exclude existing objects from garbage collection, which then finds only new garbage."""
    gc.collect()
    gc.freeze()


@pytest.mark.usefixtures("new_garbage")
@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop])
@pytest.mark.parametrize(
    "serve",
    [
        of_the_page,
        of_all_nodes,
        of_names,
        of_objects,
        of_health_checks,
        of_toxiproxy,
    ],
)
def test_a_client_connecting_at_any_point_of_the_shutdown_leaks_no_socket(serve, loop):
    async def end_after(count: int, client: socket.socket) -> None:
        address, close = await serve()
        await turns(3)
        client.connect(address)
        await turns(count)
        await close()
        await turns(2)

    for count in range(6):
        with socket.socket() as client, warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", ResourceWarning)
            with asyncio.Runner(loop_factory=loop) as runner:
                runner.run(end_after(count, client))
            gc.collect()
        assert [str(warning.message) for warning in caught] == [], count
