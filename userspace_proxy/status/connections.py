"""Limits the connections of a status server, in number and in time.

    listening socket ──▶ LimitedServer ──▶ StatusConnection ──▶ aiohttp's protocol
                                               └─ ConnectionLimit: which one ends at the limit

Rule 1: a flood of connections doesn't keep probes from being answered: at the limit an old
connection ends, not the new one. Connections that were silent for a second end first, then those
that were answered and are still open, such as one with an unfinished request body; new ones and
those that wait for an answer end only if there are no others.
Rule 2: connections from the node itself, such as the kubelet's probes, have a limit of their own
that other clients can't use up.
Rule 3: at a limit of several servers, the one with the most connections loses one.
Rule 4: each connection has a deadline, so its descriptor is freed whatever the client does.
Rule 5: an answer is written in chunks, as fast as its client reads it. The sum of answers that
clients haven't read is limited: at the limit the connections that read the oldest ones end. Probes'
answers are smaller than a chunk and aren't counted.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import cast

from aiohttp import web

# Far more than the kubelet, a few load balancers, Prometheus and browsers hold open.
MAX_CONNECTIONS = 128
# A probe sends its request at once; the kubelet's own timeout is 1 s by default.
FIRST_REQUEST_S = 2.0
# Spares a client whose first packet was lost once (RFC 6298: it is sent again after 1 s).
SILENT_S = 1.0
# The largest answer, the metrics of 10,000 Services, takes a few seconds.
REQUEST_S = 60.0
# As much as a transport holds before it stops its writer.
CHUNK_BYTES = 64 * 1024
# Of all clients of a server. The JSON of 10,000 Services with 20 endpoints each takes 75 MiB, and
# their metrics less: a few clients read both at a time, and nothing else needs more than a chunk.
UNREAD_BYTES = 128 * 1024 * 1024

CallLater = Callable[[float, Callable[[], object]], asyncio.TimerHandle]
"""As a loop's ``call_later``."""


class ConnectionLimit:
    """At most ``limit`` connections from the node itself, and as many from elsewhere.

    Args:
        limit: Simultaneous connections of each of the two kinds.
        clock: Monotonic seconds.
        unread_bytes: Of all answers that are being written.
    """

    def __init__(
        self,
        limit: int,
        clock: Callable[[], float] = time.monotonic,
        *,
        unread_bytes: int = UNREAD_BYTES,
    ) -> None:
        self._limit = limit
        self._clock = clock
        self._unread_bytes = unread_bytes
        self._unread: dict[StatusConnection, bytes] = {}
        """What is being written to each, oldest first."""
        self._own: dict[StatusConnection, float] = {}
        """Each with its start time, oldest first."""
        self._others: dict[StatusConnection, float] = {}

    def __len__(self) -> int:
        return len(self._own) + len(self._others)

    def add(self, connection: StatusConnection) -> None:
        """Count a connection; at the limit this ends another one."""
        counted, now = self._counted_with(connection), self._clock()
        if len(counted) >= self._limit:
            _end_one(counted, now)
        counted[connection] = now

    def hold(self, connection: StatusConnection, body: bytes) -> None:
        """Count an answer that is being written; at the limit, readers of older ones end.

        An answer that several connections share counts once. One that exceeds the limit alone is
        written, too.
        """
        self._unread[connection] = body
        for oldest, held in list(self._unread.items()):
            if sum({id(one): len(one) for one in self._unread.values()}.values()) <= (
                self._unread_bytes
            ):
                return
            if held is not body:
                oldest.end()

    def release(self, connection: StatusConnection) -> None:
        """Stop counting the answer of a connection; idempotent."""
        self._unread.pop(connection, None)

    def make_room(self) -> bool:
        """End one connection, preferably from elsewhere; False if none is open."""
        return _end_one(self._others or self._own, self._clock())

    def discard(self, connection: StatusConnection) -> None:
        """Stop counting a connection and its answer; idempotent."""
        self.release(connection)
        self._counted_with(connection).pop(connection, None)

    def _counted_with(self, connection: StatusConnection) -> dict[StatusConnection, float]:
        return self._own if connection.is_own else self._others


class StatusConnection(asyncio.Protocol):
    """One connection to a status server, in front of aiohttp's protocol.

    Args:
        limits: The limits that count it; the first is its server's own.
        first_request_s: Seconds until the head of the first request is complete.
        request_s: Seconds from a request to the next, or to the end of the connection.
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
        self.is_silent = True
        """It has sent no request yet."""
        self.is_answered = False
        """The last request was answered, or as much of it as was sent."""
        self.is_own = False
        """Its client is on the node itself."""
        self.on_end: Callable[[], object] | None = None
        """Called once, when the connection has ended."""
        self._handler = handler
        self._limits = limits
        self._first_request_s = first_request_s
        self._request_s = request_s
        self._call_later = call_later
        self._transport: asyncio.Transport | None = None
        self._deadline: asyncio.TimerHandle | None = None

    @property
    def server(self) -> ConnectionLimit:
        """The limit of its server alone."""
        return self._limits[0]

    def note_request(self) -> None:
        """Restart the deadline for the answer to a request."""
        self.is_silent = self.is_answered = False
        self._end_in(self._request_s)

    def note_answer(self) -> None:
        """Note that the last request was answered."""
        self.is_answered = True

    def end(self) -> None:
        """Reset the connection; idempotent."""
        self._forget()
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Part of Protocol."""
        # A cast, not isinstance: uvloop's transports don't inherit from asyncio's.
        self._transport = cast("asyncio.Transport", transport)
        self.is_own = is_from_this_node(
            transport.get_extra_info("peername"), transport.get_extra_info("sockname")
        )
        for limit in self._limits:
            limit.add(self)
        self._end_in(self._first_request_s)
        self._handler.connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Part of Protocol."""
        self._forget()
        if self.on_end is not None:
            self.on_end()
        self._handler.connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Part of Protocol."""
        self._handler.data_received(data)

    def eof_received(self) -> bool | None:
        """Part of Protocol."""
        return self._handler.eof_received()

    def pause_writing(self) -> None:
        """Part of Protocol."""
        self._handler.pause_writing()

    def resume_writing(self) -> None:
        """Part of Protocol."""
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
    """The protocol factory of an asyncio server: aiohttp's, within limits.

    Args:
        server: Creates aiohttp's protocol for each connection.
        limits: Apply to each connection. The first one is this server's own, others
            may be shared.
        first_request_s: Seconds that a client has for its first request.
        request_s: Seconds for a request, its answer and the pause after it.
        call_later: Starts deadlines; None: the loop's.
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
        """End a connection to free its descriptor; False if none is open."""
        return self._limits[-1].make_room()

    def __call__(self) -> StatusConnection:
        """Return the protocol of a new connection."""
        return StatusConnection(
            self._server(),
            self._limits,
            first_request_s=self._first_request_s,
            request_s=self._request_s,
            call_later=self._call_later or asyncio.get_running_loop().call_later,
        )


@contextlib.contextmanager
def answering(request: web.Request) -> Iterator[None]:
    """Notify a request's connection of the request, and of its answer at the end."""
    connection = _connection_of(request)
    if connection is None:
        yield
        return
    connection.note_request()
    try:
        yield
    finally:
        connection.note_answer()


def keep_open(request: web.Request) -> None:
    """Restart the deadline of a connection whose answer goes on, because its client reads it.

    At a limit it ends before connections that wait for an answer.
    """
    connection = _connection_of(request)
    if connection is not None:
        connection.note_request()
        connection.note_answer()


async def send(request: web.Request, response: web.StreamResponse) -> web.StreamResponse:
    """Write an answer that is larger than a chunk; others are left to aiohttp.

    aiohttp gives a whole body to the transport, which keeps it until the client has read it.

    Returns:
        The answer, for aiohttp to finish.
    """
    body = response.body if isinstance(response, web.Response) else None
    if not isinstance(body, bytes) or len(body) <= CHUNK_BYTES or request.method == "HEAD":
        return response
    stream = web.StreamResponse(status=response.status, headers=response.headers)
    stream.content_length = len(body)
    # If the connection has ended, aiohttp finds that out, too.
    with contextlib.suppress(ConnectionResetError):
        await stream.prepare(request)
        await write(request, stream, body)
    return stream


async def write(request: web.Request, stream: web.StreamResponse, body: bytes) -> None:
    """Write a part of a streamed answer in chunks, as fast as the client reads them.

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


def _end_one(counted: dict[StatusConnection, float], now: float) -> bool:
    """End the least important connection of the largest server; False if none is open."""
    sizes = Counter(connection.server for connection in counted)
    if not sizes:
        return False
    (largest, _), *_ = sizes.most_common(1)

    def rank(connection: StatusConnection) -> int:
        if connection.is_silent and now - counted[connection] >= SILENT_S:
            return 0
        return 1 if connection.is_answered else 2

    # Of equal ones min() returns the first, which is the oldest.
    min((one for one in counted if one.server is largest), key=rank).end()
    return True


def is_from_this_node(peer: tuple[object, ...] | None, local: tuple[object, ...] | None) -> bool:
    """Return whether a client has the very address that it dialled.

    The kernel takes the destination as the source of a connection to a local address, and drops
    packets from elsewhere with such a source.

    Args:
        peer: The client's socket address; None if the client has disconnected.
        local: The address that it dialled.
    """
    return bool(peer and local and peer[0] == local[0])
