import asyncio

import pytest

from tests.tcp_servers import serving
from userspace_proxy.model import SocketAddress


async def test_a_block_that_fails_ends_the_server_its_connections_and_its_handlers() -> None:
    begun = asyncio.Event()
    ended: list[str] = []
    clients: list[tuple[SocketAddress, asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def hold(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("handler")

    async def fail() -> None:
        async with asyncio.timeout(60), serving(hold) as address:
            clients.append((address, *await asyncio.open_connection(*address)))
            await begun.wait()
            raise LookupError("the test failed")

    with pytest.raises(LookupError, match="the test failed"):
        await fail()
    ((address, reader, writer),) = clients
    assert await reader.read() == b""
    assert ended == ["handler"]
    writer.close()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(*address)
