"""Limits the connections of a status server, in number and in time.

    listening socket ──▶ LimitedServer ──▶ Connection ──▶ aiohttp's protocol
                                               └─ ConnectionLimit: which one ends at the limit

Rule 1: a flood of connections keeps no probe from its answer: at the limit an old connection ends,
not the new one. The first to end are those that have been silent for a second, then those that
have had an answer and are still open, such as one whose request has an unfinished body; a
connection that has just been made, or that waits for an answer, ends only where all are of this
kind.
Rule 2: connections from the node itself, such as the kubelet's probes, have a limit of their own
that clients from elsewhere can't use up.
Rule 3: at a limit of several servers, the one with the most connections loses one.
Rule 4: each connection has a deadline, so descriptors come back whatever the client does.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import cast

from aiohttp import web

# Far more than the kubelet, a few load balancers, Prometheus and people hold open.
MAX_CONNECTIONS = 128
# A probe sends its request at once; the kubelet's own timeout is 1 s by default.
FIRST_REQUEST_S = 2.0
# A client whose first packet was lost once is spared (RFC 6298: the first resend is after 1 s).
SILENT_S = 1.0
# The largest answer, the metrics of 10,000 Services, takes a few seconds.
REQUEST_S = 60.0


class ConnectionLimit:
    """At most ``limit`` connections from the node itself, and as many from elsewhere.

    Args:
        limit: Connections of each of the two kinds at one time.
        clock: Monotonic seconds.
    """

    def __init__(self, limit: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit = limit
        self._clock = clock
        self._own: dict[Connection, float] = {}
        """Each with the time at which it was made, the oldest first."""
        self._others: dict[Connection, float] = {}

    def __len__(self) -> int:
        return len(self._own) + len(self._others)

    def add(self, connection: Connection) -> None:
        """Count a connection; at the limit another one ends in its favour."""
        counted, now = self._counted_with(connection), self._clock()
        if len(counted) >= self._limit:
            _end_one(counted, now)
        counted[connection] = now

    def make_room(self) -> bool:
        """End one connection, of a client from elsewhere if there is one; False if none is open."""
        return _end_one(self._others or self._own, self._clock())

    def discard(self, connection: Connection) -> None:
        """Count a connection no longer; idempotent."""
        self._counted_with(connection).pop(connection, None)

    def _counted_with(self, connection: Connection) -> dict[Connection, float]:
        return self._own if connection.is_own else self._others


class Connection(asyncio.Protocol):
    """One connection to a status server: passes everything on to aiohttp's protocol.

    Args:
        handler: aiohttp's protocol for this connection.
        limits: Those that count it, its server's own first.
        first_request_s: Seconds until the head of the first request is complete.
        request_s: Seconds from a request to the next, or to the end of the connection.
    """

    def __init__(
        self,
        handler: asyncio.Protocol,
        limits: tuple[ConnectionLimit, ...],
        *,
        first_request_s: float,
        request_s: float,
    ) -> None:
        self.is_silent = True
        """No request has come yet."""
        self.is_answered = False
        """The last request has its answer, or as much of it as was sent."""
        self.is_own = False
        """It comes from the node itself."""
        self.on_end: Callable[[], object] | None = None
        """Called once, when the connection has ended."""
        self._handler = handler
        self._limits = limits
        self._first_request_s = first_request_s
        self._request_s = request_s
        self._transport: asyncio.Transport | None = None
        self._deadline: asyncio.TimerHandle | None = None

    @property
    def server(self) -> ConnectionLimit:
        """What counts the connections of its server alone."""
        return self._limits[0]

    def note_request(self) -> None:
        """Give a connection that has sent a request the time to have it answered."""
        self.is_silent = self.is_answered = False
        self._end_in(self._request_s)

    def note_answer(self) -> None:
        """Let a connection whose request is answered end before others do."""
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
        self._deadline = asyncio.get_running_loop().call_later(seconds, self.end)

    def _forget(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        for limit in self._limits:
            limit.discard(self)


class LimitedServer:
    """The protocol factory of an asyncio server: aiohttp's, within limits.

    Args:
        server: Makes aiohttp's protocol for each connection.
        limits: All of them hold for each connection. The first one is this server's own, others
            may be those of several servers.
        first_request_s: Seconds that a client has for its first request.
        request_s: Seconds that a request, its answer and the pause after it may take.
    """

    def __init__(
        self,
        server: Callable[[], asyncio.Protocol],
        *limits: ConnectionLimit,
        first_request_s: float = FIRST_REQUEST_S,
        request_s: float = REQUEST_S,
    ) -> None:
        self._server = server
        self._limits = limits
        self._first_request_s = first_request_s
        self._request_s = request_s

    def make_room(self) -> bool:
        """End a connection, so that another one can have its descriptor; False if none is open."""
        return self._limits[-1].make_room()

    def __call__(self) -> Connection:
        """Return the protocol of a new connection."""
        return Connection(
            self._server(),
            self._limits,
            first_request_s=self._first_request_s,
            request_s=self._request_s,
        )


@contextlib.contextmanager
def answering(request: web.Request) -> Iterator[None]:
    """Note a request with its connection, and at the end its answer; for a middleware."""
    transport = request.transport
    connection = transport.get_protocol() if transport is not None else None
    if not isinstance(connection, Connection):
        yield
        return
    connection.note_request()
    try:
        yield
    finally:
        connection.note_answer()


def _end_one(counted: dict[Connection, float], now: float) -> bool:
    """End the connection that matters least of the largest server; False where none is open."""
    sizes = Counter(connection.server for connection in counted)
    if not sizes:
        return False
    (largest, _), *_ = sizes.most_common(1)

    def rank(connection: Connection) -> int:
        if connection.is_silent and now - counted[connection] >= SILENT_S:
            return 0
        return 1 if connection.is_answered else 2

    # The oldest of those that are equal: min() returns the first.
    min((one for one in counted if one.server is largest), key=rank).end()
    return True


def is_from_this_node(peer: tuple[object, ...] | None, local: tuple[object, ...] | None) -> bool:
    """Return whether a client has the very address that it dialled.

    The kernel takes the destination as the source of a connection to a local address, and drops
    packets from elsewhere that claim such a source.

    Args:
        peer: The client's socket address; None where it has gone.
        local: The one that it dialled.
    """
    if not peer or not local:
        return False
    return peer[0] == local[0]
