"""Provides the proxy as an object that programs embed, and to which they add Services by calls.

::

    async with Proxy(steering="none") as proxy:
        web = await proxy.add_service("web", port=8080, endpoints=["127.0.0.1:8081"])
        reader, writer = await asyncio.open_connection(*web.address)

With ``none`` steering, the proxy needs no privileges and starts no thread or process.
"""

from .blocking import Proxy
from .embedded_proxy import AddedService

__all__ = ["AddedService", "Proxy"]
