"""A fault server, and the small server whose clients it accepts."""

import asyncio
import contextlib

from tests.tcp_servers import serving
from userspace_proxy_testing.faults.detour_server import FaultServer
from userspace_proxy_testing.faults.toxics import read_toxic

PATIENCE_S = 60.0


async def echo(reader, writer):
    """Echo the bytes and the FIN."""
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()


@contextlib.asynccontextmanager
async def faulty(handler=echo, *toxics, **options):
    """Yield a fault server with these toxics, each given as the arguments of ``toxic``."""
    async with serving(handler) as address:
        faults = FaultServer(address, **options)
        faults.set_toxics([toxic(**given) for given in toxics])
        try:
            yield faults
        finally:
            faults.close()


def toxic(type_, stream="downstream", toxicity=1.0, **attributes):
    return read_toxic(type_, attributes, stream=stream, toxicity=toxicity)


async def connect(faults):
    async with asyncio.timeout(PATIENCE_S):
        return await asyncio.open_connection(*faults.address)


async def ask(faults, sent=b"hello", count=None):
    """Send bytes; return an answer of ``count`` bytes, by default as many as were sent."""
    reader, writer = await connect(faults)
    writer.write(sent)
    try:
        async with asyncio.timeout(PATIENCE_S):
            return await reader.readexactly(len(sent) if count is None else count)
    finally:
        writer.close()
