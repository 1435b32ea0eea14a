"""Servers and clients around a proxy."""

import asyncio
import contextlib

from tests.tcp_servers import serving
from tests.unit.port_numbers import free_port


@contextlib.asynccontextmanager
async def backend(name):
    """Run a server that sends its name and closes connections; yield its address."""

    async def answer(_reader, writer):
        writer.write(name)

    async with serving(answer) as address:
        yield str(address)


async def ask(address):
    reader, writer = await asyncio.open_connection(*address)
    try:
        return await reader.read()
    finally:
        writer.close()
        await writer.wait_closed()


async def answers(address, count):
    return [await ask(address) for _ in range(count)]


def free_address():
    """Return a loopback address on which nothing listens."""
    return f"127.0.0.1:{free_port()}"


async def http_status(port):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
        return (await reader.readline()).split()[1]
    finally:
        writer.close()
        await writer.wait_closed()
