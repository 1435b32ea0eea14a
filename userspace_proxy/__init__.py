"""A Service proxy for Kubernetes, in place of kube-proxy or beside it.

``Proxy`` is the embeddable form of the proxy that ``userspace-proxy`` runs::

    async with Proxy(steering="none") as proxy:
        web = await proxy.add_service("web", port=8080, endpoints=["127.0.0.1:8081"])
        reader, writer = await asyncio.open_connection(*web.address)

Names are imported on first use, so that a program doesn't import packages that it doesn't use.
Nothing is logged unless the program configures logging; the values of a record are its extra
fields.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from .version import __version__

if TYPE_CHECKING:
    from .agent import Options
    from .dataplane import Tuning
    from .embedding import AddedService, Proxy

__all__ = ["AddedService", "Options", "Proxy", "Tuning", "__version__"]

logging.getLogger(__name__).addHandler(logging.NullHandler())


def __getattr__(name: str) -> object:
    if name in {"AddedService", "Proxy"}:
        from . import embedding

        return getattr(embedding, name)
    if name == "Options":
        from .agent import Options

        return Options
    if name == "Tuning":
        from .dataplane import Tuning

        return Tuning
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
