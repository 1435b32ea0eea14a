"""Keeps a cache of one resource in sync with the API server: lists once, then watches.

    ┌─▶ list ──pages──▶ cache ─┐                any failure
    │                          ▼                    │
    └── 410 ◀── watch ──lines──▶ cache ──end──▶ wait, watch again from the last version

Rule 1: no failure of server or network stops the reflector; each, except a single interruption of a
watch, is reported as a problem until the next list or watch succeeds.
Rule 2: a watch that lasted long enough and didn't fail is followed by the next one immediately; a
watch that shows that history went back during an outage is followed by a list; any other watch is
followed by a wait, which grows while watches fail early or have no events.
Rule 3: large input is processed in parts, and the event loop runs in between.
Rule 4: a list has a deadline, and a slow list is reported as a problem while it lasts.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass

from ...log_fields import FieldLogger
from ...log_limit import LogLimit
from ...model.wire import FieldError, Metadata, WireEvent, WireHead, WireStatus, decode
from ...pacing import backoff_s
from ..base import Pause
from .client import ApiClient, LineSplitter, LineTooLong, Stream
from .lists import LIST_S, batches, incomplete_after, read_page
from .position import Position
from .resources import ResourceCache, metadata_of
from .responses import (
    RequestFailure,
    Response,
    TransportError,
    cut_off,
    invalid,
    is_expired,
    read_status,
    rejected,
    unreachable,
)

_log = FieldLogger("userspace_proxy.sources")

# The first and the longest pause between retries. client-go's reflector has 800 ms to 30 s, factor
# 2, jitter 1.0. The cap is lower here: with 30 s, a change after an outage of 30 s took effect 47 s
# late (measured). A busy server sends Retry-After.
BASE_S = 0.8
CAP_S = 5.0

RETRY_AFTER_MAX_S = 32.0
"""The maximum wait that a server can request: kube-apiserver's ``maxRetryAfter`` of APF."""
_WENT_BACK = "its history went back, as after a restore of etcd"
# The maximum delay of a watch's end: servers end a watch to the second, so if it ends later, the
# network was down in between.
_ON_TIME_S = 1.0
# A lower bound for the time of an etcd restore, for which all API servers are stopped and started.
_RESTORE_S = 2.0
_UNKNOWN = float("-inf")
NO_LINE_S = 0.01
"""The wait after a watch's chunk without a line end: tiny chunks would keep a core busy."""


@dataclass(frozen=True, slots=True)
class Timing:
    """Time limits and pauses, in seconds."""

    watch_s: float = 300.0
    """The server ends a watch after one to two times this duration, as client-go requests."""
    silence_s: float = 150.0
    """A watch is ended after this silence, in which two bookmarks were missed: after the first
    bookmark, a server sends one a minute."""
    silence_over_s: float = 30.0
    """The extra time for a watch without bookmarks: the first bookmark of an unchanged resource
    took two minutes (kube-apiserver 1.36), and none is guaranteed. Within a minute, TCP keep-alive
    detects that the whole machine is gone."""
    healthy_s: float = 5.0
    """A watch that lasted this long is restarted immediately, unless it failed."""
    list_s: float = LIST_S
    """The time limit for a whole list."""
    list_long_s: float = 60.0
    """A list that takes longer is reported as a problem until it is complete."""
    backoff_base_s: float = BASE_S
    backoff_cap_s: float = CAP_S


class Reflector:
    """The list and the watches that keep the cache of one resource in sync.

    Args:
        changed: Called after the cache or ``problem`` may have changed.
        recovered: Called when a list or watch succeeds after an outage: the server is reachable, so
            other reflectors needn't wait.
    """

    def __init__(
        self,
        cache: ResourceCache,
        client: ApiClient,
        changed: Callable[[], None],
        recovered: Callable[[], None] = lambda: None,
        *,
        timing: Timing,
        rng: random.Random,
        clock: Callable[[], float],
        pause: Pause,
    ) -> None:
        self._cache = cache
        self._resource = cache.resource
        self._client = client
        self._changed = changed
        self._recovered = recovered
        self._timing = timing
        self._rng = rng
        self._clock = clock
        self._pause = pause
        self._waiting: asyncio.Timeout | None = None
        """The current wait, which may be ended early."""
        self._position = Position()
        self._failures = 0
        self._has_bookmarks = False
        self._has_events = False
        self._has_answered = False
        self._known_at = _UNKNOWN
        """The last time at which the server certainly had the last seen state; unknown after a wait
        or a watch that didn't end on time, because history may have gone back."""
        self._is_invalid = False
        """Whether the last watch began and then failed. The next watch may also begin and fail, so
        its beginning doesn't end an outage."""
        self._lists_at_once = False
        """Whether the last watch has shown that history went back during an outage."""
        self._watched_s = 0.0
        self._cuts = 0
        """The number of consecutive watches that were interrupted early, without an event."""
        self._end_log_limit = LogLimit()
        self.is_listed = False
        """Whether everything was read at least once."""
        self.is_forbidden = False
        """Whether the server forbids reading this resource (403)."""
        self.problem = ""
        """Why the last list or watch failed, or is slow; empty otherwise."""
        self.problem_since = 0.0
        """Seconds of the reflector's clock when the problem began; outdated without a problem."""

    @property
    def restarts(self) -> int:
        """The number of watches that had to be replaced by a new list."""
        return self._position.restarts

    async def run(self) -> None:
        """List and watch until cancelled."""
        while True:
            self._watched_s = 0.0
            self._has_events = self._has_answered = self._lists_at_once = False
            failure = await self._list_and_watch()
            was_healthy = self._watched_s >= self._timing.healthy_s
            self._is_invalid = failure is not None and self._has_answered
            if failure is not None:
                self._note_problem(failure.text)
            if was_healthy or (self._has_events and failure is None):
                self._failures = 0
            if failure is None and (was_healthy or self._lists_at_once):
                continue
            self._known_at = _UNKNOWN
            await self._wait(0.0 if failure is None else failure.retry_after_s)

    def wake(self) -> None:
        """Retry immediately, unless the server requested a wait or sends invalid data."""
        if self._waiting is not None and not self._is_invalid:
            self._failures = 0
            self._waiting.reschedule(0.0)
            self._waiting = None

    async def _wait(self, at_least_s: float) -> None:
        self._failures += 1
        base_s, cap_s = self._timing.backoff_base_s, self._timing.backoff_cap_s
        wait_s = backoff_s(self._failures, base_s, cap_s, jitter=self._rng.random())
        wait_s = max(wait_s, min(at_least_s, RETRY_AFTER_MAX_S))
        try:
            async with asyncio.timeout(None) as waiting:
                self._waiting = None if at_least_s else waiting
                await self._pause(wait_s)
        except TimeoutError:
            return
        finally:
            self._waiting = None

    async def _list_and_watch(self) -> RequestFailure | None:
        """List if necessary, then watch once; return a failure, if any."""
        try:
            if self._position.needs_list:
                self._cache.begin_list()
                failure = await self._list()
                if failure is not None:
                    return failure
            return await self._watch()
        except TransportError as exc:
            return unreachable(self._client.url, exc)
        finally:
            self._position.list_aborted()

    def _note_problem(self, problem: str) -> None:
        if not self.problem:
            self.problem_since = self._clock()
        self.problem = problem
        self._changed()

    def _note_success(self) -> None:
        had_problem, self.problem = bool(self.problem), ""
        self.is_forbidden = False
        self._has_answered = True
        self._changed()
        if had_problem and not self._is_invalid:
            self._recovered()

    async def _check_history(self) -> tuple[RequestFailure | None, bool]:
        """Ask whether the server has the last seen state, or went back because etcd was restored.

        If the state is gone, the next step is a list. Call this while a watch from the state is
        open: otherwise etcd could be restored after the answer.

        Returns: The failure if the server can't answer now, and whether it has the state.
        """
        query = {**self._position.check_query(), **self._resource.query}
        response = await self._client.get(self._resource.path_of_one, query)
        if is_expired(response.code, read_status(response.body)):
            self._expire(_WENT_BACK)
            self._position.list_expired()
        elif response.code >= 500 or response.code == 429:
            return self._rejected("watch", response), False
        # The watch itself reports other errors, such as a missing permission. Another API server
        # may not return this one, so the state is checked again with the next watch.
        return None, response.code == 200

    async def _list(self) -> RequestFailure | None:
        noted = asyncio.get_running_loop().call_later(self._timing.list_long_s, self._note_long)
        try:
            async with asyncio.timeout(self._timing.list_s):
                return await self._list_pages()
        except TimeoutError as exc:
            raise TransportError(incomplete_after(self._timing.list_s)) from exc
        finally:
            noted.cancel()

    async def _list_pages(self) -> RequestFailure | None:
        while True:
            query = {**self._resource.query, **self._position.list_query()}
            self._known_at = self._clock()
            try:
                page = await read_page(
                    self._client,
                    self._resource.path,
                    query,
                    self._cache.list_items,
                    pause=self._pause,
                )
            except FieldError as exc:
                return self._invalid(str(exc))
            if isinstance(page, Response):
                if is_expired(page.code, read_status(page.body)):
                    self._cache.begin_list()
                    if self._position.list_expired():
                        continue
                return self._rejected("list", page)
            if not page.resource_version:
                return self._invalid("a list without a resourceVersion")
            if self._position.page_done(page.resource_version, page.continue_ or ""):
                self._cache.end_list()
                self.is_listed = True
                self._note_success()
                return None

    def _note_long(self) -> None:
        self._note_problem(
            f"the API server at {self._client.url} has been sending the list of "
            f"{self._resource.name} for {self._timing.list_long_s:g} s, and it isn't complete"
        )

    async def _watch(self) -> RequestFailure | None:
        """Watch until the stream ends; return a failure, or None if the watch ended or expired."""
        requested_s = self._timing.watch_s * (1 + self._rng.random())
        query = {**self._resource.query, **self._position.watch_query(int(requested_s))}
        known_at, self._known_at = self._known_at, _UNKNOWN
        async with self._client.stream(self._resource.path, query) as stream:
            if stream.code != 200:
                response = await stream.rest()
                if is_expired(response.code, read_status(response.body)):
                    self._expire()
                    return None
                return self._rejected("watch", response)
            begun = self._clock()
            is_known = begun - known_at <= _RESTORE_S
            if not is_known:
                failure, is_known = await self._check_history()
                if failure is not None or self._position.needs_list:
                    # Don't list immediately after a list: servers with different states would cause
                    # one list after another.
                    self._lists_at_once = known_at == _UNKNOWN
                    return failure
            self._note_success()
            try:
                failure = await self._follow(stream, requested_s)
                # The watch wasn't interrupted, so count cuts from 0 again.
                self._cuts = 0
                ended = self._clock()
                is_on_time = abs(ended - begun - int(requested_s)) <= _ON_TIME_S
                self._known_at = ended if is_on_time and is_known else _UNKNOWN
                if failure is None and self._cache.has_room:
                    self._expire("there is room for objects that were left out")
                return failure
            except (TimeoutError, TransportError) as exc:
                reason = str(exc) or "no data from the server in time"
                self._log_end(reason)
                return self._cut_off(reason, self._clock() - begun)
            except (FieldError, LineTooLong) as exc:
                # The next watch would contain the same line again; a new list wouldn't.
                self._position.watch_expired()
                return self._invalid(f"in a watch, {exc}")
            finally:
                self._watched_s = self._clock() - begun

    async def _follow(self, stream: Stream, requested_s: float) -> RequestFailure | None:
        splitter = LineSplitter()
        self._has_bookmarks = False
        while chunk := await stream.read(silence_s=self._silence_s(requested_s)):
            lines = splitter.feed(chunk)
            if not lines:
                await self._pause(NO_LINE_S)
            for batch in batches(lines):
                for line in batch:
                    event = decode(line, WireEvent)
                    if event.type == "ERROR":
                        self._changed()
                        return self._error(decode(event.object, WireStatus))
                    self._has_events = True
                    # Check the version before applying the event: an older state isn't published,
                    # not even until the following list is complete.
                    metadata = self._metadata_of(event)
                    if not self._position.advance(metadata.resource_version):
                        self._expire(_WENT_BACK)
                        return None
                    self._apply(event, metadata)
                self._changed()
                await self._pause(0)
        return None

    def _silence_s(self, requested_s: float) -> float:
        if self._has_bookmarks:
            return self._timing.silence_s
        return requested_s + self._timing.silence_over_s

    def _metadata_of(self, event: WireEvent) -> Metadata:
        """Return the metadata in an event; raise FieldError for an unknown type."""
        match event.type:
            case "ADDED" | "MODIFIED" | "DELETED":
                return metadata_of(event.object)
            case "BOOKMARK":
                metadata: Metadata = decode(event.object, WireHead).metadata
                return metadata
            case _:
                raise FieldError("type", f"{event.type!r} is not a known event type")

    def _apply(self, event: WireEvent, metadata: Metadata) -> None:
        match event.type:
            case "DELETED":
                self._cache.delete(event.object, metadata)
            case "BOOKMARK":
                self._has_bookmarks = True
            case _:
                self._cache.put(event.object, metadata, is_new=event.type == "ADDED")

    def _error(self, status: WireStatus) -> RequestFailure | None:
        """Handle an ERROR event, which ends the watch; return None if only a new list is needed."""
        code = status.code or 500
        if is_expired(code, status):
            self._expire()
            return None
        cause = " ".join((status.message or status.reason or f"code {code}").split())
        return RequestFailure(f"the API server at {self._client.url} ended a watch: {cause}")

    def _cut_off(self, reason: str, after_s: float) -> RequestFailure | None:
        """Count an interrupted watch; return a failure if the previous one also ended early."""
        if self._has_events or after_s >= self._timing.healthy_s:
            self._cuts = 0
            return None
        self._cuts += 1
        return cut_off(self._client.url, self._resource.name, reason) if self._cuts > 1 else None

    def _expire(self, reason: str = "it expired") -> None:
        self._log_end(f"{reason}; listing again")
        self._position.watch_expired()

    def _log_end(self, reason: str) -> None:
        if self._end_log_limit.take(self._clock()):
            extra = {"resource": self._resource.name, "server": self._client.url, "cause": reason}
            _log.info("watch of %(resource)s ended: %(cause)s", extra=extra)

    def _rejected(self, verb: str, response: Response) -> RequestFailure:
        self.is_forbidden = response.code == 403
        return rejected(
            self._client.url,
            verb,
            self._resource.name,
            response,
            credentials=self._client.credentials.description,
        )

    def _invalid(self, problem: str) -> RequestFailure:
        return invalid(self._client.url, self._resource.name, problem)
