"""Serves a Service inside a program; one of its two backends dies."""

import asyncio

from userspace_proxy import Proxy


async def backend(name: str) -> asyncio.Server:
    """Start a server that sends its name and closes the connection."""

    async def answer(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(f"{name}\n".encode())
        writer.close()

    return await asyncio.start_server(answer, "127.0.0.1", 0)


def address_of(server: asyncio.Server) -> str:
    """Return ``ip:port`` of a server."""
    host, port = server.sockets[0].getsockname()
    return f"{host}:{port}"


async def ask(host: str, port: int) -> str:
    """Connect, and return the text that the server sends."""
    reader, writer = await asyncio.open_connection(host, port)
    text = (await reader.read()).decode().strip()
    writer.close()
    return text


async def main() -> None:
    """Send four requests, stop a backend, send four more: no request fails."""
    one, two = await backend("one"), await backend("two")
    async with Proxy(steering="none") as proxy:
        web = await proxy.add_service(
            "web", port=8080, endpoints=[address_of(one), address_of(two)]
        )
        print("web is at", web.address)
        print("both alive:", [await ask(*web.address) for _ in range(4)])
        one.close()
        print("one is dead:", [await ask(*web.address) for _ in range(4)])
        for port in proxy.status().ports:
            for endpoint in port.endpoints:
                served, failed = endpoint.connections, endpoint.failures
                print(endpoint.address, served, "served,", failed, "failed")
    two.close()


asyncio.run(main())
