"""A simulated kube-apiserver: lists, pages, watches, bookmarks, writes, and all their failures.

    etcd's log ──a while later──▶ watch cache ──▶ lists from memory, watches
    etcd's objects ──────────────────────────────▶ lists of the newest state, in pages

Rule 1: it answers like kube-apiserver, as the contract tests check, and its faults are those of
networks, proxies and restarts.
Rule 2: while it is silent, requests and responses wait, and none is lost.
Rule 3: all pages of a list show the same state.

Source: Kubernetes API concepts; apiserver/pkg/storage/cacher.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from random import Random
from typing import Any

from userspace_proxy_testing.fakes.api_objects import (
    FakeObjects,
    Object,
    ObjectFilter,
    WatchEvent,
)

from ..timeline import Timeline
from .api_etcd import Etcd
from .api_exchange import Exchange
from .api_faults import Cut, OldEvent
from .api_requests import Refusal, Target, filter_of, status, target_of
from .api_writes import Answer, write

KIND_OF = {
    "services": "Service",
    "endpointslices": "EndpointSlice",
    "nodes": "Node",
    "pods": "Pod",
    "leases": "Lease",
    "daemonsets": "DaemonSet",
}
# The time for which a server waits until its watch cache reaches a requested revision.
_FRESH_S = 3.0
_TOO_LARGE = "Too large resource version: {}, current: {}"
_TOO_OLD = "The provided continue parameter is too old to display a consistent list result."


@dataclass(eq=False, slots=True)
class Watch:
    """An open watch."""

    exchange: Exchange
    wanted: ObjectFilter
    asked: int
    since: int
    has_bookmarks: bool


class ApiServer:
    """One server of a cluster.

    Args:
        lag_s: The longest delay from a write to etcd until the watch cache has it.
    """

    def __init__(self, etcd: Etcd, timeline: Timeline, rng: Random, *, lag_s: float = 0.0) -> None:
        self.etcd = etcd
        self.timeline = timeline
        self.rng = rng
        self.lag_s = lag_s
        self.page_max = 0
        """The maximum number of objects of a page, regardless of the request; 0 for no limit."""
        self.has_watch_cache = True
        """Whether lists from memory have a single page."""
        self.waits_for_future = True
        """Whether a watch from a future revision waits silently until it exists, as in
        kube-apiserver 1.36; otherwise it fails with 504."""
        self.tells_from_now = False
        """Whether such a watch gets new writes of lower revisions, as from a server or a proxy that
        doesn't compare versions."""
        self.expires_by_status = False
        """Whether an expired watch fails with 410; otherwise it sends an ERROR event."""
        self.bookmark_s = 60.0
        self.slow_s = 0.0
        """The longest duration of an answer."""
        self.piece_max = 0
        """The maximum number of bytes that arrive together; 0 for no limit."""
        self.repeats = False
        """Whether the server occasionally sends a line of a watch twice."""
        self.has_nulls = False
        """Whether an empty list is null, as Go encodes it."""
        self.is_up = True
        self.queued: dict[Exchange, None] = {}
        """Requests that wait while the server is silent."""
        self.silent_until = 0.0
        self.watches: dict[Watch, None] = {}
        self.requests: list[tuple[float, str, str, Mapping[str, str]]] = []
        self.refusals: list[Refusal] = []
        self.cuts: list[Cut] = []
        self.wrong_lists: dict[str, bytes] = {}
        self.more: Callable[[Exchange, Target], Answer | None] = lambda _exchange, _target: None
        """Answers requests for objects that aren't in etcd's log; None for other requests."""
        self.old_events: dict[str, OldEvent] = {}
        """Events with which the next watch of a kind begins, although they are older."""
        self._exchanges: dict[Exchange, None] = {}
        self._ending: dict[Exchange, None] = {}
        """Exchanges whose end may be in flight."""
        self._applied_at = 0.0
        self._epoch = 0
        self._load(len(etcd.log))
        etcd.written.append(self._follow)
        etcd.restored.append(self._restore)
        etcd.compactions.append(self._compact)

    @property
    def revision(self) -> int:
        """The revision of the watch cache."""
        return self.objects.revision

    def cut(self) -> None:
        """Reset all connections."""
        for exchange in list(self._exchanges):
            self.hang_up(exchange)
            exchange.reset("Connection reset by peer")

    def end_watches(self) -> None:
        """End all watches, as their timeout does."""
        for watch in list(self.watches):
            self._end_watch(watch)

    def stall(self) -> None:
        """Stop the traffic on the current connections, without an error."""
        for exchange in self._exchanges:
            exchange.is_stalled = True

    def go_silent(self, seconds: float) -> None:
        """Stop answering, like a suspended process."""
        self.silent_until = max(self.silent_until, self.timeline.now + seconds)

    def refuse(
        self,
        code: int,
        seconds: float,
        *,
        resource: str = "",
        retry_after_s: int = 0,
        message: str = "",
    ) -> None:
        """Refuse matching requests for a while."""
        until = self.timeline.now + seconds
        self.refusals.append(Refusal(until, code, resource, retry_after_s, message))

    def cut_next(self, cut: Cut) -> None:
        """Truncate one of the next responses."""
        self.cuts.append(cut)

    def send_to_watches(self, resource: str, line: bytes) -> None:
        """Send a line, valid or not, to all watches of a kind."""
        for watch in [each for each in self.watches if each.wanted.resource == resource]:
            watch.exchange.send(line)

    def answer_lists(self, resource: str, body: bytes) -> None:
        """Answer the next list request for a kind with this body instead."""
        self.wrong_lists[resource] = body

    def stop(self) -> None:
        """Stop the server, and reset all connections."""
        self.cut()
        for exchange in [*self.queued, *self._ending]:
            exchange.reset("Connection reset by peer")
        self.queued.clear()
        self._ending.clear()
        self.is_up = False
        self.silent_until = 0.0

    def start(self, *, behind: int = 0, behind_s: float = 0.0) -> None:
        """Start the server, without history in its watch cache.

        Args:
            behind: The number of newest writes that are missing for ``behind_s`` seconds.
        """
        self._load(max(0, len(self.etcd.log) - behind))
        self._applied_at = self.timeline.now + behind_s
        for _ in self.etcd.log[self._cursor :]:
            self.timeline.at(self._applied_at, self._apply, self._epoch)
        self.is_up = True

    def _load(self, count: int) -> None:
        """Load the objects as they were after ``count`` writes, without history."""
        self._epoch += 1
        self.objects = FakeObjects()
        for each in self.etcd.log[:count]:
            each.carry_out(self.objects)
        self._cursor = count
        self.window = self.objects.revision
        """The oldest revision from which watches can start: earlier revisions have expired."""

    def _follow(self, _event: WatchEvent | None) -> None:
        if not self.is_up:
            # The server reads all objects when it starts.
            return
        now = self.timeline.now
        self._applied_at = max(self._applied_at, now + self.lag_s * self.rng.random())
        if self._applied_at > now:
            self.timeline.at(self._applied_at, self._apply, self._epoch)
        else:
            self._apply(self._epoch)

    def _apply(self, epoch: int) -> None:
        is_due = self.is_up and epoch == self._epoch
        if not is_due or self._cursor >= len(self.etcd.log):
            return
        event = self.etcd.log[self._cursor].carry_out(self.objects)
        self._cursor += 1
        if event is not None:
            for watch in list(self.watches):
                self._send_event(watch, event)

    def _restore(self) -> None:
        was_up = self.is_up
        self.stop()
        if was_up:
            self.start()

    def _compact(self) -> None:
        self.window = self.revision

    def handle(self, exchange: Exchange) -> None:
        """Handle a request that has arrived."""
        self._exchanges[exchange] = None
        self.requests.append((self.timeline.now, exchange.method, exchange.path, exchange.query))
        delay_s = self.slow_s * self.rng.random()
        target = target_of(exchange.path)
        self._cut(exchange, target)
        if self.rng.random() < 0.5:
            # The server reads the state now, so that the response is outdated when it arrives.
            exchange.hold(delay_s)
            self._answer(exchange, target)
        else:
            self.timeline.after(delay_s, self._answer, exchange, target)

    def _cut(self, exchange: Exchange, target: Target) -> None:
        for cut in [each for each in self.cuts if each.resource in ("", target.resource)]:
            cut.skip -= 1
            if cut.skip >= 0:
                continue
            self.cuts.remove(cut)
            if cut.compacts:
                if cut.meanwhile is not None:
                    cut.meanwhile()
                self.etcd.touch()
                self.etcd.forget_history()
            else:
                exchange.cut_after, exchange.ends_cleanly = cut.after_bytes, cut.is_clean
            return

    def hang_up(self, exchange: Exchange) -> None:
        """Remove an exchange that has ended, or whose client has closed it."""
        self._exchanges.pop(exchange, None)
        self._ending.pop(exchange, None)
        for watch in [each for each in self.watches if each.exchange is exchange]:
            del self.watches[watch]

    def _answer(self, exchange: Exchange, target: Target) -> None:
        if exchange not in self._exchanges:
            return
        refusal = self._refusal_of(exchange, target)
        query = exchange.query
        if refusal is not None:
            if exchange.method != "GET" and refusal.code >= 500 and self.rng.random() < 0.3:
                # The write succeeds, but the client gets an error.
                self._write(exchange, target)
            text = refusal.text
            self._respond_bytes(exchange, refusal.code, text, refusal.retry_after_s)
        elif exchange.method != "GET":
            self._respond(exchange, *self._write(exchange, target))
        elif (answer := self.more(exchange, target)) is not None:
            self._respond(exchange, *answer)
        elif target.name:
            self._get(exchange, target)
        elif query.get("watch") in ("1", "true"):
            self._watch(exchange, filter_of(target, query))
        elif target.resource not in KIND_OF:
            self._respond(exchange, 200, {"kind": "List", "metadata": {}, "items": []})
        else:
            self._list(exchange, filter_of(target, query))

    def _write(self, exchange: Exchange, target: Target) -> Answer:
        answer = self.more(exchange, target)
        if answer is not None:
            return answer
        return write(self.etcd, exchange.method, target, exchange.body or {})

    def _refusal_of(self, exchange: Exchange, target: Target) -> Refusal | None:
        now = self.timeline.now
        self.refusals = [each for each in self.refusals if each.until > now]
        for each in self.refusals:
            if each.resource in ("", target.resource):
                return each
        return None

    def _get(self, exchange: Exchange, target: Target) -> None:
        item = self.etcd.objects.get(target.resource, target.name, target.namespace)
        if item is None:
            self._respond(exchange, *status(404, "NotFound", f'"{target.name}" not found'))
        else:
            self._respond(exchange, 200, item)

    def _list(self, exchange: Exchange, wanted: ObjectFilter) -> None:
        query = exchange.query
        limit = int(query.get("limit", 0))
        limit = min(limit, self.page_max) if limit and self.page_max else limit
        if token := query.get("continue"):
            revision, items = self.etcd.pages.get(token, (-1, []))
            if revision < self.etcd.compacted:
                self._respond(exchange, *status(410, "Expired", _TOO_OLD))
                return
            self._send_page(exchange, wanted, revision, items, limit)
            return
        version = query.get("resourceVersion") or ""
        if version not in ("", "0"):
            self._list_from(exchange, wanted, int(version), self.timeline.now + _FRESH_S)
            return
        source = self.objects if version else self.etcd.objects
        limit = 0 if version and self.has_watch_cache else limit
        self._send_page(exchange, wanted, source.revision, source.list(wanted, 0).items, limit)

    def _list_from(
        self, exchange: Exchange, wanted: ObjectFilter, version: int, until: float
    ) -> None:
        """Send a list once the watch cache has reached a revision; fail after ``until``."""
        if exchange not in self._exchanges:
            return
        if self.revision < version:
            if self.timeline.now < until:
                self.timeline.after(0.1, self._list_from, exchange, wanted, version, until)
                return
            text = _TOO_LARGE.format(version, self.revision)
            self._respond(exchange, *status(504, "Timeout", text), retry_after_s=1)
            return
        limit = 0 if self.has_watch_cache else int(exchange.query.get("limit", 0))
        items = self.objects.list(wanted, 0).items
        self._send_page(exchange, wanted, self.revision, items, limit)

    def _send_page(
        self,
        exchange: Exchange,
        wanted: ObjectFilter,
        revision: int,
        items: list[Object],
        limit: int,
    ) -> None:
        # Neither a query for lost history nor a list of all Nodes gets the wrong answer.
        is_one = exchange.query.get("limit") != "1" and (wanted.resource != "nodes" or wanted.name)
        if is_one and (wrong := self.wrong_lists.pop(wanted.resource, None)) is not None:
            self._respond_bytes(exchange, 200, wrong, 0.0)
            return
        rest = items[limit:] if limit else []
        metadata: dict[str, Any] = {"resourceVersion": str(revision)}
        if rest:
            token = f"{wanted.resource}-{len(self.etcd.pages)}-{len(rest)}-more-at-{revision}"
            self.etcd.pages[token] = (revision, rest)
            metadata |= {"continue": token, "remainingItemCount": len(rest)}
        # Like the real server, it gives the kind once per list, not in each item.
        shown = [
            {key: value for key, value in item.items() if key not in ("kind", "apiVersion")}
            for item in items[: limit or len(items)]
        ]
        body: dict[str, Any] = {"kind": f"{KIND_OF[wanted.resource]}List", "metadata": metadata}
        body["items"] = None if not shown and self.has_nulls else shown
        self._respond(exchange, 200, body)

    def _watch(self, exchange: Exchange, wanted: ObjectFilter) -> None:
        query = exchange.query
        since = int(query.get("resourceVersion") or 0)
        if since > self.revision and not self.waits_for_future:
            text = _TOO_LARGE.format(since, self.revision)
            self._respond(exchange, *status(504, "Timeout", text), retry_after_s=1)
            return
        is_old = bool(since) and since < self.window
        expired = f"too old resource version: {since} ({self.window})" if is_old else ""
        events = () if is_old else self.objects.since(since, wanted)
        if expired and self.expires_by_status:
            self._respond(exchange, *status(410, "Expired", expired))
            return
        exchange.begin(200)
        if expired:
            error = status(410, "Expired", expired)[1]
            exchange.send(_line({"type": "ERROR", "object": error}))
            self._finish(exchange)
            return
        watch = Watch(exchange, wanted, since, since, "allowWatchBookmarks" in query)
        self.watches[watch] = None
        if (old := self.old_events.pop(wanted.resource, None)) is not None and since > old.back:
            exchange.send(_line(old.as_before(since)))
        for event in events:
            exchange.send(event.line)
        watch.since = self.revision if self.tells_from_now else max(since, self.revision)
        timeout_s = float(query.get("timeoutSeconds", 1800))
        self.timeline.after(timeout_s, self._end_watch, watch)
        if watch.has_bookmarks and self.bookmark_s:
            # The last bookmark is sent shortly before the watch times out.
            self.timeline.after(timeout_s - 2.0, self._send_bookmark, watch)
            self._next_bookmark(watch)

    def _send_event(self, watch: Watch, event: WatchEvent) -> None:
        if event.revision <= watch.since or not watch.wanted.matches(event.resource, event.object):
            return
        watch.exchange.send(event.line)
        watch.since = max(watch.since, event.revision)
        if self.repeats and self.rng.random() < 0.2:
            watch.exchange.send(event.line)

    def _next_bookmark(self, watch: Watch) -> None:
        delay_s = self.bookmark_s * (0.9 + 0.2 * self.rng.random())
        self.timeline.after(delay_s, self._send_next_bookmark, watch)

    def _send_next_bookmark(self, watch: Watch) -> None:
        if watch in self.watches:
            self._send_bookmark(watch)
            self._next_bookmark(watch)

    def _send_bookmark(self, watch: Watch) -> None:
        # Like the real server, it sends no bookmark for the requested revision itself.
        if watch in self.watches and self.revision > watch.asked:
            kind = KIND_OF[watch.wanted.resource]
            metadata = {"resourceVersion": str(self.revision), "creationTimestamp": None}
            watch.exchange.send(
                _line({"type": "BOOKMARK", "object": {"kind": kind, "metadata": metadata}})
            )

    def _end_watch(self, watch: Watch) -> None:
        if watch in self.watches and self.silent_until > self.timeline.now:
            self.timeline.at(self.silent_until, self._end_watch, watch)
        elif watch in self.watches:
            self._finish(watch.exchange)

    def pieces(self, size: int) -> Iterator[int]:
        """Split ``size`` bytes into pieces at random; yield the offset of each piece."""
        begin, most = 0, self.piece_max
        while begin < size:
            end = begin + self.rng.randint(1, most) if most else size
            yield begin
            begin = end

    def _respond(
        self, exchange: Exchange, code: int, body: Mapping[str, Any], retry_after_s: float = 0.0
    ) -> None:
        self._respond_bytes(exchange, code, json.dumps(body).encode(), retry_after_s)

    def _respond_bytes(
        self, exchange: Exchange, code: int, body: bytes, retry_after_s: float
    ) -> None:
        exchange.begin(code, retry_after_s)
        exchange.send(body)
        self._finish(exchange)

    def _finish(self, exchange: Exchange) -> None:
        exchange.end()
        self.hang_up(exchange)
        self._ending[exchange] = None


def _line(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value).encode() + b"\n"
