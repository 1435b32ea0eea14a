"""Backends with a part of two databases' protocols, sufficient for a client's query.

Rule 1: each backend answers any query with the same text, and offers no encryption.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import Awaitable, Callable

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

_SSL, _GSS = 80877103, 80877104
"""PostgreSQL's request codes for encryption."""


def redis(text: str) -> Serve:
    """Return a backend that answers only HELLO and GET, like Redis."""
    answers = {
        b"HELLO": b"%1\r\n$5\r\nproto\r\n:3\r\n",
        b"GET": f"${len(text)}\r\n{text}\r\n".encode(),
    }

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(EOFError, ConnectionError):
            while True:
                count = int((await reader.readuntil(b"\r\n"))[1:])
                words = [await _word(reader) for _ in range(count)]
                writer.write(answers.get(words[0], b"-ERR unknown command\r\n"))
        writer.close()

    return serve


async def _word(reader: asyncio.StreamReader) -> bytes:
    length = int((await reader.readuntil(b"\r\n"))[1:])
    return (await reader.readexactly(length + 2))[:length]


def postgres(text: str) -> Serve:
    """Return a PostgreSQL backend that answers a simple query with one row and column."""
    column = b"body\0" + struct.pack("!IHIhih", 0, 0, 25, -1, -1, 0)
    ready = _message(b"Z", b"I")
    started = _message(b"R", struct.pack("!I", 0)) + ready
    answer = (
        _message(b"T", struct.pack("!H", 1) + column)
        + _message(b"D", struct.pack("!HI", 1, len(text)) + text.encode())
        + _message(b"C", b"SELECT 1\0")
        + ready
    )

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(EOFError, ConnectionError):
            while await _startup(reader) in (_SSL, _GSS):
                writer.write(b"N")
            writer.write(started)
            while await reader.readexactly(1) == b"Q":
                await _body(reader)
                writer.write(answer)
        writer.close()

    return serve


async def _startup(reader: asyncio.StreamReader) -> int:
    """Return the code of a client's first message: a request code or a protocol version."""
    (code,) = struct.unpack("!I", (await _body(reader))[:4])
    return int(code)


async def _body(reader: asyncio.StreamReader) -> bytes:
    (length,) = struct.unpack("!I", await reader.readexactly(4))
    return await reader.readexactly(length - 4)


def _message(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("!I", len(body) + 4) + body
