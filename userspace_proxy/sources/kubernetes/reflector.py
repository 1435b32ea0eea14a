"""Keeps one kind in sync with the API server: list once, watch forever.

    ┌─▶ list ──pages──▶ table ─┐           all kinds of trouble
    │                          ▼                    │
    └── 410 ◀── watch ──lines──▶ table ──end──▶ wait, watch again from where we stood

Rule 1: nothing that the server or the network does ends a run; each failure is a problem
in words until the next list or watch stands.
Rule 2: a watch that lived long enough is followed by the next one at once, any other
after a wait, which grows where nothing was heard.
Rule 3: much at once is taken in parts, and the event loop turns in between.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ...model.wire import DecodeError, Metadata, Status, WireEvent, WireHead, WirePage, decode
from ..pause import Pause
from .backoff import BASE_S, CAP_S, Backoff
from .client import ApiClient, Stream
from .lines import LineSplitter, LineTooLong
from .position import Position
from .responses import (
    Failure,
    Response,
    TransportError,
    invalid,
    is_expired,
    read_status,
    rejected,
    unreachable,
)
from .table import Table

_log = logging.getLogger("userspace_proxy.sources")

BATCH_BYTES = 64 << 10
"""Read between two turns of the event loop: about 2 ms (40 Services, or 250 endpoints)."""


@dataclass(frozen=True, slots=True)
class Timing:
    """How long things may take, in seconds."""

    watch_s: float = 300.0
    """The server ends a watch after this to twice this, as client-go asks it to."""
    silence_s: float = 150.0
    """Two bookmarks missed, once one has come: then a server sends one a minute."""
    silence_over_s: float = 30.0
    """What a watch may take longer than asked for, where no bookmark has come: the first of a
    quiet kind took two minutes (kube-apiserver 1.36), and none is promised. Where the whole
    machine is gone, the kernel's probes find out within a minute."""
    healthy_s: float = 5.0
    """A watch that lived that long is followed by the next one at once."""
    backoff_base_s: float = BASE_S
    backoff_cap_s: float = CAP_S


class Reflector:
    """Lists and watches one kind into a table.

    Args:
        table: Takes the objects.
        client: An open one.
        changed: Called after something of the table or of ``problem`` may have changed.
        recovered: Called when a list or watch stands again after a problem: the server is
            there, so others needn't wait.
        timing: How long things may take.
        rng: Where jitter comes from.
        clock: Seconds, monotonic.
        pause: Waits.
    """

    def __init__(
        self,
        table: Table,
        client: ApiClient,
        changed: Callable[[], None],
        recovered: Callable[[], None] = lambda: None,
        *,
        timing: Timing,
        rng: random.Random,
        clock: Callable[[], float],
        pause: Pause,
    ) -> None:
        self._table = table
        self._kind = table.kind
        self._client = client
        self._changed = changed
        self._recovered = recovered
        self._waiting: asyncio.Future[None] | None = None
        self._timing = timing
        self._rng = rng
        self._clock = clock
        self._pause = pause
        self._position = Position()
        self._backoff = Backoff(rng, base_s=timing.backoff_base_s, cap_s=timing.backoff_cap_s)
        self._has_bookmarks = False
        self._has_heard = False
        self._watched_s = 0.0
        self.is_listed = False
        """Everything was read at least once."""
        self.is_watching = False
        """What changes now comes in as it changes."""
        self.is_forbidden = False
        """The server knows us, and doesn't let us read this kind (403)."""
        self.problem = ""
        """Why there is no list or watch now; empty when there is."""

    @property
    def restarts(self) -> int:
        """How often a watch had to begin anew with a list."""
        return self._position.restarts

    async def run(self) -> None:
        """List and watch for ever."""
        while True:
            self._watched_s = 0.0
            self._has_heard = False
            failure = await self._turn()
            was_healthy = self._watched_s >= self._timing.healthy_s
            if failure is not None:
                self.problem = failure.text
                self._changed()
            if was_healthy or (self._has_heard and failure is None):
                self._backoff.reset()
            if failure is None and was_healthy:
                continue
            await self._wait(0.0 if failure is None else failure.retry_after_s)

    def wake(self) -> None:
        """Try again at once, unless the server asked for patience."""
        if self._waiting is not None:
            self._backoff.reset()
            self._waiting.cancel()

    async def _wait(self, at_least_s: float) -> None:
        waiting = asyncio.ensure_future(self._pause(self._backoff.next_s(at_least_s=at_least_s)))
        self._waiting = None if at_least_s else waiting
        try:
            await asyncio.wait({waiting})
        finally:
            self._waiting = None
            waiting.cancel()

    async def _turn(self) -> Failure | None:
        """List if that is needed, then watch once; return why it failed, if it did."""
        try:
            if self._position.needs_list:
                self._table.begin_list()
                failure = await self._list()
                if failure is not None:
                    return failure
            return await self._watch()
        except TransportError as exc:
            return unreachable(self._client.url, exc)
        finally:
            self._position.list_broken_off()

    def _stands(self) -> None:
        """Note that all is well: a list or a watch stands."""
        had_problem, self.problem = bool(self.problem), ""
        self.is_forbidden = False
        self._changed()
        if had_problem:
            self._recovered()

    # -- list

    async def _list(self) -> Failure | None:
        while True:
            query = {**self._kind.query, **self._position.list_query()}
            response = await self._client.get(self._kind.path, query)
            if response.code != 200:
                if is_expired(response.code, read_status(response.body)):
                    self._table.begin_list()
                    if self._position.list_expired():
                        continue
                return self._rejected("list", response)
            try:
                page = decode(response.body, WirePage)
            except DecodeError as exc:
                return self._invalid(str(exc))
            await self._take_items(page.items or [])
            metadata = page.metadata
            if not metadata.resource_version:
                return self._invalid("a list without a resourceVersion")
            if self._position.page_done(metadata.resource_version, metadata.continue_ or ""):
                self._table.end_list()
                self.is_listed = True
                self._stands()
                return None

    async def _take_items(self, items: Sequence[Any]) -> None:
        for batch in _batches(items):
            self._table.list_items(batch)
            await self._pause(0)

    # -- watch

    async def _watch(self) -> Failure | None:
        """Watch until the stream ends; None when it may go on from where we stand."""
        asked_s = self._timing.watch_s * (1 + self._rng.random())
        query = {**self._kind.query, **self._position.watch_query(int(asked_s))}
        async with self._client.stream(self._kind.path, query) as stream:
            if stream.code != 200:
                response = await stream.rest()
                if is_expired(response.code, read_status(response.body)):
                    self._expire()
                    return None
                return self._rejected("watch", response)
            begun = self._clock()
            self.is_watching = True
            self._stands()
            try:
                return await self._follow(stream, asked_s)
            except (TimeoutError, TransportError) as exc:
                # No problem yet: that is what the next watch says.
                self._log_end(str(exc) or "no data from the server in time")
                return None
            except (DecodeError, LineTooLong) as exc:
                # The next watch would bring the same line again; a list doesn't.
                self._position.watch_expired()
                return self._invalid(f"in a watch, {exc}")
            finally:
                self.is_watching = False
                self._watched_s = self._clock() - begun

    async def _follow(self, stream: Stream, asked_s: float) -> Failure | None:
        splitter = LineSplitter()
        self._has_bookmarks = False
        while chunk := await stream.read(silence_s=self._silence_s(asked_s)):
            for batch in _batches(splitter.feed(chunk)):
                for line in batch:
                    event = decode(line, WireEvent)
                    if event.type == "ERROR":
                        self._changed()
                        return self._error(decode(event.object, Status))
                    self._has_heard = True
                    self._take_event(event)
                self._changed()
                await self._pause(0)
        return None

    def _silence_s(self, asked_s: float) -> float:
        if self._has_bookmarks:
            return self._timing.silence_s
        return asked_s + self._timing.silence_over_s

    def _take_event(self, event: WireEvent) -> None:
        match event.type:
            case "ADDED" | "MODIFIED":
                self._position.advance(self._table.put(event.object))
            case "DELETED":
                self._position.advance(self._table.delete(event.object))
            case "BOOKMARK":
                metadata: Metadata = decode(event.object, WireHead).metadata
                self._position.advance(metadata.resource_version)
                self._has_bookmarks = True
            case _:
                raise DecodeError("type", f"{event.type!r} is not a known event type")

    def _error(self, status: Status) -> Failure | None:
        """Take an ERROR event, which ends the watch."""
        code = status.code or 500
        if is_expired(code, status):
            self._expire()
            return None
        said = " ".join((status.message or status.reason or f"code {code}").split())
        return Failure(f"the API server at {self._client.url} ended a watch: {said}")

    def _expire(self) -> None:
        self._log_end("it expired; listing again")
        self._position.watch_expired()

    def _log_end(self, reason: str) -> None:
        _log.info(
            "watch ended",
            extra={
                "resource": self._kind.resource,
                "server": self._client.url,
                "reason": reason,
            },
        )

    # -- words

    def _rejected(self, verb: str, response: Response) -> Failure:
        self.is_forbidden = response.code == 403
        return rejected(
            self._client.url,
            f"{verb} {self._kind.resource}",
            response,
            credentials=self._client.credentials.description,
        )

    def _invalid(self, what: str) -> Failure:
        return invalid(self._client.url, self._kind.resource, what)


def _batches(items: Sequence[Any]) -> Iterator[Sequence[Any]]:
    """Cut items of JSON into parts of about BATCH_BYTES, with one item at the least."""
    start = size = 0
    for i, item in enumerate(items):
        size += memoryview(item).nbytes
        if size >= BATCH_BYTES:
            yield items[start : i + 1]
            start, size = i + 1, 0
    if start < len(items):
        yield items[start:]
