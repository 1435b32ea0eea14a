"""What must be asked for next, by how a request has ended.

Rule 1: a list follows a list that failed, an expired watch, or history that went back; all else is
a watch, from the last version that was seen.
"""

from __future__ import annotations

from .one_request import Request

HEALTHY_S = 5.0
# Turns of an event loop, and the network.
SOON_S = 0.3
# A second, and turns of an event loop and the network.
_ON_TIME_S = 1.5

UNKNOWN = float("-inf")


class NextRequest:
    """That of one reflector.

    Args:
        has_shares: What was left out may have room, which another list finds.
    """

    def __init__(self, *, has_shares: bool) -> None:
        self._has_shares = has_shares
        self.wants = "list"
        """``list``, ``page``, ``watch``, or ``either``."""
        self.token: str | None = None
        """Of the list that is under way."""
        self.after_expiry = ""
        """What the next list has to be: ``newest`` or ``whole``."""
        self.known_at = UNKNOWN
        """When a server had the last state for certain; unknown after a watch that broke off, or
        that ended at another time than was asked for, and after a wait."""
        self.cuts = 0
        """How many watches in a row broke off soon, at most."""
        self.cuts_before = 0
        """As many before the last request ended, of which the source may still say so: its words
        are of the turn before."""
        self.is_failed = self.is_refused = False
        """The last request, as far as the client saw."""
        self.is_sure = False
        """The last line that arrived of a watch was read."""

    def conclude(self, request: Request) -> None:
        """Decide from how a request has ended, now that another one begins."""
        exchange = request.exchange
        self.is_failed = self.is_refused = False
        self.cuts_before = self.cuts
        if request.question is not None and not request.question.is_good:
            self._conclude_question(request)
            return
        self.is_sure = exchange.code == 200 and request.is_over and not exchange.error
        if exchange.code and exchange.code != 200:
            self._conclude_refused(request)
        elif request.is_watch:
            self._conclude_watch(request)
        else:
            self._conclude_list(request)

    def _conclude_question(self, request: Request) -> None:
        """Decide by a question about history that ended its watch."""
        question = request.question
        assert question is not None, "it was asked"
        asked = question.exchange
        self.is_sure, self.known_at, self.after_expiry = False, UNKNOWN, ""
        self.wants = "watch"
        if asked.error or not asked.is_ended:
            self.is_failed = True
            self.wants = "either" if asked.code not in (0, 200) else "watch"
        elif question.has_gone_back:
            self.wants, self.after_expiry = "list", "newest"
        else:
            self.is_failed = self.is_refused = True

    def _conclude_refused(self, request: Request) -> None:
        is_gone = request.is_gone
        is_whole = request.is_over and not request.exchange.error
        self.is_refused = not is_gone and is_whole
        self.is_failed = True
        if not is_whole:
            # Whether it could be read is open.
            self.wants, self.after_expiry = "either", ""
            return
        if request.is_watch:
            self.wants = "list" if is_gone else "watch"
            return
        self.wants = "list"
        if is_gone and not request.is_late:
            self.after_expiry = "whole" if request.is_paging else "newest"
            self.is_failed = False

    def _conclude_watch(self, request: Request) -> None:
        exchange, question = request.exchange, request.question
        is_long = request.lasted_s >= HEALTHY_S + SOON_S
        if request.follows_wrong:
            self._conclude_wrong(request)
            return
        late_s = abs(request.lasted_s - int(exchange.query["timeoutSeconds"]))
        is_known = question is None or question.exchange.code == 200
        is_on_time = self.is_sure and late_s <= _ON_TIME_S
        self.known_at = request.over_at if is_known and is_on_time else UNKNOWN
        self.cuts = 0 if is_long or self.is_sure else self.cuts + 1
        self.is_failed = not exchange.code
        self.wants = "watch"
        if request.is_expired or request.went_back:
            self.wants = "list"
            has_gone_back = request.went_back and not request.is_expired
            self.after_expiry = "newest" if has_gone_back else ""
            if exchange.error:
                self.wants, self.after_expiry = "either", ""
        elif self._has_shares:
            self.wants = "either"

    def _conclude_wrong(self, request: Request) -> None:
        """Decide by a line of a watch that isn't the API's."""
        is_sure = self.is_sure and not request.is_too_long
        if is_sure and request.follows_wrong == "watch":
            self.cuts = 0
        self.is_failed, self.is_sure = True, is_sure
        self.wants, self.after_expiry, self.known_at = request.follows_wrong, "", UNKNOWN
        if request.exchange.error:
            # Whether it was read is open.
            self.wants, self.cuts = "either", self.cuts + 1

    def _conclude_list(self, request: Request) -> None:
        if request.page is None:
            self.is_failed, self.wants = True, "list"
            return
        if request.is_late and request.next_token:
            # Another page would have shown that it goes on.
            self.is_failed, self.wants = True, "list"
            return
        if request.is_late:
            self.wants = "either"
            return
        self.token = request.next_token
        self.wants = "page" if self.token else "watch"
        self.after_expiry = ""
