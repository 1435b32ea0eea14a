"""Connections at any stage are reset when their server stops."""

import asyncio
import socket

import pytest

from tests.unit.dataplane.waiting import until
from userspace_proxy_testing.connections import Connections


@pytest.fixture
def accepted():
    """Yield a client, and the connection that its server has accepted."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname(), timeout=60) as client,
    ):
        yield client, listener.accept()[0]


async def echo_one(reader, writer):
    writer.write(await reader.readexactly(1))


async def test_a_connection_is_served_and_then_closed(accepted):
    client, server = accepted
    connections = Connections()
    connections.serve(server, echo_one)
    client.sendall(b"a")
    assert await asyncio.to_thread(client.recv, 10) == b"a"
    assert await asyncio.to_thread(client.recv, 10) == b""
    connections.reset()


@pytest.mark.parametrize("turns", range(4))
async def test_a_connection_is_reset_at_any_stage(accepted, turns):
    client, server = accepted
    connections, began = Connections(), []

    async def serve(reader, writer):
        began.append(writer)
        await reader.read(1)

    connections.serve(server, serve)
    for _ in range(turns):
        await asyncio.sleep(0)  # noqa: TID251 - one turn of the loop
    connections.reset()
    with pytest.raises(ConnectionResetError):
        await asyncio.to_thread(client.recv, 1)
    assert len(began) <= 1
    await until(lambda: not connections._served, "the end of its task")


async def test_reset_cancels_the_function_serving_a_connection(accepted):
    _, server = accepted
    connections, ended = Connections(), asyncio.Event()

    async def serve(reader, writer):
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    connections.serve(server, serve)
    await until(lambda: connections._served, "its task")
    connections.reset()
    async with asyncio.timeout(60):
        await ended.wait()


async def test_a_connection_can_be_reset_only_inside_its_keep_block(accepted):
    client, server = accepted
    connections = Connections()
    _, writer = await asyncio.open_connection(sock=server)
    with connections.keep(writer):
        connections.reset()
    with pytest.raises(ConnectionResetError):
        await asyncio.to_thread(client.recv, 1)
    assert not connections._writers
