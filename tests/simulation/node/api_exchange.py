"""A request to a simulated API server, and the received part of its response.

    client ──request──▶ [network] ──▶ server ──code, parts, end or reset──▶ [network] ──▶ client

Rule 1: parts arrive in the order in which they were sent, each a moment later.
Rule 2: while the network or the server is blocked, parts wait, and are lost only if the connection
is lost.
Rule 3: after an error, unread data is lost, as with aiohttp.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from userspace_proxy.sources.kubernetes.client import CONNECT_S

if TYPE_CHECKING:
    from .api import ApiServer
    from .api_client import SimulatedClient

LATENCY_S = 0.002
PROBES_S = 60.0
"""The time without an answer after which the kernel drops a connection, in seconds
(``_KEEPALIVE``)."""


class Exchange:
    """A request and its response.

    Args:
        body: The request's body; None for none.
    """

    def __init__(
        self,
        client: SimulatedClient,
        server: ApiServer,
        method: str,
        path: str,
        query: Mapping[str, str],
        body: Mapping[str, Any] | None = None,
    ) -> None:
        self.client = client
        self.server = server
        self.method = method
        self.path = path
        self.query = query
        self.body = body
        self.timeline = server.timeline
        self.began = self.timeline.now
        self.code = 0
        """The response's status code; 0 before it begins."""
        self.retry_after_s = 0.0
        self.error = ""
        """The error that aborted it."""
        self.is_ended = False
        self.is_closed = False
        """Whether the client has finished with it."""
        self._parts: deque[bytes] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self.is_answered = False
        """Whether the response has begun."""
        self.is_over = False
        """Whether the server has finished the exchange."""
        self.is_stalled = False
        """Whether no further bytes arrive, without an error."""
        self.cut_after: int | None = None
        """The number of bytes after which the body is truncated."""
        self.ends_cleanly = False
        """Whether the truncated body seems complete."""
        self._sent: deque[tuple[Any, tuple[Any, ...]]] = deque()
        """Data in flight."""
        self._free_at = self.began
        """The earliest time at which more can arrive."""

    async def until_begun(self) -> None:
        """Wait for a status code or an error."""
        while not self.code and not self.error:
            await self._wait()

    async def read(self) -> bytes:
        """Wait for bytes, and return them; empty at the end, or after an error."""
        while not (self._parts or self.error or self.is_ended):
            await self._wait()
        if self.error:
            return b""
        data = b"".join(self._parts)
        self._parts.clear()
        return data

    def close(self) -> None:
        """Close the connection; the server detects this a moment later."""
        if not self.is_closed:
            self.is_closed = True
            self.client.exchanges.discard(self)
            self.timeline.after(self._delay(), self.server.hang_up, self)

    async def _wait(self) -> None:
        self._waiter = self.client.loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def depart(self) -> None:
        """Send the request to the server."""
        self.timeline.after(self._delay(), self._reach)

    def _reach(self) -> None:
        if self.is_closed or self.is_over:
            return
        self.server.queued.pop(self, None)
        now = self.timeline.now
        until = self.client.address.cut_off_until(self.client.node)
        if until > now:
            late = self.began + CONNECT_S
            if until < late:
                self.timeline.at(until, self._reach)
            else:
                self.timeline.at(late, self.fail, "Connection timed out")
            return
        if not self.server.is_up:
            self.fail("Connection refused")
        elif self.server.silent_until > now:
            self.server.queued[self] = None
            self.timeline.at(self.server.silent_until, self._reach)
        else:
            self.server.handle(self)

    def hold(self, seconds: float) -> None:
        """Delay later parts by at least this many seconds from now."""
        self._free_at = max(self._free_at, self.timeline.now + seconds)

    def begin(self, code: int, retry_after_s: float = 0.0) -> None:
        """Send the head of a response."""
        self.is_answered = True
        self._post(self._take_head, code, retry_after_s)

    def send(self, data: bytes) -> None:
        """Send a part of the body, in pieces as the server's network splits them."""
        if self.is_over:
            return
        is_cut = self.cut_after is not None and len(data) > self.cut_after
        if is_cut:
            data = data[: self.cut_after]
        elif self.cut_after is not None:
            self.cut_after -= len(data)
        self._post_parts(data)
        if is_cut:
            self.server.hang_up(self)
            if self.ends_cleanly:
                self.end()
            else:
                self.reset("Connection reset by peer")

    def end(self) -> None:
        """Send the end of the body."""
        if not self.is_over:
            self.is_over = True
            self._post(self._take_end)

    def reset(self, why: str) -> None:
        """Reset the connection."""
        self.is_over = True
        at = max(self._free_at, self.timeline.now + self._delay())
        self.timeline.at(at, self._break_off, why)

    def fail(self, why: str) -> None:
        """Make the client see an aborted connection."""
        if not self.is_closed and not self.is_ended and not self.error:
            self.error = why
            self.client.failed(self)
            self._wake()

    def _post(self, take: Any, *args: Any) -> None:
        self._free_at = max(self._free_at, self.timeline.now + self._delay())
        self._sent.append((take, args))
        self.timeline.at(self._free_at, self._arrive)

    def _post_parts(self, data: bytes) -> None:
        """Send data in pieces; pieces that arrive at the same moment are merged."""
        draw, now = self.server.rng.random, self.timeline.now
        arrives_at, sent = self._free_at, 0
        for begin in self.server.pieces(len(data)):
            at = now + LATENCY_S * draw()
            if at > arrives_at:
                self._post_part(arrives_at, data[sent:begin])
                arrives_at, sent = at, begin
        self._post_part(arrives_at, data[sent:])

    def _post_part(self, at: float, data: bytes) -> None:
        if data:
            self._free_at = at
            self._sent.append((self._take_part, (data,)))
            self.timeline.at(at, self._arrive)

    def _arrive(self) -> None:
        """Receive the next sent part, unless the path is blocked."""
        if self.is_closed or not self._sent or self.is_stalled:
            return
        cut_off_until = self.client.address.cut_off_until(self.client.node)
        until = max(cut_off_until, self.server.silent_until)
        if until > self.timeline.now:
            self.timeline.at(until, self._arrive)
            return
        take, args = self._sent.popleft()
        take(*args)

    def _break_off(self, why: str) -> None:
        """Deliver an RST, which the server's kernel sends even if the server is stopped."""
        until = self.client.address.cut_off_until(self.client.node)
        if until > self.timeline.now:
            self.timeline.at(until, self._break_off, why)
        else:
            self.fail(why)

    def _take_head(self, code: int, retry_after_s: float) -> None:
        if not self.error:
            self.code, self.retry_after_s = code, retry_after_s
            self.client.on_head(self)
            self._wake()

    def _take_part(self, piece: bytes) -> None:
        if not self.error:
            self._parts.append(piece)
            self.client.arrived(self, piece)
            self._wake()

    def _take_end(self) -> None:
        if not self.error:
            self.is_ended = True
            self.client.ended(self)
            self._wake()

    def _delay(self) -> float:
        return LATENCY_S * self.server.rng.random()
