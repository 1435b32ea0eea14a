"""Whether an agent shows a problem of its API server: what its last requests were answered.

    list, watch or question ──refused, or broken off──▶ a problem
           └──────── complete, or a watch that begins ──▶ none ── silence: as it was before

Rule 1: each kind of objects has its own requests, and a problem until one of them succeeds.
Rule 2: what waits for an answer changes nothing, however long the server is silent.
Rule 3: a watch that breaks off is no problem; whether one is that does so at once, or a second one
in a row, isn't decided here.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from .api_client import SimulatedClient
from .api_exchange import Exchange
from .api_requests import target_of

_KINDS = frozenset({"services", "endpointslices", "nodes"})
_GONE, _BUSY = 410, 429
# Turns of an event loop, with calls of the kernel that take long.
_TOLD_S = 0.3


@dataclass(eq=False, slots=True)
class _Kind:
    """What has arrived of one kind of objects."""

    fails: bool = False
    failed: bool = False
    """It did before the last watch began."""
    is_unsure: bool = False
    """A watch broke off at once, or two in a row, or what was to be listed is gone."""
    cuts: int = 0
    watch: Exchange | None = None
    """The last one, until it has ended."""
    began: float = 0.0
    """When its answer did."""
    data: bytearray = field(default_factory=bytearray)
    """Of the last list or watch."""

    def succeed(self) -> None:
        self.fails = self.is_unsure = False

    def end_watch(self, exchange: Exchange, now: float) -> None:
        """Note that a watch that had begun has ended, or has broken off."""
        self.watch = None
        is_cut = bool(exchange.error) and b"\n" not in self.data
        self.cuts = self.cuts + 1 if is_cut else 0
        # At once, the client may not have seen that it began.
        self.is_unsure = self.cuts > 1 or bool(exchange.error and now - self.began < _TOLD_S)

    def answer(self, exchange: Exchange) -> None:
        """Note an answer: a refusal for good doesn't say that the watch is refused, too."""
        self.fails = exchange.code >= 500 or exchange.code == _BUSY


class ApiProblems:
    """What the client of one agent has received."""

    def __init__(self, client: SimulatedClient) -> None:
        self._timeline = client.address.timeline
        self._kinds = {name: _Kind() for name in sorted(_KINDS)}
        self._last: tuple[bool, bool] = (False, False)
        self._changed_at = float("-inf")
        self.asked_at = float("inf")
        """When it began its first request: what the kernel does may hold an agent up before."""
        client.on_begin = self._on_begin
        client.on_head = self._on_head
        client.on_arrival = self._on_arrival
        client.on_end = self._on_end

    def is_shown(self) -> bool | None:
        """Return whether the agent shows a problem; None: what has arrived doesn't decide."""
        fails, is_unsure = self._last
        if self._timeline.now - self._changed_at < _TOLD_S:
            return None
        return None if is_unsure and not fails else fails

    def _note(self) -> None:
        kinds = self._kinds.values()
        now = any(each.fails for each in kinds), any(each.is_unsure for each in kinds)
        if now != self._last:
            self._last, self._changed_at = now, self._timeline.now

    # -- what arrives ------------------------------------------------------------------------------

    def _kind_of(self, exchange: Exchange) -> _Kind | None:
        """Return the kind that a request is for; None: none that is watched."""
        resource = target_of(exchange.path).resource
        is_watched = resource != "nodes" or "fieldSelector" in exchange.query
        return self._kinds.get(resource) if is_watched and exchange.method == "GET" else None

    def _on_begin(self, exchange: Exchange) -> None:
        self.asked_at = min(self.asked_at, self._timeline.now)
        kind = self._kind_of(exchange)
        if kind is None:
            return
        if _is_question(exchange):
            # The watch counts once that is answered.
            kind.fails = kind.failed
        else:
            kind.watch = None
            kind.data.clear()
        self._note()

    def _on_head(self, exchange: Exchange) -> None:
        kind = self._kind_of(exchange)
        if kind is None or exchange.code != 200 or not _is_watch(exchange):
            return
        kind.watch, kind.began, kind.failed = exchange, self._timeline.now, kind.fails
        kind.succeed()
        self._note()

    def _on_arrival(self, exchange: Exchange, piece: bytes) -> None:
        kind = self._kind_of(exchange)
        if kind is not None and not _is_question(exchange):
            kind.data += piece

    def _on_end(self, exchange: Exchange) -> None:
        kind = self._kind_of(exchange)
        if kind is None:
            return
        if exchange is kind.watch:
            kind.end_watch(exchange, self._timeline.now)
        elif exchange.error:
            kind.fails = True
        elif exchange.code == _GONE:
            # A question: history went back. A watch: a list follows. A list: another one may.
            kind.is_unsure = kind.is_unsure or not (_is_question(exchange) or _is_watch(exchange))
        elif _is_question(exchange):
            kind.answer(exchange)
        elif exchange.code != 200:
            kind.fails = True
        elif not json.loads(kind.data)["metadata"].get("continue"):
            kind.succeed()
        self._note()


def _is_question(exchange: Exchange) -> bool:
    """Return whether a request is only one whether history went back."""
    return exchange.query.get("limit") == "1"


def _is_watch(exchange: Exchange) -> bool:
    return "watch" in exchange.query
