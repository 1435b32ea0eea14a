"""Resolves each name to loopback, as browsers do for ``localhost``."""

from __future__ import annotations

import socket

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult


class _Loopback(AbstractResolver):
    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = ResolveResult(
            hostname=host, host="127.0.0.1", port=port, family=family, proto=0, flags=0
        )
        return [found]

    async def close(self) -> None:
        """Do nothing, because this resolver holds no resources."""


def browsing() -> aiohttp.ClientSession:
    """Return a session that, like a browser, resolves ``*.localhost`` and keeps cookies."""
    connector = aiohttp.TCPConnector(resolver=_Loopback(), family=socket.AF_INET)
    jar = aiohttp.CookieJar(unsafe=True)
    return aiohttp.ClientSession(connector=connector, cookie_jar=jar)
