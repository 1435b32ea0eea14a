"""The proxy as one object for programs that embed it, which add Services by calls.

::

    async with Proxy(steering="none") as proxy:
        web = await proxy.add_service("web", port=8080, endpoints=["127.0.0.1:8081"])
        reader, writer = await asyncio.open_connection(*web.address)

With steering ``none`` it needs no privileges and starts no thread or process.
"""

from __future__ import annotations

from typing import NoReturn

from ..agent.rounds.options import Options
from ..sources import Source
from ..steering import Steering
from .blocking import BlockingProxy
from .embedded_proxy import EmbeddedProxy


class Proxy(EmbeddedProxy):
    """A running Service proxy.

    Args:
        steering: ``none`` (no privileges: frontends are loopback addresses), ``local``,
            ``nftables``, ``iptables`` or ``auto``; or your own steering.
        source: Where Services come from; None: only from :meth:`add_service`.
        options: Everything else.
    """

    @staticmethod
    def in_thread(
        *,
        steering: str | Steering = "none",
        source: Source | None = None,
        options: Options | None = None,
    ) -> BlockingProxy:
        """Return a proxy for programs without an event loop: ``with`` starts and stops it.

        It has the same methods without ``await``, and runs in its own thread. The arguments are
        those of :class:`Proxy`; a source must not be tied to another event loop.
        """
        return BlockingProxy(steering=steering, source=source, options=options)

    def __enter__(self) -> NoReturn:
        raise TypeError("Proxy: use `async with Proxy(…)`, or `with Proxy.in_thread(…)`")

    def __exit__(self, *_exc: object) -> None:
        """Python requires it before it calls ``__enter__``."""
