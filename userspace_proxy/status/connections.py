"""Limits the connections of a status server, in number and in time.

    listening socket ──▶ LimitedServer ──▶ StatusConnection ──▶ aiohttp's protocol
                                               └─ ConnectionLimit: closes the oldest at the limit

Rule 1: at a limit the oldest connection is closed, not the new one, so a flood of connections
doesn't block probes: a probe is answered before enough newer connections are accepted to close its
connection (``accepting`` accepts a few at a time). Slower requests may be cut off during a flood.
Rule 2: at a limit shared by several servers, the server with the most connections loses its oldest
one.
Rule 3: each connection has a deadline, so its descriptor is freed whatever the client does.
Rule 4: an answer is written in chunks, as fast as its client reads it. The total size of answers
that clients haven't read is limited: at the limit, the connections that read the oldest answers are
closed. Answers to probes are smaller than a chunk and aren't counted.

The data plane, whose connections last long, instead resets connections by shares of clients and
Services (``policy.shares``). Here, an answer takes milliseconds, and clients repeat requests.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable
from typing import cast

from aiohttp import web

# The maximum number of connections: far more than the kubelet, a few load balancers, Prometheus and
# browsers hold open.
MAX_CONNECTIONS = 128
# The time limit for a connection's first request. A probe sends its request immediately; the
# kubelet's own timeout is 1 s by default.
FIRST_REQUEST_S = 2.0
# The time limit for a request and its answer. The largest answer, the metrics of 10,000 Services,
# takes a few seconds.
REQUEST_S = 60.0
# The size of a chunk: as many bytes as a transport buffers before it pauses its writer.
CHUNK_BYTES = 64 * 1024
# How many bytes all clients of a server together may leave unread. The JSON of 10,000 Services with
# 20 endpoints each takes 75 MiB, and their metrics less. A few clients may read both at a time;
# other answers fit into a chunk.
UNREAD_BYTES = 128 * 1024 * 1024

CallLater = Callable[[float, Callable[[], object]], asyncio.TimerHandle]
"""A function like a loop's ``call_later``."""


class ConnectionLimit:
    """A limit on simultaneous connections and on the size of unread answers.

    Args:
        unread_bytes: The maximum size of all answers that are being written.
    """

    def __init__(self, limit: int, *, unread_bytes: int = UNREAD_BYTES) -> None:
        self._limit = limit
        self._unread_bytes = unread_bytes
        self._unread: dict[StatusConnection, bytes] = {}
        """The answer being written to each connection, oldest first."""
        self._readers: Counter[int] = Counter()
        """The number of connections that read an answer, by the answer's id."""
        self._held_bytes = 0
        """The total size of these answers; each answer counts once."""
        self._open: dict[StatusConnection, None] = {}
        """Open connections, oldest first."""

    def __len__(self) -> int:
        return len(self._open)

    def add(self, connection: StatusConnection) -> None:
        """Count a connection; at the limit, close another one."""
        if len(self._open) >= self._limit:
            self.make_room()
        self._open[connection] = None

    def hold(self, connection: StatusConnection, body: bytes) -> None:
        """Count an answer that is being written; at the limit, reset readers of older answers.

        An answer for several connections counts once. A single answer that exceeds the limit is
        still written.
        """
        self.release(connection)
        self._unread[connection] = body
        self._readers[id(body)] += 1
        if self._readers[id(body)] == 1:
            self._held_bytes += len(body)
        if self._held_bytes <= self._unread_bytes:
            return
        for older, held in list(self._unread.items()):
            if held is not body:
                older.end()
            if self._held_bytes <= self._unread_bytes:
                return

    def release(self, connection: StatusConnection) -> None:
        """Stop counting the answer of a connection; idempotent."""
        body = self._unread.pop(connection, None)
        if body is None:
            return
        self._readers[id(body)] -= 1
        if not self._readers[id(body)]:
            del self._readers[id(body)]
            self._held_bytes -= len(body)

    def make_room(self) -> bool:
        """Close the oldest connection of the busiest server; return False if none is open."""
        if not self._open:
            return False
        sizes = Counter(connection.server for connection in self._open)
        ((largest, _),) = sizes.most_common(1)
        next(one for one in self._open if one.server is largest).end()
        return True

    def discard(self, connection: StatusConnection) -> None:
        """Stop counting a connection and its answer; idempotent."""
        self.release(connection)
        self._open.pop(connection, None)


class StatusConnection(asyncio.Protocol):
    """One connection to a status server, in front of aiohttp's protocol.

    Args:
        limits: The limits that count the connection; the first one belongs to its server.
        first_request_s: Seconds within which the first request's head must be complete.
        request_s: Seconds from the last :meth:`note_request` until the connection is reset.
        call_later: Starts deadlines.
    """

    def __init__(
        self,
        handler: asyncio.Protocol,
        limits: tuple[ConnectionLimit, ...],
        *,
        first_request_s: float,
        request_s: float,
        call_later: CallLater,
    ) -> None:
        self.on_end: Callable[[], object] | None = None
        """Called once, when the connection has been closed."""
        self._handler = handler
        self._limits = limits
        self._first_request_s = first_request_s
        self._request_s = request_s
        self._call_later = call_later
        self._transport: asyncio.Transport | None = None
        self._deadline: asyncio.TimerHandle | None = None

    @property
    def server(self) -> ConnectionLimit:
        return self._limits[0]

    def note_request(self) -> None:
        """Restart the deadline after a request, or after the client has read more of an answer."""
        self._end_in(self._request_s)

    def end(self) -> None:
        """Reset the connection; idempotent."""
        self._forget()
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Use a cast, not isinstance: the transports of uvloop don't inherit from asyncio's.
        self._transport = cast("asyncio.Transport", transport)
        for limit in self._limits:
            limit.add(self)
        self._end_in(self._first_request_s)
        self._handler.connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget()
        if self.on_end is not None:
            self.on_end()
        self._handler.connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._handler.data_received(data)

    def eof_received(self) -> bool | None:
        return self._handler.eof_received()

    def pause_writing(self) -> None:
        self._handler.pause_writing()

    def resume_writing(self) -> None:
        self._handler.resume_writing()

    def _end_in(self, seconds: float) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = self._call_later(seconds, self.end)

    def _forget(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        for limit in self._limits:
            limit.discard(self)


class LimitedServer:
    """A protocol factory, for asyncio or :class:`.Accepting`, that adds limits to aiohttp's.

    Args:
        server: Creates aiohttp's protocol for each connection.
        limits: The limits of its connections. The first one is the server's; others may be shared.
        first_request_s: Seconds within which a client must send its first request.
        request_s: Seconds for a request, its answer and the pause after it.
        call_later: Starts deadlines; None for the loop's ``call_later``.
    """

    def __init__(
        self,
        server: Callable[[], asyncio.Protocol],
        *limits: ConnectionLimit,
        first_request_s: float = FIRST_REQUEST_S,
        request_s: float = REQUEST_S,
        call_later: CallLater | None = None,
    ) -> None:
        self._server = server
        self._limits = limits
        self._first_request_s = first_request_s
        self._request_s = request_s
        self._call_later = call_later

    def make_room(self) -> bool:
        """Close a connection to free its descriptor; return False if none is open."""
        return self._limits[-1].make_room()

    def __call__(self) -> StatusConnection:
        return StatusConnection(
            self._server(),
            self._limits,
            first_request_s=self._first_request_s,
            request_s=self._request_s,
            call_later=self._call_later or asyncio.get_running_loop().call_later,
        )


def note_request(request: web.Request) -> None:
    """Restart the deadline of a request's connection (:meth:`StatusConnection.note_request`)."""
    connection = _connection_of(request)
    if connection is not None:
        connection.note_request()


async def send(request: web.Request, response: web.StreamResponse) -> web.StreamResponse:
    """Write an answer that is larger than a chunk; aiohttp writes smaller ones.

    aiohttp would pass the whole body to the transport, which keeps it until the client has read it.

    Returns:
        The answer, for aiohttp to finish.
    """
    body = response.body if isinstance(response, web.Response) else None
    if not isinstance(body, bytes) or len(body) <= CHUNK_BYTES or request.method == "HEAD":
        return response
    stream = web.StreamResponse(status=response.status, headers=response.headers)
    stream.content_length = len(body)
    # aiohttp itself detects that the connection was closed, so ignore the error.
    with contextlib.suppress(ConnectionResetError):
        await stream.prepare(request)
        await write(request, stream, body)
    return stream


async def write(request: web.Request, stream: web.StreamResponse, body: bytes) -> None:
    """Write a part of a streamed answer in chunks, as fast as the client reads.

    Raises:
        ConnectionResetError: The connection has ended.
    """
    connection = _connection_of(request) if len(body) > CHUNK_BYTES else None
    if connection is not None:
        connection.server.hold(connection, body)
    try:
        for start in range(0, len(body), CHUNK_BYTES):
            await stream.write(memoryview(body)[start : start + CHUNK_BYTES])
    finally:
        if connection is not None:
            connection.server.release(connection)


def _connection_of(request: web.Request) -> StatusConnection | None:
    transport = request.transport
    connection = transport.get_protocol() if transport is not None else None
    return connection if isinstance(connection, StatusConnection) else None
