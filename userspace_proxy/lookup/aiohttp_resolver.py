"""Provides a resolver of Service names for aiohttp's connector."""

from __future__ import annotations

import socket

from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import DefaultResolver

from .in_process import Names, look_up


class ServiceResolver(AbstractResolver):
    """Resolves Service names; passes other names to aiohttp's default resolver.

    ``TCPConnector(resolver=…)`` doesn't close the resolver. A result contains the port to dial,
    which may differ from the URL's port: see ``Proxy.names``.
    """

    def __init__(self, names: Names) -> None:
        self._names = names
        self._default: AbstractResolver | None = None

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Resolve a name for aiohttp.

        Raises:
            OSError: The name doesn't exist, or has no address of the family.
        """
        found = self._names.find(host)
        if found is None:
            return await self._elsewhere(host, port, family)
        if found.elsewhere:
            return await self._elsewhere(found.elsewhere, port, family)
        infos = look_up(
            self._names, socket.getaddrinfo, found.name, port, family, socket.SOCK_STREAM
        )
        return [
            ResolveResult(
                hostname=host,
                host=address[0],
                port=address[1],
                family=of,
                proto=proto,
                flags=socket.AI_NUMERICHOST,
            )
            for of, _, proto, _, address in infos or ()
        ]

    async def close(self) -> None:
        if self._default is not None:
            await self._default.close()

    async def _elsewhere(
        self, host: str, port: int, family: socket.AddressFamily
    ) -> list[ResolveResult]:
        if self._default is None:
            self._default = DefaultResolver()
        return await self._default.resolve(host, port, family)
