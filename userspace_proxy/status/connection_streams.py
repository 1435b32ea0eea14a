"""``/api/v1/connections``: which client calls which Service, and with ``watch`` each connection.

    Observing ──▶ Watcher ──┬─▶ lines of JSON, for programs and the command ``observe``
                            └─▶ events with words, for the page

Rule 1: the limit of streams, and who loses one at the limit, are those of ``stream``.
Rule 2: a line is one connection; an empty one, after two seconds without any, finds out whether
the client still reads.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Awaitable, Callable, Mapping

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
from .sampling import Sample, Sampler
from .stream import Streams

_QUIET_S = 2.0
# Rows of one event: a browser draws four events a second.
ROWS_AT_ONCE = 50
EDGES_SHOWN = 20

_EVENTS = "text/event-stream"


class _Unsampled(Sampler):
    """Has a stream wait by itself, not for samples of the page."""

    async def after(self, count: int) -> tuple[int, Sample]:
        """Part of Sampler; at once."""
        return count + 1, _NO_SAMPLE


class ConnectionStreams(Streams):
    """The streams of connections of one status server.

    Args:
        take: Returns the view at this moment.
    """

    def __init__(self, observing: Observing, take: Callable[[], Awaitable[StatusFacts]]) -> None:
        super().__init__(_Unsampled(take))
        self._observing = observing
        self._take = take

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Return the table of clients, or the stream of connections with ``watch``."""
        asked, view = read_filter(request.query), await self._take()
        wanted = await self._sampler.work(lambda: _found(view, asked))
        if "watch" not in request.query or request.method != "GET":
            body = encode_answer(self._observing.edges(wanted))
            return web.Response(body=body, content_type="application/json")
        now = Clocks.time()
        first = await self._sampler.work(lambda: list(unseen(view, wanted, now)))
        is_page = _EVENTS in request.headers.get("Accept", "")
        with contextlib.ExitStack() as watching:
            try:
                watcher = watching.enter_context(self._observing.watch(Watcher(wanted)))
            except TooManyWatched as exc:
                raise web.HTTPServiceUnavailable(reason=str(exc)) from None
            watched = _Watched(watcher, self._observing, first)
            content_type = _EVENTS if is_page else "application/x-ndjson"
            message = watched.event if is_page else watched.lines
            return await self._stream(request, content_type, b"", message)


class _Watched:
    """What one client gets; it is called for each message."""

    def __init__(
        self, watcher: Watcher, observing: Observing, first: list[ConnectionFacts]
    ) -> None:
        self._watcher = watcher
        self._observing = observing
        self._first = first

    async def lines(self, count: int, _sample: Sample) -> bytes:
        """Return lines of JSON; the first message is sent at once."""
        return b"".join(map(encode_answer, await self._records(count))) or b"\n"

    async def event(self, count: int, _sample: Sample) -> bytes:
        """Return an event with the words of rows, the newest last, and of the table of clients."""
        records = await self._records(count)
        if (more := len(records) - ROWS_AT_ONCE) > 0:
            event, last = ConnectionEvent.LEFT_OUT, records[-1].at
            left_out = ConnectionFacts(event=event, at=last, count=more, cause=LEFT_OUT)
            records = [*records[more:], left_out]
        rows = [{"level": level_of(one) or "", "cells": cells_of(one)} for one in records]
        edges = edge_cells(self._observing.edges(self._watcher.wanted), EDGES_SHOWN)
        return b"data: %s\n\n" % json.dumps({"rows": rows, "edges": edges}).encode()

    async def _records(self, count: int) -> list[ConnectionFacts]:
        return self._first if count == 1 else await self._watcher.take(_QUIET_S)


def read_filter(query: Mapping[str, str]) -> ConnectionFilter:
    """Return which connections a request wants.

    Raises:
        HTTPBadRequest: A value isn't valid.
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
    """Return a filter with the name of its port, or raise that there is none; it takes long."""
    if ":" in wanted.service:
        # A port may be written with its number; connections have its name.
        port = next(iter(view.only(wanted.service).ports), None)
        wanted = wanted.of(port.name) if port else wanted
    is_known = any(wanted.takes_service(port.plan.key.name.scopes) for port in view.ports)
    if wanted.service and not is_known:
        raise web.HTTPNotFound(reason=say_missing(view, wanted.service))
    return wanted


_NO_SAMPLE = Sample(StatusFacts(), 0.0)
