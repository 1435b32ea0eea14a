"""A small HTTP/1.1 server on asyncio streams, for backends in a test's process.

aiohttp's server, which the status pages use, takes as long to import as a proxy takes to start, and
an embedded proxy doesn't need it. The servers of ``sandbox.backends`` are separate programs with
blocking sockets.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from userspace_proxy.log_fields import FieldLogger

_log = FieldLogger("userspace_proxy_testing")

TLS = "TLS"
KEPT = 100
"""The number of requests that are kept per backend."""

_TLS_HANDSHAKE = b"\x16"
"""The first byte from a TLS client.

Source: RFC 8446, 5.1.
"""
_SPEAKS_HTTP = "a client's hello: this backend speaks HTTP, not HTTPS"
_BAD_REQUEST = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """One HTTP request, as a test's handler receives it."""

    method: str
    path: str
    """The path, including the query."""
    headers: dict[str, str]
    """Header values, keyed by lower-case name."""
    body: bytes
    version: str = "HTTP/1.1"


HttpAnswer = str | bytes | tuple[int, str | bytes]
"""A response's body, or its status and body."""
HttpHandler = Callable[[HttpRequest], HttpAnswer | Awaitable[HttpAnswer]]
AsyncHttpHandler = Callable[[HttpRequest], Awaitable[HttpAnswer]]


@dataclass(slots=True)
class SeenRequest:
    """A request received by a backend."""

    method: str
    """The HTTP method, such as ``GET``."""
    path: str
    """The path, including the query."""
    status: int | None = None
    """The status of the answer; None before the answer."""

    def __str__(self) -> str:
        return f"{self.method} {self.path} → {self.status or 'no answer'}"


class HttpServer:
    """Serves HTTP with a function of a request, and records requests.

    The function's exceptions are logged and answered with status 500 and their text. This includes
    exceptions of ``sys.exit``, which would end the event loop, and of ``pytest.fail``.
    """

    def __init__(self, handler: AsyncHttpHandler) -> None:
        self._handler = handler
        self.seen: deque[SeenRequest] = deque(maxlen=KEPT)
        """The last requests, oldest first."""

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer requests until EOF, an invalid request, or the last request of the connection."""
        while (request := await _read_request(reader, writer)) is not None:
            seen = SeenRequest(request.method, request.path)
            self.seen.append(seen)
            if request.method == TLS:
                seen.status = 400
                return
            status, body = await _answer(self._handler, request)
            is_kept = _keeps(request)
            # Set this before the client can read the answer: the test may then fail at once and
            # print the status.
            seen.status = status
            writer.write(_head(status, len(body), is_kept=is_kept))
            if request.method != "HEAD":
                writer.write(body)
            await writer.drain()
            if not is_kept:
                return


def _keeps(request: HttpRequest) -> bool:
    """Return whether the connection stays open; HTTP/1.0 clients read until it is closed."""
    wish = request.headers.get("connection", "").lower()
    return wish == "keep-alive" if request.version == "HTTP/1.0" else wish != "close"


async def _answer(handler: AsyncHttpHandler, request: HttpRequest) -> tuple[int, bytes]:
    try:
        return _read_answer(await handler(request))
    except (asyncio.CancelledError, GeneratorExit):
        raise
    except BaseException as exc:  # noqa: BLE001 - the test's own code; the log and the client are told
        _log.exception(
            "backend function raised an exception for %(method)s %(path)s",
            extra={"method": request.method, "path": request.path},
        )
        return 500, f"{type(exc).__name__}: {exc}\n".encode()


def _read_answer(answer: Any) -> tuple[int, bytes]:
    status, body = answer if isinstance(answer, tuple) and len(answer) == 2 else (200, answer)
    body = body.encode() if isinstance(body, str) else body
    if not isinstance(status, int) or not isinstance(body, bytes):
        raise TypeError(f"expected a str, bytes, or a status and one of them, got {answer!r}")
    return status, body


async def _read_request(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> HttpRequest | None:
    """Return the next request; None at EOF, and after answering an invalid request.

    For a TLS client, which also gets an answer, the request has the method ``TLS``.
    """
    try:
        first_byte = await reader.readexactly(1)
        if first_byte == _TLS_HANDSHAKE:
            # A TLS client can't read this text, but fails at once instead of awaiting a TLS record.
            writer.write(_BAD_REQUEST)
            return HttpRequest(TLS, _SPEAKS_HTTP, {}, b"")
        head = first_byte + await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    except asyncio.LimitOverrunError:
        writer.write(_BAD_REQUEST)
        return None
    first, *lines = head.decode("latin-1").split("\r\n")
    words = first.split(" ")
    pairs = [line.partition(":") for line in lines if line]
    headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
    length = headers.get("content-length", "0")
    if len(words) != 3 or not length.isdecimal() or "transfer-encoding" in headers:
        writer.write(_BAD_REQUEST)
        return None
    try:
        body = await reader.readexactly(int(length))
    except asyncio.IncompleteReadError:
        return None
    return HttpRequest(words[0], words[1], headers, body, words[2])


def _head(status: int, length: int, *, is_kept: bool) -> bytes:
    connection = "keep-alive" if is_kept else "close"
    return (
        f"HTTP/1.1 {status} {'OK' if status < 400 else 'Error'}\r\n"
        "Content-Type: text/plain; charset=utf-8\r\n"
        f"Content-Length: {length}\r\n"
        f"Connection: {connection}\r\n\r\n"
    ).encode()
