"""Serves ``/api/v1/connections``: the clients of Services, or with ``watch`` each connection.

    Observing ──▶ Watcher ──┬─▶ lines of JSON, for programs and the command ``observe``
                            └─▶ events with text, for the page

Rule 1: ``stream`` decides how many streams may be open, and which one is closed at the limit.
Rule 2: a line is one connection; after two seconds without a connection, an empty line tests
whether the client still reads.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

from aiohttp import web

from ..clocks import Clocks
from ..errors import ConfigError
from ..facts import StatusFacts
from ..facts.connection import ConnectionEvent, ConnectionFacts, ConnectionFilter
from ..facts.encoding import encode_answer
from ..model import parse_ip
from ..model.durations import parse_duration
from .connection_words import cells_of, edge_cells, level_of
from .missing import say_missing
from .observing import LEFT_OUT, Observing, TooManyWatched, Watcher, unseen
from .sampling import RenderThread
from .stream import OpenStreams

_QUIET_S = 2.0
# The maximum number of rows per event: a browser receives four events per second.
ROWS_AT_ONCE = 50
EDGES_SHOWN = 20

_EVENTS = "text/event-stream"


class ConnectionStreams:
    """The streams of connections of one status server.

    Args:
        take: Returns the current view.
    """

    def __init__(self, observing: Observing, take: Callable[[], Awaitable[StatusFacts]]) -> None:
        self._observing = observing
        self._take = take
        self._open = OpenStreams()
        self._thread = RenderThread()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Return the table of clients or, with ``watch``, the stream of connections."""
        asked, view = read_filter(request.query), await self._take()
        wanted = await self._thread.work(lambda: _found(view, asked))
        if "watch" not in request.query or request.method != "GET":
            body = encode_answer(self._observing.edges(wanted))
            return web.Response(body=body, content_type="application/json")
        now = Clocks.time()
        first = await self._thread.work(lambda: list(unseen(view, wanted, now)))
        is_page = _EVENTS in request.headers.get("Accept", "")
        with contextlib.ExitStack() as watching:
            try:
                watcher = watching.enter_context(self._observing.watch(Watcher(wanted)))
            except TooManyWatched as exc:
                raise web.HTTPServiceUnavailable(reason=str(exc)) from None
            watched = _Watched(watcher, self._observing, first)
            if is_page:
                return await self._open.send_events(request, watched.events())
            return await self._open.send(request, "application/x-ndjson", watched.lines())

    def close(self) -> None:
        self._open.close()


class _Watched:
    """The records for one reader, as lines or events."""

    def __init__(
        self, watcher: Watcher, observing: Observing, first: list[ConnectionFacts]
    ) -> None:
        self._watcher = watcher
        self._observing = observing
        self._first = first

    async def lines(self) -> AsyncIterator[bytes]:
        """Yield lines of JSON, beginning with Service ports whose connections can't be observed."""
        async for records in self._records():
            yield b"".join(map(encode_answer, records)) or b"\n"

    async def events(self) -> AsyncIterator[bytes]:
        """Yield events with rows as text, the newest row last, and with the table of clients."""
        async for records in self._records():
            shown = records
            if (more := len(records) - ROWS_AT_ONCE) > 0:
                event, last = ConnectionEvent.LEFT_OUT, records[-1].at
                left_out = ConnectionFacts(event=event, at=last, count=more, cause=LEFT_OUT)
                shown = [*records[more:], left_out]
            rows = [{"level": level_of(one) or "", "cells": cells_of(one)} for one in shown]
            edges = edge_cells(self._observing.edges(self._watcher.wanted), EDGES_SHOWN)
            yield b"data: %s\n\n" % json.dumps({"rows": rows, "edges": edges}).encode()

    async def _records(self) -> AsyncIterator[list[ConnectionFacts]]:
        yield self._first
        while True:
            yield await self._watcher.take(_QUIET_S)


def read_filter(query: Mapping[str, str]) -> ConnectionFilter:
    """Parse the filter of connections in a query.

    Raises:
        HTTPBadRequest: A value is invalid.
    """
    client, slow = query.get("from", ""), query.get("slow", "")
    try:
        return ConnectionFilter(
            service=query.get("service", "")[:512],
            client=parse_ip(client) if client else "",
            failed="failed" in query,
            saved="saved" in query,
            slow_s=_slow_s(slow) if slow else None,
        )
    except (ValueError, ConfigError) as exc:
        raise web.HTTPBadRequest(reason=" ".join(str(exc).split())) from None


def _slow_s(text: str) -> float:
    try:
        return parse_duration(text)
    except ConfigError as exc:
        raise ConfigError(f"slow: {exc}") from None


def _found(view: StatusFacts, wanted: ConnectionFilter) -> ConnectionFilter:
    """Return the filter with its port as a name; raise HTTPNotFound if it selects no port. Slow."""
    if ":" in wanted.service:
        # The user may give the number of a port, but records of connections contain its name, so
        # replace the number.
        port = next(iter(view.only(wanted.service).ports), None)
        wanted = wanted.of(port.name) if port else wanted
    is_known = any(wanted.takes_service(port.plan.key.name.prefixes) for port in view.ports)
    if wanted.service and not is_known:
        raise web.HTTPNotFound(reason=say_missing(view, wanted.service))
    return wanted
