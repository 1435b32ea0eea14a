"""Finds each name at loopback, as browsers find those in ``localhost``."""

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
        """It holds nothing."""


def browsing() -> aiohttp.ClientSession:
    """Return a session that finds names and keeps cookies as a browser."""
    connector = aiohttp.TCPConnector(resolver=_Loopback(), family=socket.AF_INET)
    jar = aiohttp.CookieJar(unsafe=True)
    return aiohttp.ClientSession(connector=connector, cookie_jar=jar)
