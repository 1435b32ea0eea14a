"""Runs DNS servers for the duration of a block."""

import asyncio
import contextlib

from userspace_proxy.lookup.dns_server import DnsServer
from userspace_proxy.model import SocketAddress


@contextlib.asynccontextmanager
async def serving(respond, ip="127.0.0.1"):
    """Serve a function's responses over UDP and TCP; yield the address."""
    server = DnsServer(respond)
    address = await server.open(SocketAddress(ip, 0))
    running = asyncio.ensure_future(server.run())
    try:
        yield address
    finally:
        running.cancel()
        await server.close()
