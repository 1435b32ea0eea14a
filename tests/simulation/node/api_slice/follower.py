"""The requests of one kind: what has arrived, and what must be asked for next.

Rule 1: what the client has got is read here on its own, from the bytes that arrived.
Rule 2: a list follows a list that failed, an expired watch, or history that went back; all else is
a watch, from the last version that was seen.
Rule 3: a question whether history went back is asked while a watch is open that may follow a
restore.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from ..api_exchange import Exchange
from .copies import Copy
from .outage import Outage
from .retries import End, Retries

if TYPE_CHECKING:
    from .requests import RequestChecks

_HEALTHY_S = 5.0
# A second, and turns of an event loop and the network.
_ON_TIME_S = 1.5
# Servers aren't stopped, restored and started again sooner. And turns of an event loop.
_RESTORE_S = 2.1
# Turns of an event loop, and the network.
_SOON_S = 0.3

_UNKNOWN = float("-inf")


class Follower:
    """The requests of one reflector."""

    def __init__(self, kind: str, checks: RequestChecks, copy: Copy) -> None:
        self.kind = kind
        self.checks = checks
        self.copy = copy
        """What is made of all that arrives."""
        self.outage = Outage()
        self.restarts = 0
        """Lists that followed a watch."""
        self.must_begin_by: float | None = None
        """Until then a wait must end, because the server is there again."""
        self.last: Exchange | None = None
        self.is_watch = False
        self.began_at = 0.0
        """When the head of the last response came."""
        self.over_at = 0.0
        """When it ended, or broke off."""
        self.is_over = False
        self.data = bytearray()
        self.version = ""
        """From where the last watch began."""
        self.versions: list[str] = []
        """Those of its lines, in order."""
        self.events = 0
        self.is_expired = self.went_back = False
        self.is_late = False
        """A list was complete at its deadline, so it may have been given up."""
        self.page: dict[str, Any] | None = None
        """The last page, if it is complete."""
        self.next_token: str | None = None
        """Of the list that is under way."""
        self.listed_version = ""
        self.has_listed = False
        """A list was complete."""
        self.list_began = self.lists_since = 0.0
        """When the list did, and the one that it is instead of because it had expired."""
        self.is_mixed = False
        """A list is under way, or broke off: what is stored is of two states."""
        self.wants: str = "list"
        """``list``, ``page``, ``watch``, or ``either``."""
        self.is_paging = False
        self.after_expiry = ""
        """What the next list has to be: ``newest`` or ``whole``."""
        self.known_at = _UNKNOWN
        """When a server had the last state for certain; unknown after a watch that broke off, or
        that ended at another time than was asked for, and after a wait."""
        self.must_ask_at: float | None = None
        """Since when it is to be asked whether history went back."""
        self.question: Exchange | None = None
        """That, of the last watch."""
        self.answer = bytearray()
        """To it."""
        self.cuts = 0
        """How many watches in a row broke off soon, at most."""
        self.had_problem = self.was_forbidden = False
        self.is_failed = self.is_refused = False
        """The last request, as far as the client saw."""
        self.is_sure = False
        """The last line that arrived of a watch was read."""
        self.retries = Retries(kind, checks)

    @property
    def position(self) -> str:
        """The last version that was seen."""
        return self.versions[-1] if self.versions else self.version

    @property
    def open_watch(self) -> Exchange | None:
        """The watch, if one is open."""
        is_open = self.is_watch and self.began_at and not self.is_over
        return self.last if is_open else None

    @property
    def asks(self) -> bool:
        """Whether a question about history is still to be asked, or to be answered."""
        return self.must_ask_at is not None or not (self.question is None or self._is_answered)

    @property
    def is_unsure(self) -> bool:
        """Whether the client may have given the last request up by now."""
        exchanges = [each for each in (self.last, self.question) if each is not None]
        return any(each.is_closed and not (each.is_ended or each.error) for each in exchanges)

    @property
    def is_quiet(self) -> bool:
        """Whether nothing is on its way to it, and no list under way."""
        return self.is_watch and self.last is not None and not self.last.is_on_its_way

    # -- what arrives ------------------------------------------------------------------------------

    def on_head(self, exchange: Exchange) -> None:
        self.began_at = now = self.checks.now()
        self.was_forbidden = self.was_forbidden or exchange.code == 403
        if exchange.code == 200 and self.is_watch:
            if now - self.known_at > _RESTORE_S:
                self.must_ask_at = now
            else:
                self._note_success()

    def _note_success(self) -> None:
        if self.outage.succeed(self.checks.now()):
            self.checks.wake_others(self)
        if self.had_problem:
            self.had_problem = False
            self.checks.recovered_at = self.checks.now()

    def on_arrival(self, exchange: Exchange, piece: bytes) -> None:
        self.data += piece
        if exchange.code != 200:
            return
        if not self.is_watch:
            self.is_mixed = True
            return
        if b"\n" not in piece:
            return
        *lines, rest = self.data.split(b"\n")
        self.data = bytearray(rest)
        for line in lines:
            self._read_line(json.loads(line))

    def _read_line(self, event: dict[str, Any]) -> None:
        if event["type"] == "ERROR":
            self.is_expired = event["object"].get("code") == 410
            return
        self.events += 1
        version = event["object"]["metadata"]["resourceVersion"]
        before = self.versions[-1] if self.versions else self.version
        self.went_back = self.went_back or int(version) < int(before)
        self.versions.append(version)
        self.copy.add_line(event)

    def on_end(self, exchange: Exchange) -> None:
        self.is_over, self.over_at = True, self.checks.now()
        # A question comes before the end is read; of a watch that broke off, perhaps not even that
        # it began was read.
        asks_first = self.must_ask_at is not None and not exchange.error
        if not asks_first and (self.question is None or self._is_answered):
            self._note_end(exchange)

    # -- whether it failed -------------------------------------------------------------------------

    def _note_end(self, exchange: Exchange) -> None:
        """Note how a request ended, as far as the client has read that."""
        now = self.checks.now()
        if exchange.error and (not self.is_watch or exchange.code != 200):
            self.outage.fail(now)
        elif exchange.code != 200:
            self._note_refused(exchange)
        elif self.is_watch:
            self._note_watch(exchange)
        else:
            self._note_page()

    def _note_refused(self, exchange: Exchange) -> None:
        if not _is_gone(exchange, self.data):
            retry_s = exchange.retry_after_s
            self.outage.fail(self.checks.now(), code=exchange.code, retry_s=retry_s)
        elif self.is_watch:
            self.outage.end()
        elif self.after_expiry:
            # It may be given up.
            self.outage.doubt()

    def _note_watch(self, exchange: Exchange) -> None:
        lasted_s = self.over_at - self.began_at
        # At once, the client may not have seen that it began.
        may_fail = lasted_s < _SOON_S or (self.cuts and lasted_s < _HEALTHY_S + _SOON_S)
        if exchange.error and (may_fail or self.is_expired or self.went_back):
            self.outage.doubt()
        else:
            self.outage.end()

    def _note_page(self) -> None:
        try:
            self.page = json.loads(bytes(self.data))
        except ValueError:
            self.outage.fail(self.checks.now())
            return
        assert self.page is not None, "it is a list"
        metadata = self.page["metadata"]
        if not self.is_paging:
            self.listed_version = metadata["resourceVersion"]
        if not metadata.get("continue"):
            self.copy.end_list(self.listed_version)
            self.is_late = self.over_at - self.lists_since > self.checks.list_s - _SOON_S
            if self.is_late:
                self.outage.doubt()
            else:
                self._note_success()

    def _note_left(self, exchange: Exchange, *, is_watch: bool) -> None:
        """Note that the client gave a request up, some time ago.

        Args:
            is_watch: A watch follows, so a list that was late wasn't given up.
        """
        now = self.checks.now()
        if self.is_late and is_watch:
            self._note_success()
        elif self.question is not None and not self._is_answered:
            self.outage.give_up(self.question.began, now)
        elif self.is_watch and exchange.code == 200:
            # Silence of a watch, which takes long.
            self.outage.end()
        else:
            self.outage.give_up(exchange.began, now)

    # -- what is asked next ------------------------------------------------------------------------

    def ask(self, exchange: Exchange) -> None:
        """Check a question about history, while a watch is open."""
        # Nothing of the watch was read yet.
        self.checks.check(
            "position of a watch",
            exchange.query["resourceVersion"] == self.version,
            lambda: f"{self.kind}: a question about {dict(exchange.query)}, not {self.version}",
        )
        if self.must_ask_at is None:
            self.outage.doubt()
        self.question, self.must_ask_at = exchange, None
        self.answer.clear()

    def on_answer(self, exchange: Exchange) -> None:
        """Note that the answer to a question is complete, or broke off."""
        now = self.checks.now()
        if self._is_good(exchange):
            self._note_success()
            if self.is_over and self.last is not None:
                # The client reads the watch's end only now.
                self.over_at = now
                self._note_end(self.last)
            return
        # The watch is closed, too.
        self.is_over, self.over_at = True, now
        if exchange.error:
            self.outage.fail(now)
        elif self._has_gone_back(exchange):
            self.outage.end()
        else:
            self.outage.fail(now, code=exchange.code, retry_s=exchange.retry_after_s)

    @property
    def _is_left(self) -> bool:
        """Whether the client gave the last request up, at a time of its own."""
        is_read = self.is_over and (self.question is None or self._is_answered)
        return not is_read or self.is_late

    @property
    def _is_answered(self) -> bool:
        return self.question is not None and bool(self.question.is_ended or self.question.error)

    def _is_good(self, question: Exchange) -> bool:
        """Return whether a watch goes on after the answer to a question."""
        is_whole = question.is_ended and not question.error
        is_busy = question.code >= 500 or question.code == 429
        return is_whole and not is_busy and not self._has_gone_back(question)

    def _has_gone_back(self, question: Exchange) -> bool:
        return _is_gone(question, self.answer)

    def check_question(self) -> None:
        """Judge that a question was asked if history may have gone back."""
        if self.last is None or not self.is_watch or not self.began_at:
            return
        asked_s = 0.0 if self.must_ask_at is None else self.checks.now() - self.must_ask_at
        if not self.is_over and not self.last.is_stalled:
            self.checks.check(
                "asked about history",
                asked_s <= _SOON_S,
                lambda: f"{self.kind}: {asked_s:.1f} s, and not whether history went back",
            )

    def begin(self, exchange: Exchange) -> None:
        query, now = exchange.query, self.checks.now()
        is_watch, token = "watch" in query, query.get("continue")
        if self.must_begin_by is not None:
            late_s = now - self.must_begin_by
            self._check("woken", late_s <= 0, f"{late_s:.3f} s late, though the server is there")
            self.must_begin_by = None
        if self.last is not None:
            if self._is_left:
                self._note_left(self.last, is_watch=is_watch)
            self._conclude()
            self.had_problem = self.had_problem or self.is_failed or bool(self.last.error)
            self._check_wait()
        if not token:
            self.retries.check_rate()
        what = "watch" if is_watch else "page" if token else "list"
        if self.wants != "either":
            self.checks.check(
                "reason of a request",
                what == self.wants,
                lambda: f"{self.kind}: a {what}, not a {self.wants}",
            )
        if token or (self.last is not None and not self.is_watch and not self.is_failed):
            # The same attempt: pages, a list instead of one that had expired, the watch after it.
            pass
        else:
            self.outage.begin_attempt()
            self.lists_since = now
        if is_watch:
            self._check_position(query["resourceVersion"])
            self._note_read(query["resourceVersion"])
            self.copy.begin_watch(query["resourceVersion"])
            self.is_mixed = False
            if self.last is not None and now - self.over_at > _SOON_S:
                # A wait.
                self.known_at = _UNKNOWN
        elif token:
            self.checks.check(
                "continue token",
                token == self.next_token,
                lambda: f"{self.kind}: {token}, not {self.next_token}",
            )
        else:
            self._check_list(query)
            self.list_began = now
            self.restarts += self.is_watch
        if not is_watch:
            self.known_at = now
            self.copy.begin_list(self.data, is_first=not token)
        self.last, self.is_watch, self.is_paging = exchange, is_watch, bool(token)
        self.question = self.must_ask_at = None
        self.is_over = self.is_expired = self.went_back = self.is_late = False
        self.has_listed = self.has_listed or is_watch
        self.data.clear()
        self.page = None
        if is_watch:
            self.version = query["resourceVersion"]
            self.versions, self.events = [], 0
        self.began_at = 0.0

    def _conclude(self) -> None:
        """Decide from how the last request ended what must follow."""
        assert self.last is not None, "there was a request"
        exchange = self.last
        self.is_failed = self.is_refused = False
        if self._conclude_question():
            return
        self.is_sure = exchange.code == 200 and self.is_over and not exchange.error
        if exchange.code and exchange.code != 200:
            self._conclude_refused(exchange)
        elif self.is_watch:
            self._conclude_watch(exchange)
        else:
            self._conclude_list()

    def _conclude_refused(self, exchange: Exchange) -> None:
        is_gone = _is_gone(exchange, self.data)
        is_whole = self.is_over and not exchange.error
        self.is_refused = not is_gone and is_whole
        self.is_failed = True
        if not is_whole:
            # Whether it could be read is open.
            self.wants, self.after_expiry = "either", ""
            return
        if self.is_watch:
            self.wants = "list" if is_gone else "watch"
            return
        self.wants = "list"
        if is_gone:
            self.after_expiry = "whole" if self.is_paging else "newest"
            self.is_failed = False

    def _conclude_question(self) -> bool:
        """Decide by a question about history, if there was one that ended its watch."""
        question = self.question
        if question is None:
            return False
        if self._is_good(question):
            return False
        self.is_sure, self.known_at, self.after_expiry = False, _UNKNOWN, ""
        self.wants = "watch"
        if question.error or not question.is_ended:
            self.is_failed = True
            self.wants = "either" if question.code not in (0, 200) else "watch"
        elif self._has_gone_back(question):
            self.wants, self.after_expiry = "list", "newest"
        else:
            self.is_failed = self.is_refused = True
        return True

    def _conclude_watch(self, exchange: Exchange) -> None:
        lasted = self.over_at - self.began_at if self.began_at else 0.0
        is_long = lasted >= _HEALTHY_S + _SOON_S
        late_s = abs(lasted - int(exchange.query["timeoutSeconds"]))
        is_known = self.question is None or self.question.code == 200
        is_on_time = self.is_sure and late_s <= _ON_TIME_S
        self.known_at = self.over_at if is_known and is_on_time else _UNKNOWN
        self.cuts = 0 if is_long or self.is_sure else self.cuts + 1
        self.is_failed = not exchange.code
        self.wants = "watch"
        if self.is_expired or self.went_back:
            self.wants = "list"
            self.after_expiry = "newest" if self.went_back and not self.is_expired else ""
            if exchange.error:
                self.wants, self.after_expiry = "either", ""
        elif self.checks.has_shares:
            self.wants = "either"

    def _conclude_list(self) -> None:
        if self.page is None:
            self.is_failed, self.wants = True, "list"
            return
        if self.is_late:
            self.wants, self.versions, self.version = "either", [], self.listed_version
            return
        self.next_token = self.page["metadata"].get("continue")
        self.wants = "page" if self.next_token else "watch"
        self.after_expiry = ""
        if not self.next_token:
            self.has_listed = True
            self.versions, self.version = [], self.listed_version
            self.checks.listed(self)

    def _note_read(self, version: str) -> None:
        """Note which lines of the last watch were read: all until a version."""
        if version in self.versions:
            self.cuts = 0

    def _check_position(self, version: str) -> None:
        known = [self.version, *self.versions]
        right = known[-1:] if self.is_sure else known
        self.checks.check(
            "position of a watch",
            version in right,
            lambda: f"{self.kind}: from {version}, not {right}",
        )

    def _check_list(self, query: Any) -> None:
        if not self.has_listed:
            return
        version = query.get("resourceVersion")
        self.checks.check(
            "no list of any state",
            version != "0",
            lambda: f"{self.kind}: a list of any state, after one was complete",
        )
        if self.after_expiry:
            is_right = version is None and (self.after_expiry != "whole" or "limit" not in query)
            self.checks.check(
                "list after expiry",
                is_right,
                lambda: f"{self.kind}: {dict(query)}, and {self.after_expiry} was needed",
            )

    def _check_wait(self) -> None:
        exchange = self.last
        assert exchange is not None, "there was a request"
        if self.wants == "page" or self._is_left:
            self.retries.note_unknown(has_waited=self._is_left)
            return
        lasted = self.over_at - self.began_at if self.began_at else 0.0
        refused = self.question or exchange
        self.retries.check_wait(
            End(
                self.over_at,
                lasted,
                is_watch=self.is_watch,
                is_healthy=self._was_healthy(exchange, lasted),
                has_told=self.is_watch and self.is_sure and bool(self.events),
                is_failed=self.is_failed,
                retry_after_s=refused.retry_after_s if self.is_refused else 0.0,
            )
        )

    def _was_healthy(self, exchange: Exchange, lasted: float) -> bool:
        if self.question is not None and (self.is_failed or self.after_expiry):
            return False
        return self.is_watch and exchange.code == 200 and lasted >= _HEALTHY_S + _SOON_S

    def _check(self, oracle: str, is_right: bool, what: str) -> None:
        self.checks.check(oracle, is_right, lambda: f"{self.kind}: {what}")


def _is_gone(exchange: Exchange, body: bytearray) -> bool:
    """Return whether a response says that the server lacks a state."""
    try:
        status = json.loads(bytes(body))
    except ValueError:
        # It ended within the body.
        status = {}
    return exchange.code == 410 or "Too large resource version" in status.get("message", "")
