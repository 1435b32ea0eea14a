"""Requests to an API server, by kubernetes-asyncio's transport.

Rule 1: callers see responses and :class:`ConnectionTrouble`, nothing of aiohttp.
Rule 2: everything has a deadline: connecting, the answer's start, and silence in a list.
A watch may be silent; how long is the caller's decision, each time it reads.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any

from ... import __version__
from ...errors import SourceError
from .credentials import Credentials, Fingerprint
from .library import import_library
from .network_words import describe
from .responses import Answer, ConnectionTrouble

CONNECT_S = 15.0
"""For name, TCP and TLS; client-go gives each dial 30 s."""
ANSWER_S = 75.0
"""For the start of an answer, and between two parts of a list. The server itself gives up
after 60 s (its --request-timeout)."""
ANSWER_BYTES_MAX = 512 << 20
"""One page: room for 300,000 Services of the usual 1.7 kB."""

# A peer that is gone without a word is found within a minute, also where nothing is sent.
_KEEPALIVE = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
)


class Stream:
    """An answer that goes on; of use inside of :meth:`Connection.stream`."""

    def __init__(self, response: Any) -> None:
        self._response = response
        self.code: int = response.status

    async def read(self, *, silence_s: float) -> bytes:
        """Return what has come, as soon as something has; empty at the end.

        Raises:
            ConnectionTrouble: It broke off.
            TimeoutError: Nothing has come for ``silence_s`` seconds.
        """
        async with asyncio.timeout(silence_s):
            with _as_trouble():
                data: bytes = await self._response.content.readany()
                return data

    async def answer(self) -> Answer:
        """Read the rest of an answer that says no.

        Raises:
            ConnectionTrouble: It broke off.
        """
        with _as_trouble():
            return await _read_answer(self._response)


class Connection:
    """The way to one API server; not usable before :meth:`open`.

    Args:
        credentials: Where it is, and what to show it.
        clock: Seconds, monotonic.
    """

    def __init__(
        self, credentials: Credentials, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.credentials = credentials
        self._clock = clock
        self._rest: Any = None
        self._retired: Any = None
        """The transport before the last change of certificates: watches may still use it."""
        self._tls_files: Fingerprint = ()
        self._is_refused = False
        self._refreshing = asyncio.Lock()

    @property
    def url(self) -> str:
        """The server's URL."""
        return self.credentials.location

    async def open(self) -> None:
        """Load the credentials; no request is made.

        Raises:
            SourceError: They can't be used.
        """
        # The larger part, and other threads may go on; the rest belongs to this thread.
        await asyncio.to_thread(importlib.import_module, "aiohttp")
        await self.credentials.load(self._clock())
        try:
            await self._renew_transport()
        except OSError as exc:
            raise SourceError(
                f"cannot use {self.credentials.words}: {describe(exc)}",
                hint="check the certificate files that it names",
            ) from exc

    async def close(self) -> None:
        """Close all sockets; idempotent."""
        for rest in (self._rest, self._retired):
            if rest is not None:
                await rest.close()
        self._rest = self._retired = None
        self.credentials.close()

    async def get(self, path: str, query: Mapping[str, str]) -> Answer:
        """Return a whole answer, whatever its code.

        Raises:
            ConnectionTrouble: There is none.
        """
        with _as_trouble():
            response = await self._request(path, query, silence_s=ANSWER_S)
            async with response:
                return await _read_answer(response)

    async def send(
        self, method: str, path: str, body: Mapping[str, Any], *, content_type: str
    ) -> Answer:
        """Send an object, and return the whole answer, whatever its code.

        Args:
            method: ``POST`` or ``PATCH``.
            path: Where to.
            body: Plain values.
            content_type: Of its JSON.

        Raises:
            ConnectionTrouble: There is no answer.
        """
        with _as_trouble():
            response = await self._request(
                path, {}, silence_s=ANSWER_S, method=method, body=body, content_type=content_type
            )
            async with response:
                return await _read_answer(response)

    @asynccontextmanager
    async def stream(self, path: str, query: Mapping[str, str]) -> AsyncIterator[Stream]:
        """Give an answer that goes on, whatever its code, and close it at the end.

        Raises:
            ConnectionTrouble: There is none.
        """
        with _as_trouble():
            async with asyncio.timeout(ANSWER_S):
                response = await self._request(path, query, silence_s=None)
        try:
            _keep_alive(response)
            yield Stream(response)
        finally:
            response.close()

    async def _request(
        self,
        path: str,
        query: Mapping[str, str],
        *,
        silence_s: float | None,
        method: str = "GET",
        body: Mapping[str, Any] | None = None,
        content_type: str = "application/json",
    ) -> Any:
        from aiohttp import ClientTimeout

        async with self._refreshing:
            await self.credentials.refresh(self._clock(), is_refused=self._is_refused)
            self._is_refused = False
            if self.credentials.tls_files() != self._tls_files:
                await self._renew_transport()
        headers = {
            "Accept": "application/json",
            "Content-Type": content_type,
            "User-Agent": f"userspace-proxy/{__version__}",
            **await self.credentials.header(),
        }
        response = await self._rest.request(
            method,
            f"{self.url}{path}",
            query_params=list(query.items()),
            headers=headers,
            body=body,
            _preload_content=False,
            _request_timeout=ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=silence_s),
        )
        if response.status == 401:
            self._is_refused = True
        return response

    async def _renew_transport(self) -> None:
        """Make a transport with the certificates as they are now."""
        tls_files = self.credentials.tls_files()
        rest = import_library().rest(self.credentials.configuration)
        if self._retired is not None:
            await self._retired.close()
        self._retired, self._rest, self._tls_files = self._rest, rest, tls_files


async def _read_answer(response: Any) -> Answer:
    parts = []
    size = 0
    async for part in response.content.iter_any():
        size += len(part)
        if size > ANSWER_BYTES_MAX:
            raise ConnectionTrouble(f"an answer is larger than {ANSWER_BYTES_MAX >> 20} MiB")
        parts.append(part)
    return Answer(response.status, b"".join(parts), _seconds(response.headers.get("Retry-After")))


def _seconds(text: str | None) -> float:
    """Return the seconds of a Retry-After; 0 for none, or a date, which no API server sends."""
    return float(text) if text and text.isascii() and text.isdigit() else 0.0


@contextmanager
def _as_trouble() -> Iterator[None]:
    """Turn what the transport raises into trouble with words."""
    from aiohttp import ClientError, InvalidURL

    try:
        yield
    except (ClientError, InvalidURL, OSError) as exc:
        # TimeoutError is an OSError, and so is whatever is wrong with TLS.
        raise ConnectionTrouble(describe(exc)) from exc


def _keep_alive(response: Any) -> None:
    """Let the kernel probe a connection that is silent."""
    connection = response.connection
    transport = connection.transport if connection is not None else None
    peer = transport.get_extra_info("socket") if transport is not None else None
    if peer is None:
        return
    # A socket of our own over the same connection: uvloop's lets nobody set options.
    with suppress(OSError), socket.socket(fileno=os.dup(peer.fileno())) as own:
        for level, option, value in _KEEPALIVE:
            own.setsockopt(level, option, value)
