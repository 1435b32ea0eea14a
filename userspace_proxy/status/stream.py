"""The stream of updates of a page: server-sent events that contain only what changed.

    sample ──▶ parts of the page for one selection ──▶ those that the client doesn't have

Rule 1: the first message contains everything, so a client that reconnects is up to date.
Rule 2: a client that reads slowly gets fewer updates; nothing is queued for it but one message.
Rule 3: a stream lasts as long as its client reads. Where connections are limited it ends before
those that wait for an answer, and the client connects again.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable

from aiohttp import web

from .connections import keep_open
from .history import History
from .page import Parts, build_page, render_parts
from .sampling import Sampler
from .selection import Selection
from .view import StatusView

# Each may take some 30 ms of a second; a browser has a stream only for a page that is visible.
MAX_STREAMS = 16
# Of a client whose connection ended, until it connects again.
_RETRY_MS = 1000


class Sent:
    """What one client has."""

    def __init__(self) -> None:
        self._parts: Parts | None = None

    def message(self, parts: Parts) -> bytes:
        """Return the event that brings the client up to date; a comment if it is.

        A row that is gone and appears again is sent again.
        """
        before, self._parts = self._parts, parts
        known = before.html if before is not None else {}
        html = {name: text for name, text in parts.html.items() if known.get(name) != text}
        changes: dict[str, object] = {"html": html} if html else {}
        for name in ("title", "level", "rows"):
            if (value := getattr(parts, name)) != getattr(before, name, None):
                changes[name] = value
        return b"data: %s\n\n" % json.dumps(changes).encode() if changes else b":\n\n"


class Streams:
    """The streams of one status server.

    Args:
        clock: Returns the Unix time.
    """

    def __init__(self, sampler: Sampler, clock: Callable[[], float]) -> None:
        self._sampler = sampler
        self._clock = clock
        self._open: set[asyncio.Task[object]] = set()
        self._rendering = asyncio.Lock()
        self._rendered: dict[Selection, tuple[int, Parts]] = {}
        """The last sample that was rendered for each selection: many clients have the same."""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Send updates until the client disconnects."""
        task = asyncio.current_task()
        if task is None or len(self._open) >= MAX_STREAMS:
            text = f"{MAX_STREAMS} pages are open already; close one of them.\n"
            return web.Response(status=503, text=text)
        self._open.add(task)
        try:
            return await self._stream(request)
        finally:
            self._open.discard(task)

    def close(self) -> None:
        """End all streams."""
        for task in self._open:
            task.cancel()

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        selection, sent, count = Selection.parse(request.query), Sent(), 0
        try:
            await response.write(b"retry: %d\n\n" % _RETRY_MS)
            while True:
                count, view = await self._sampler.after(count)
                await response.write(sent.message(await self._parts(count, view, selection)))
                keep_open(request)
        except ConnectionResetError:
            return response

    async def _parts(self, count: int, view: StatusView, selection: Selection) -> Parts:
        async with self._rendering:
            number, parts = self._rendered.get(selection, (0, None))
            if parts is None or number < count:
                now, history = self._clock(), self._sampler.history
                parts = await self._sampler.work(lambda: _render(view, now, selection, history))
                recent = {s: r for s, r in self._rendered.items() if r[0] >= count}
                self._rendered = {**recent, selection: (count, parts)}
            return parts


def _render(view: StatusView, now: float, selection: Selection, history: History) -> Parts:
    return render_parts(build_page(view, now=now, selection=selection, history=history))
