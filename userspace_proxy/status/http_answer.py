"""Parses a status server's HTTP/1.0 answer, from the bytes of any transport.

    GET … HTTP/1.0 ──▶ socket, port-forward ──▶ head ──▶ body ──gunzip──▶ pieces of PIECE_BYTES

Rule 1: an answer ends at its Content-Length or the end of its gzip member, because a port-forward
reports the end of a connection a second late. Only an answer with neither ends with its connection.
Rule 2: the number of bytes is bounded, before and after decompression, and everything takes at most
linear time, because any process may have sent the answer.
"""

from __future__ import annotations

import http.client
import io
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from email.message import Message

from ..errors import UserspaceProxyError
from ..version import __version__

HEAD_BYTES_MAX = 16 << 10
ANSWER_BYTES = 6 << 20
"""The maximum size of a decompressed answer: 2,000 Service ports, or as many unhealthy ones in a
summary.
"""
PIECE_BYTES = 64 << 10
"""The number of bytes decompressed in one step, which takes about 0.2 ms."""

_END_OF_HEAD = b"\r\n\r\n"
_WITH_HEADER = 16 + zlib.MAX_WBITS
PROGRAM = "userspace-proxy"
"""The value of the Server header in proxies' answers."""
LEVEL_HEADER = "X-Userspace-Proxy-Level"
"""The header with the worst level that a text contains: ``ok``, ``attention``, ``trouble``."""
PORT_KEY = ("namespace", "service", "port", "family", "side")
"""The fields that identify a Service port in all lines of a stream of JSON."""


class Unreadable(UserspaceProxyError):
    """An answer is malformed, ends early, or isn't from a proxy."""


class TooLarge(UserspaceProxyError):
    """An answer is larger than a limit.

    Args:
        bytes_max: The limit.
    """

    def __init__(self, bytes_max: int) -> None:
        super().__init__(f"the answer takes more than {bytes_max} bytes")
        self.bytes_max = bytes_max


@dataclass(frozen=True, slots=True)
class Bounds:
    """The maximum numbers of bytes that are read from an answer."""

    wire: int = 16 << 20
    """The number of bytes on the wire; 0 for no limit, as for an endless stream."""
    body: int = ANSWER_BYTES
    """The number of bytes after decompression; 0 for no limit."""


class HttpAnswer:
    """One answer, parsed from the bytes that :meth:`feed` receives."""

    def __init__(self, bounds: Bounds) -> None:
        self.code = 0
        """The status code; 0 until the head is complete."""
        self.headers = Message()
        self.is_complete = False
        self._bounds = bounds
        self._head = bytearray()
        self._searched = 0
        """The number of bytes of the head that were searched for its end."""
        self._left: int | None = None
        """How many bytes of Content-Length are still expected; None if the header is missing."""
        self._gunzip: zlib._Decompress | None = None
        self._wire_bytes = self._body_bytes = 0

    @property
    def is_of_proxy(self) -> bool:
        """Whether the answer's head names this program."""
        return self.headers.get("Server") == PROGRAM

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield the next pieces of the body; the caller must exhaust the iterator.

        Args:
            data: Received bytes; empty if the connection was closed.

        Raises:
            Unreadable: The bytes aren't HTTP or gzip, have an unrequested encoding, or end early;
                or the head is too long.
            TooLarge: The answer exceeds its bounds.
        """
        if not data:
            self._end()
            return
        self._wire_bytes += len(data)
        if self._bounds.wire and self._wire_bytes > self._bounds.wire:
            raise TooLarge(self._bounds.wire)
        if not self.code:
            data = self._read_head(data)
        yield from self._body(data)

    def _end(self) -> None:
        if not self.code:
            raise Unreadable("it ended before its first line and headers were complete")
        if self._left or self._is_packing:
            raise Unreadable("it ended early")
        self.is_complete = True

    def _read_head(self, data: bytes) -> bytes:
        """Add to the head; return the bytes after its end, if any. Raises like :meth:`feed`."""
        self._head += data
        at = self._head.find(_END_OF_HEAD, max(0, self._searched - len(_END_OF_HEAD)))
        self._searched = len(self._head)
        if at > HEAD_BYTES_MAX or (at < 0 and self._searched > HEAD_BYTES_MAX):
            raise Unreadable(f"its headers have more than {HEAD_BYTES_MAX >> 10} KiB")
        if at < 0:
            return b""
        at += len(_END_OF_HEAD)
        head, rest = bytes(self._head[:at]), bytes(self._head[at:])
        self._head.clear()
        self._parse(head)
        return rest

    def _parse(self, head: bytes) -> None:
        line, _, lines = head.partition(b"\r\n")
        words = line.split(b" ", 2)
        if not words[0].startswith(b"HTTP/1.") or len(words) < 2 or not _is_status(words[1]):
            raise Unreadable("it isn't HTTP")
        try:
            headers = http.client.parse_headers(io.BytesIO(lines))
        except http.client.HTTPException as exc:
            raise Unreadable(f"it isn't HTTP: {type(exc).__name__}") from exc
        coding = headers.get("Content-Encoding", "identity").strip().lower()
        if coding not in ("identity", "gzip") or "Transfer-Encoding" in headers:
            raise Unreadable("it has an encoding that wasn't asked for")
        length = headers.get("Content-Length", "").strip()
        if length:
            if not (length.isascii() and length.isdigit() and len(length) < 16):
                raise Unreadable("its Content-Length isn't a number")
            self._left = int(length)
            if self._bounds.wire and self._left > self._bounds.wire:
                raise TooLarge(self._bounds.wire)
        if coding == "gzip":
            self._gunzip = zlib.decompressobj(_WITH_HEADER)
        self.code, self.headers = int(words[1]), headers
        self.is_complete = self._left == 0

    def _body(self, data: bytes) -> Iterator[bytes]:
        if self._left is not None:
            data = data[: self._left]
            self._left -= len(data)
        for piece in self._plain(data) if self._gunzip is None else self._unpacked(data):
            self._body_bytes += len(piece)
            if self._bounds.body and self._body_bytes > self._bounds.body:
                raise TooLarge(self._bounds.body)
            yield piece
        if self._left == 0:
            if self._is_packing:
                raise Unreadable("it ended early")
            self.is_complete = True

    @property
    def _is_packing(self) -> bool:
        """Whether compressed data is still incomplete."""
        return self._gunzip is not None and not self._gunzip.eof

    def _plain(self, data: bytes) -> Iterator[bytes]:
        for at in range(0, len(data), PIECE_BYTES):
            yield data[at : at + PIECE_BYTES]

    def _unpacked(self, data: bytes) -> Iterator[bytes]:
        gunzip = self._gunzip
        while gunzip is not None:
            try:
                piece = gunzip.decompress(data, PIECE_BYTES)
            except zlib.error as exc:
                raise Unreadable("it isn't gzip") from exc
            data = gunzip.unconsumed_tail
            self.is_complete = gunzip.eof
            if piece:
                yield piece
            if gunzip.eof or (not data and len(piece) < PIECE_BYTES):
                return


def _is_status(word: bytes) -> bool:
    return len(word) == 3 and word.isdigit() and word[:1] in b"12345"


def request_for(path: str, host: str, *, accept: str, takes_gzip: bool) -> bytes:
    """Return a GET request; ``path`` includes the query, and is already quoted."""
    lines = [
        f"GET {path} HTTP/1.0",
        f"Host: {host}",
        f"User-Agent: {PROGRAM}/{__version__}",
        f"Accept: {accept}",
        *(["Accept-Encoding: gzip"] if takes_gzip else []),
    ]
    return "".join(f"{line}\r\n" for line in (*lines, "")).encode("ascii", "replace")
