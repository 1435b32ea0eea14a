"""A Service proxy for Kubernetes that carries every connection through userspace.

``Proxy`` is the embeddable form; the ``userspace-proxy`` command is made of it::

    async with Proxy(steering="none") as proxy:
        web = await proxy.add_service("web", port=8080, endpoints=["127.0.0.1:8081"])
        reader, writer = await asyncio.open_connection(*web.address)

Names are imported when they are first used, so that a small program that needs
only one package does not pay for the others. Nothing is logged unless the
program sets logging up; the facts of a record are its extra fields.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .agent import AddedService, Options, Proxy
    from .dataplane import Tuning

__version__ = "0.1.0.dev0"
__all__ = ["AddedService", "Options", "Proxy", "Tuning", "__version__"]


logging.getLogger(__name__).addHandler(logging.NullHandler())


def __getattr__(name: str) -> object:
    if name in {"AddedService", "Options", "Proxy"}:
        from . import agent

        return getattr(agent, name)
    if name == "Tuning":
        from .dataplane import Tuning

        return Tuning
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
