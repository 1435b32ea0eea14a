"""The requests of one kind: that each is the one that must follow, and comes when it must.

Rule 1: a request begins where the one before has ended (``next_request``).
Rule 2: a question whether history went back is asked while a watch is open that may follow a
restore.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..api_exchange import Exchange
from .copies import Copy
from .next_request import HEALTHY_S, SOON_S, UNKNOWN, NextRequest
from .one_request import Question, Request
from .outage import Outage
from .retries import CAP_S, End, Retries

if TYPE_CHECKING:
    from .requests import RequestChecks

# Servers aren't stopped, restored and started again sooner. And turns of an event loop.
_RESTORE_S = 2.1


class Follower:
    """The requests of one reflector."""

    def __init__(self, kind: str, checks: RequestChecks, copy: Copy) -> None:
        self.kind = kind
        self.checks = checks
        self.copy = copy
        """What is made of all that arrives."""
        self.outage = Outage()
        self.next = NextRequest(has_shares=checks.has_shares)
        self.restarts = 0
        """Lists that followed a watch."""
        self.must_begin_by: float | None = None
        """Until then a wait must end, because the server is there again."""
        self.request: Request | None = None
        """The last one."""
        self._listed_version = ""
        self.has_listed = False
        """A list was complete."""
        self.list_began = self.lists_since = 0.0
        """When the list did, and the one that it is instead of because it had expired."""
        self.is_mixed = False
        """A list is under way, or broke off: what is stored is of two states."""
        self.must_ask_at: float | None = None
        """Since when it is to be asked whether history went back."""
        self._had_problem = False
        self.was_forbidden = False
        self.retries = Retries(kind, checks)

    @property
    def newest(self) -> int:
        """The newest version that was seen; 0: there is none."""
        return 0 if self.request is None else self.request.newest

    @property
    def question(self) -> Question | None:
        """The question of the last watch."""
        return None if self.request is None else self.request.question

    @property
    def open_watch(self) -> Exchange | None:
        """The watch, if one is open."""
        request = self.request
        if request is None or not request.is_watch:
            return None
        return request.exchange if request.began_at and not request.is_over else None

    @property
    def asks(self) -> bool:
        """Whether a question about history is still to be asked, or to be answered."""
        question = self.question
        return self.must_ask_at is not None or not (question is None or question.is_answered)

    @property
    def is_unsure(self) -> bool:
        """Whether the client may have given the last request up by now."""
        exchanges = [each.exchange for each in (self.request, self.question) if each is not None]
        return any(each.is_closed and not (each.is_ended or each.error) for each in exchanges)

    @property
    def is_quiet(self) -> bool:
        """Whether nothing is on its way to it, and no list under way."""
        request = self.request
        return request is not None and request.is_watch and not request.exchange.is_on_its_way

    # -- what arrives ------------------------------------------------------------------------------

    def on_head(self, request: Request) -> None:
        """Note that the head of the last request's response has arrived."""
        code = request.exchange.code
        request.began_at = now = self.checks.now()
        self.was_forbidden = self.was_forbidden or code == 403
        if code == 200 and request.is_watch:
            if now - self.next.known_at > _RESTORE_S:
                self.must_ask_at = now
            else:
                self._note_success()

    def _note_success(self) -> None:
        if self.outage.succeed(self.checks.now()):
            self.checks.wake_others(self)
        if self._had_problem:
            self._had_problem = False
            self.checks.recovered_at = self.checks.now()

    def on_arrival(self, request: Request, piece: bytes) -> None:
        """Note a piece of the last request's response."""
        request.data += piece
        if request.exchange.code != 200:
            return
        if not request.is_watch:
            self.is_mixed = True
            return
        was_wrong = request.follows_wrong
        for event in request.take_lines(piece):
            self.copy.add_line(event)
        if request.follows_wrong and not was_wrong:
            # The client reads no further.
            self.on_end(request)

    def on_end(self, request: Request) -> None:
        """Note that the last request's response has ended, or has broken off."""
        if request.is_over and request.follows_wrong:
            if request.exchange.error:
                # Perhaps before that was read.
                self.outage.doubt_failure()
            return
        request.is_over, request.over_at = True, self.checks.now()
        # A question comes before the end is read; of a watch that broke off, perhaps not even that
        # it began was read.
        asks_first = self.must_ask_at is not None and not request.exchange.error
        if not asks_first and (request.question is None or request.question.is_answered):
            self._note_end(request)

    # -- whether it failed -------------------------------------------------------------------------

    def _note_end(self, request: Request) -> None:
        """Note how a request ended, as far as the client has read that."""
        exchange = request.exchange
        if not request.is_watch:
            is_long = self.outage.note_list(self.lists_since, self.checks.now())
            self._had_problem = self._had_problem or is_long
            lasted_s = request.over_at - self.lists_since
            request.is_late = not exchange.error and lasted_s > self.checks.list_s - SOON_S
        if exchange.error and (not request.is_watch or exchange.code != 200):
            self.outage.fail(self.checks.now())
        elif exchange.code != 200:
            self._note_refused(request)
        elif request.is_watch:
            self._note_watch(request)
        elif request.read_page():
            self._note_page(request)
        else:
            self.outage.fail(self.checks.now())
        if request.is_late:
            self.outage.doubt()

    def _note_refused(self, request: Request) -> None:
        exchange = request.exchange
        if not request.is_gone:
            retry_s = exchange.retry_after_s
            self.outage.fail(self.checks.now(), code=exchange.code, retry_s=retry_s)
        elif request.is_watch:
            self.outage.end()
        elif self.next.after_expiry:
            # It may be given up.
            self.outage.doubt()

    def _note_watch(self, request: Request) -> None:
        lasted_s = request.over_at - request.began_at
        # At once, the client may not have seen that it began.
        may_fail = lasted_s < SOON_S or (self.next.cuts and lasted_s < HEALTHY_S + SOON_S)
        if request.follows_wrong and not request.exchange.error:
            self.outage.fail(request.over_at)
        elif request.exchange.error and (may_fail or request.is_expired or request.went_back):
            self.outage.doubt()
        else:
            self.outage.end()

    def _note_page(self, request: Request) -> None:
        assert request.page is not None, "it is complete"
        if not request.is_paging:
            self._listed_version = request.page["metadata"]["resourceVersion"]
        if request.is_whole_list:
            self.copy.end_list(self._listed_version)
            if not request.is_late:
                self._note_success()

    def _note_left(self, request: Request, *, is_watch: bool) -> None:
        """Note that the client gave a request up, some time ago.

        Args:
            is_watch: A watch follows, so a list that was late wasn't given up.
        """
        now, question = self.checks.now(), request.question
        if request.is_late and is_watch:
            self._note_success()
        elif question is not None and not question.is_answered:
            self.outage.give_up(question.exchange.began, now)
        elif request.is_watch and request.exchange.code == 200:
            # Silence of a watch, which takes long.
            self.outage.end()
        else:
            self.outage.give_up(request.exchange.began, now)

    # -- the question about history ----------------------------------------------------------------

    def ask(self, exchange: Exchange) -> None:
        """Check a question about history, while a watch is open."""
        request = self.request
        assert request is not None, "a watch is open"
        # Nothing of the watch was read yet.
        self._check(
            "position of a watch",
            exchange.query["resourceVersion"] == request.version,
            f"a question about {dict(exchange.query)}, not {request.version}",
        )
        if self.must_ask_at is None:
            self.outage.doubt()
        request.question, self.must_ask_at = Question(exchange), None

    def on_answer(self, request: Request, question: Question) -> None:
        """Note that the answer to a question is complete, or broke off."""
        now, exchange = self.checks.now(), question.exchange
        if question.is_good:
            self._note_success()
            if request.is_over:
                # The client reads the watch's end only now.
                request.over_at = now
                self._note_end(request)
            return
        # The watch is closed, too.
        request.is_over, request.over_at = True, now
        if exchange.error:
            self.outage.fail(now)
        elif question.has_gone_back:
            self.outage.end()
        else:
            self.outage.fail(now, code=exchange.code, retry_s=exchange.retry_after_s)

    def check_question(self) -> None:
        """Judge that a question was asked if history may have gone back."""
        watch = self.open_watch
        if watch is None or watch.is_stalled:
            return
        asked_s = 0.0 if self.must_ask_at is None else self.checks.now() - self.must_ask_at
        self.checks.check(
            "asked about history",
            asked_s <= SOON_S,
            lambda: f"{self.kind}: {asked_s:.1f} s, and not whether history went back",
        )

    # -- what is asked next ------------------------------------------------------------------------

    def begin(self, exchange: Exchange) -> None:
        """Check a list, a page or a watch that begins."""
        last = self.request
        request = Request(exchange, last, line_bytes=self.checks.line_bytes)
        self._check_woken()
        if last is not None:
            self._end(last, request)
        if not request.is_paging:
            self.retries.check_rate()
        self._check_reason(request)
        is_same = last is not None and not last.is_watch and not self.next.is_failed
        if not (request.is_paging or is_same):
            # Else it is the same attempt: pages, a list instead of one that had expired, the watch
            # after it.
            self.outage.begin_attempt()
            self.lists_since = self.checks.now()
        if request.is_watch:
            self._begin_watch(last, exchange.query["resourceVersion"])
        else:
            self._begin_list(last, request)
        self.request = request
        self.must_ask_at = None

    def _check_woken(self) -> None:
        if self.must_begin_by is not None:
            late_s = self.checks.now() - self.must_begin_by
            self._check("woken", late_s <= 0, f"{late_s:.3f} s late, though the server is there")
            self.must_begin_by = None

    def _end(self, last: Request, request: Request) -> None:
        """Decide from how the last request ended what must follow."""
        if request.is_paging and last.next_token:
            # The list goes on, so it wasn't given up.
            last.is_late = False
        if last.is_left:
            self._note_left(last, is_watch=request.is_watch)
        self.next.conclude(last)
        if last.is_whole_list:
            self._end_list(last, request)
        has_failed = self.next.is_failed or bool(last.exchange.error)
        self._had_problem = self._had_problem or has_failed
        self._check_wait(last)

    def _end_list(self, last: Request, request: Request) -> None:
        last.begin_at(self._listed_version)
        if not request.is_watch:
            request.begin_at(self._listed_version)
        if request.is_watch or not last.is_late:
            # A watch follows, so it was taken.
            self.next.after_expiry, self.has_listed = "", True
            self.checks.listed(self)

    def _check_reason(self, request: Request) -> None:
        what = "watch" if request.is_watch else "page" if request.is_paging else "list"
        wants = self.next.wants
        if wants != "either":
            self._check("reason of a request", what == wants, f"a {what}, not a {wants}")

    def _begin_watch(self, last: Request | None, version: str) -> None:
        if last is not None:
            self._check_position(last, version)
            if version in last.versions:
                # The lines until then were read.
                self.next.cuts = 0
        self.copy.begin_watch(version)
        self.is_mixed, self.has_listed = False, True
        if last is not None and self.checks.now() - last.over_at > SOON_S:
            # A wait.
            self.next.known_at = UNKNOWN

    def _begin_list(self, last: Request | None, request: Request) -> None:
        query = request.exchange.query
        if request.is_paging:
            token = query["continue"]
            self._check("continue token", token == self.next.token, f"not {self.next.token}")
        else:
            self._check_list(query)
            self.list_began = self.checks.now()
            self.restarts += last is not None and last.is_watch
        self.next.known_at = self.checks.now()
        self.copy.begin_list(request.data, is_first=not request.is_paging)

    def _check_position(self, last: Request, version: str) -> None:
        known = [last.version, *last.versions]
        right = known[-1:] if self.next.is_sure else known
        self._check("position of a watch", version in right, f"from {version}, not {right}")

    def _check_list(self, query: Any) -> None:
        if not self.has_listed:
            return
        version, after_expiry = query.get("resourceVersion"), self.next.after_expiry
        self._check(
            "no list of any state", version != "0", "a list of any state, after one was complete"
        )
        if after_expiry:
            is_right = version is None and (after_expiry != "whole" or "limit" not in query)
            what = f"{dict(query)}, and {after_expiry} was needed"
            self._check("list after expiry", is_right, what)

    def _check_wait(self, last: Request) -> None:
        # A line that isn't the API's, and a reset: which of them it has read isn't known.
        is_open = bool(last.follows_wrong and last.exchange.error)
        if self.next.wants == "page" or last.is_left or is_open:
            self.retries.note_unknown(has_waited=last.is_left or is_open)
            return
        refused = last.exchange if last.question is None else last.question.exchange
        asked_s = refused.retry_after_s if self.next.is_refused else 0.0
        if refused.code in (502, 503):
            # So answers a proxy on the way, which may not ask for more.
            asked_s = min(asked_s, CAP_S)
        self.retries.check_wait(
            End(
                last.over_at,
                last.lasted_s,
                is_watch=last.is_watch,
                is_healthy=self._was_healthy(last),
                has_told=self._has_told(last),
                is_failed=self.next.is_failed,
                retry_after_s=asked_s,
            )
        )

    def _has_told(self, last: Request) -> bool:
        has_events = last.is_watch and bool(last.events)
        return has_events and self.next.is_sure and not self.next.is_failed

    def _was_healthy(self, last: Request) -> bool:
        if last.question is not None and not last.question.is_good:
            return False
        is_long = last.lasted_s >= HEALTHY_S + SOON_S
        return last.is_watch and last.exchange.code == 200 and is_long

    def _check(self, oracle: str, is_right: bool, what: str) -> None:
        self.checks.check(oracle, is_right, lambda: f"{self.kind}: {what}")
