"""Asks one agent over a port-forward: an HTTP/1.0 request, and an answer of bounded size.

    GET … HTTP/1.0 ──▶ PodStream ──▶ head ──▶ body ──gunzip──▶ pieces of at most PIECE_BYTES

Rule 1: an answer ends at its Content-Length or the end of its gzip member. A port-forward reports
the end of a connection a second late, so that counts only for an answer with neither.
Rule 2: every number of bytes is bounded, before and after decompression, and everything takes at
most linear time: the other side may be hostile.
Rule 3: the event loop runs between any two pieces.
"""

from __future__ import annotations

import http.client
import io
import zlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

from userspace_proxy.errors import UserspaceProxyError
from userspace_proxy.sources.base import pause
from userspace_proxy.sources.kubernetes.client import ApiClient
from userspace_proxy.version import __version__

from ..port_forward import ForwardTarget, PodStream, open_stream
from .decoding import TooLarge

HEAD_BYTES_MAX = 16 << 10
ANSWER_BYTES = 6 << 20
"""Limit of one decompressed answer: 2,000 Service ports, or as many unhealthy ones of a summary."""
PIECE_BYTES = 64 << 10
"""Bytes decompressed in one step, in about 0.2 ms."""

_END_OF_HEAD = b"\r\n\r\n"
_WITH_HEADER = 16 + zlib.MAX_WBITS
_TEXT_MAX = 200
_PROGRAM = "userspace-proxy"
"""The value of its answers' Server header."""


class Unreadable(UserspaceProxyError):
    """An answer isn't HTTP, or doesn't come from a proxy."""


class OtherStatus(UserspaceProxyError):
    """The answer's status isn't 200.

    Args:
        code: The status.
        text: The start of the answer, as one line.
    """

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"HTTP status {code}{f': {text}' if text else ''}")
        self.code = code
        self.text = text


@dataclass(frozen=True, slots=True)
class Bounds:
    """Limits on the bytes read from an answer."""

    wire: int = 16 << 20
    """Bytes as they arrive; 0: unlimited, for a stream without an end."""
    body: int = ANSWER_BYTES
    """Bytes after decompression; 0: unlimited."""


class HttpAnswer:
    """One answer as it arrives; feed it all bytes."""

    def __init__(self, bounds: Bounds) -> None:
        self.code = 0
        """The status; 0 until the head is complete."""
        self.is_complete = False
        self._bounds = bounds
        self._head = bytearray()
        self._searched = 0
        """How many bytes of the head are known to contain no end."""
        self._left: int | None = None
        """Remaining bytes of Content-Length; None: the header is missing."""
        self._gunzip: zlib._Decompress | None = None
        self._wire_bytes = self._body_bytes = 0

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield the body's pieces that some bytes complete; the caller must take all of them.

        Args:
            data: Received bytes; empty: the connection has ended.

        Raises:
            Unreadable: It isn't an answer, or ends early.
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
        """Return the bytes after the head, once that is complete."""
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
        self.code = int(words[1])
        if self.code != http.client.OK and headers.get("Server") != _PROGRAM:
            raise Unreadable("another program answers at that port, perhaps kube-proxy")
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
        """Whether the end of the compressed data is still to come."""
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


def request_for(path: str, port: int) -> bytes:
    """Return a request; the path includes its query, and is already quoted."""
    lines = (
        f"GET {path} HTTP/1.0",
        f"Host: 127.0.0.1:{port}",
        f"User-Agent: userspace-proxy/{__version__}",
        "Accept: application/json",
        "Accept-Encoding: gzip",
    )
    return "".join(f"{line}\r\n" for line in (*lines, "")).encode("ascii")


class OpenAnswer:
    """The answer of an agent that was asked; see :func:`asking`. Its body is read once."""

    def __init__(self, stream: PodStream, bounds: Bounds) -> None:
        self._stream = stream
        self._answer = HttpAnswer(bounds)

    async def pieces(self) -> AsyncIterator[bytes]:
        """Yield the body as it arrives; an empty piece first, when its first byte has arrived.

        Raises:
            PortForwardError: The stream broke.
            Unreadable, TooLarge, OtherStatus: The answer can't be used.
        """
        has_begun = False
        refusal = bytearray()
        while not self._answer.is_complete:
            data = await self._stream.receive()
            if not has_begun:
                has_begun = True
                yield b""
            for piece in self._answer.feed(data):
                if self._answer.code == 200:
                    yield piece
                elif len(refusal) < _TEXT_MAX:
                    refusal += piece[:_TEXT_MAX]
                await pause(0)
            if self._answer.code not in (0, 200) and len(refusal) >= _TEXT_MAX:
                break
        if self._answer.code != 200:
            text = " ".join(refusal.decode(errors="replace").split())
            raise OtherStatus(self._answer.code, text[:_TEXT_MAX])

    async def whole(self) -> bytes:
        return b"".join([piece async for piece in self.pieces()])

    async def ping(self) -> None:
        """Keep an idle stream open."""
        await self._stream.ping()

    async def close(self) -> None:
        """End the port-forward; idempotent."""
        await self._stream.close()


async def ask(client: ApiClient, to: ForwardTarget, path: str, bounds: Bounds) -> OpenAnswer:
    """Send a request to an agent; the caller reads the answer and closes it.

    Raises:
        PortForwardError: The pod can't be reached.
    """
    stream = await open_stream(client, to)
    try:
        await stream.send(request_for(path, to.port))
    except BaseException:
        await stream.close()
        raise
    return OpenAnswer(stream, bounds)
