"""A Service proxy for Kubernetes that carries every connection through userspace.

``Proxy`` is the embeddable form; the ``userspace-proxy`` command is made of it::

    async with Proxy(steering="none") as proxy:
        web = await proxy.add_service("web", port=8080, endpoints=["127.0.0.1:8081"])
        reader, writer = await asyncio.open_connection(*web.address)

Names are imported when they are first used, so that a small program that needs
only one room of the house does not pay for the others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .agent import AddedService, Options, Proxy

__version__ = "0.1.0.dev0"
__all__ = ["AddedService", "Options", "Proxy", "__version__"]


def __getattr__(name: str) -> object:
    if name in {"AddedService", "Options", "Proxy"}:
        from . import agent

        return getattr(agent, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
