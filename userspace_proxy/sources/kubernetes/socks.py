"""Connects aiohttp through a SOCKS5 proxy.

    TCP to the proxy ──▶ greeting, perhaps a password ──▶ CONNECT name:port ──▶ TLS, HTTP

Rule 1: the proxy resolves names, as for Go programs, because this machine may be unable to.
Rule 2: one private method of aiohttp is replaced; ``test_socks`` runs it with a proxy.

Source: RFC 1928, RFC 1929.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from ipaddress import ip_address
from typing import Any

from aiohttp import AddrInfoType, ClientRequest, ClientTimeout, TCPConnector
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.client_proto import ResponseHandler

from .proxies import WebProxy

_VERSION, _PASSWORD_VERSION, _CONNECT = 5, 1, 1
_NO_PASSWORD, _PASSWORD, _NONE_OF_THEM = 0, 2, 255
_IPV4, _NAME, _IPV6 = 1, 3, 4
_ADDRESS_BYTES = {_IPV4: 4, _IPV6: 16}
_PROBLEMS = {
    1: "a general failure",
    2: "the connection isn't allowed",
    3: "the network is unreachable",
    4: "the host is unreachable",
    5: "connection refused",
    6: "the TTL expired",
    7: "the command isn't supported",
    8: "the type of address isn't supported",
}


class SocksConnector(TCPConnector):
    """A connector that opens connections through a proxy.

    Args:
        socket_factory: Returns a new socket for an address.
        options: Options of TCPConnector.
    """

    def __init__(
        self,
        proxy: WebProxy,
        *,
        socket_factory: Callable[[AddrInfoType], socket.socket],
        **options: Any,
    ) -> None:
        super().__init__(resolver=_NoResolver(), **options)
        self._proxy = proxy
        self._open_socket = socket_factory

    async def _wrap_create_connection(
        self,
        *args: Any,
        req: ClientRequest,
        timeout: ClientTimeout,  # noqa: ASYNC109
        **more: Any,
    ) -> tuple[asyncio.Transport, ResponseHandler]:
        options = {key: more[key] for key in ("ssl", "server_hostname")}
        async with asyncio.timeout(timeout.sock_connect):
            sock = await self._dial(str(req.url.raw_host), int(req.port or 0))
            try:
                return await self._loop.create_connection(*args, sock=sock, **options)
            except BaseException:
                sock.close()
                raise

    async def _dial(self, host: str, port: int) -> socket.socket:
        """Return a socket that is connected to a host through the proxy."""
        found = await self._loop.getaddrinfo(
            self._proxy.host, self._proxy.port, type=socket.SOCK_STREAM
        )
        problem: OSError | None = None
        for family, kind, protocol, name, address in found:
            sock = self._open_socket((family, kind, protocol, name, address))
            try:
                sock.setblocking(False)
                await self._loop.sock_connect(sock, address)
            except OSError as exc:
                sock.close()
                problem = exc
                continue
            try:
                await self._ask(sock, host, port)
            except BaseException:
                sock.close()
                raise
            return sock
        raise problem or OSError("it has no address")

    async def _ask(self, sock: socket.socket, host: str, port: int) -> None:
        """Ask the proxy to connect to a host.

        Raises:
            ConnectionError: The proxy refuses, or isn't a SOCKS5 proxy; the text is the reason.
        """
        credentials = self._proxy.credentials
        methods = bytes([_NO_PASSWORD] if credentials is None else [_NO_PASSWORD, _PASSWORD])
        await self._send(sock, bytes([_VERSION, len(methods)]) + methods)
        version, method = await self._receive(sock, 2)
        if version != _VERSION:
            raise ConnectionError("it doesn't speak SOCKS5")
        if method == _PASSWORD and credentials is not None:
            await self._log_in(sock, *credentials)
        elif method != _NO_PASSWORD:
            raise ConnectionError("it wants another authentication than a user and a password")
        await self._send(sock, bytes([_VERSION, _CONNECT, 0]) + _address(host) + _number(port))
        _, code, _, kind = await self._receive(sock, 4)
        if code:
            raise ConnectionError(f"it says: {_PROBLEMS.get(code, f'code {code}')}")
        length = _ADDRESS_BYTES.get(kind) or (await self._receive(sock, 1))[0]
        await self._receive(sock, length + 2)

    async def _log_in(self, sock: socket.socket, name: str, password: str) -> None:
        texts = [text.encode() for text in (name, password)]
        if any(len(text) > 255 for text in texts):
            raise ConnectionError("its user or password is longer than 255 bytes")
        message = b"".join(bytes([len(text)]) + text for text in texts)
        await self._send(sock, bytes([_PASSWORD_VERSION]) + message)
        _, code = await self._receive(sock, 2)
        if code:
            raise ConnectionError("it doesn't take the user and the password")

    async def _send(self, sock: socket.socket, data: bytes) -> None:
        await self._loop.sock_sendall(sock, data)

    async def _receive(self, sock: socket.socket, count: int) -> bytes:
        received = b""
        while len(received) < count:
            data = await self._loop.sock_recv(sock, count - len(received))
            if not data:
                raise ConnectionError("it closed the connection")
            received += data
        return received


def _address(host: str) -> bytes:
    try:
        address = ip_address(host)
    except ValueError:
        name = host.encode()
        if len(name) > 255:
            raise ConnectionError("the server's name is longer than 255 bytes") from None
        return bytes([_NAME, len(name)]) + name
    return bytes([_IPV4 if address.version == 4 else _IPV6]) + address.packed


def _number(port: int) -> bytes:
    return port.to_bytes(2, "big")


class _NoResolver(AbstractResolver):
    """A resolver that returns a dummy address, because the proxy resolves names."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        return [
            ResolveResult(
                hostname=host, host="0.0.0.0", port=port, family=socket.AF_INET, proto=0, flags=0
            )
        ]

    async def close(self) -> None:
        """Do nothing: the resolver opens nothing."""
