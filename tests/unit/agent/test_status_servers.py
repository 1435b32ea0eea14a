"""The servers of a proxy that show its state; ``test_agent`` queries them."""

import asyncio
import contextlib
import logging
import socket

import pytest

from userspace_proxy.agent import Options, status_servers
from userspace_proxy.agent.rounds.component import OwnAddresses
from userspace_proxy.agent.rounds.tasks import Supervisor
from userspace_proxy.agent.status_servers import PortCounters, Shown, StatusAddresses, StatusServers
from userspace_proxy.facts import StatusFacts
from userspace_proxy.status.history import Figures
from userspace_proxy.status.listening import open_socket
from userspace_proxy.status.observing import Observing
from userspace_proxy.steering import Bind
from userspace_proxy_testing.fakes.steering import FakeSteering

from ..port_numbers import own_name
from ..status.views import make_view
from .samples import Cluster


async def open_servers(options, plane, start, stack, refresh):
    """Open the servers; return the facts about them, and their addresses."""
    loop = await start(FakeSteering())
    supervisor, own, facts = Supervisor(), OwnAddresses(), StatusFacts()
    counters = PortCounters(start.served_ports, plane)
    shown = Shown(make_view, make_view, refresh)
    servers = StatusServers(options, plane, loop, counters, shown, own, Observing())
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


async def test_metrics_requests_refresh_the_counters_and_health_requests_do_not(plane, start):
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


async def test_without_an_address_no_server_is_opened(plane, start):
    async with contextlib.AsyncExitStack() as stack:
        _, own = await open_servers(Options(), plane, start, stack, refresh=None)
        assert own == OwnAddresses()


@pytest.fixture
def server():
    """Yield a coroutine function that listens on an address until the test ends."""
    socks = []

    async def serve(bind):
        socks.append(await open_socket(bind, what="health checks", flag="--healthz-bind-address"))

    yield serve
    for sock in socks:
        sock.close()


@pytest.fixture
def lines(caplog):
    caplog.set_level(logging.INFO)
    return lambda: [record.getMessage().partition(": ")[0] for record in caplog.records]


async def test_an_address_in_use_is_reported_with_its_holder(server, lines):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        addresses = StatusAddresses([(("127.0.0.1", port), server)])
        for _ in range(2):
            await addresses.open()
        (problem,) = addresses.problems
    assert problem.message == (
        f"cannot serve health checks on 127.0.0.1:{port}: Address already in use by {own_name()}"
    )
    assert problem.hint.startswith("stop the program that listens there")
    assert lines() == [f"cannot open status address 127.0.0.1:{port}"]


async def test_an_address_in_use_is_retried_until_free(server, lines, monkeypatch):
    monkeypatch.setattr(status_servers, "_RETRY_S", 0.01)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        host, port = taken.getsockname()
        addresses = StatusAddresses([((host, port), server)])
        await addresses.open()
        running = asyncio.create_task(addresses.run())
    await asyncio.wait_for(running, 60)
    assert addresses.problems == ()
    address = f"status address {host}:{port}"
    assert lines() == [f"cannot open {address}", f"{address} is open"]


async def test_an_address_in_use_causes_no_problem_for_other_addresses(server):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        addresses = StatusAddresses([(taken.getsockname(), server), (("127.0.0.1", 0), server)])
        await addresses.open()
        assert len(addresses.problems) == 1


async def test_port_counters_contain_connections_and_failed_clients(plane, make):
    served_ports = make(Bind.PROXY_PORT)
    served_ports.follow(Cluster().serve("web", "10.96.0.1", "192.0.2.1"))
    counters = PortCounters(served_ports, plane)
    (one,) = served_ports
    assert await counters.take() == [(one.plan.key, Figures())]
    endpoint = one.plan.serving.endpoints[0]
    one.group.counters_of(endpoint).connections += 3
    one.group.counters_of(endpoint).client_aborts += 2
    one.group.counters.refused += 1
    one.group.revision += 1
    assert await counters.take() == [(one.plan.key, Figures(connections=3, failed=3))]


async def test_port_counters_are_omitted_for_too_many_service_ports(plane, make, monkeypatch):
    monkeypatch.setattr(status_servers, "KEPT_MAX", 0)
    served_ports = make(Bind.PROXY_PORT)
    served_ports.follow(Cluster().serve("web", "10.96.0.1", "192.0.2.1"))
    assert await PortCounters(served_ports, plane).take() is None
