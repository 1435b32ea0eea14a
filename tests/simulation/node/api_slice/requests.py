"""What the source asks servers for: which request belongs to which kind."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ..api_exchange import Exchange
from ..api_requests import target_of
from .copies import Copy
from .follower import Follower
from .one_request import Question, Request

if TYPE_CHECKING:
    from ...judgements import Judgements

_KIND_OF = {
    "services": "Service",
    "endpointslices": "EndpointSlice",
    "nodes": "Node",
    "pods": "Pod",
}
# Turns of an event loop.
_SOON_S = 0.3


def is_check(exchange: Exchange) -> bool:
    """Return whether a request only asks whether the server has a state."""
    query = exchange.query
    return query.get("limit") == "1" and "resourceVersionMatch" in query


class RequestChecks:
    """The requests of one run of a source."""

    def __init__(
        self,
        judgements: Judgements,
        now: Callable[[], float],
        listed: Callable[[Follower], object],
        *,
        has_pods: bool,
        has_shares: bool,
        list_s: float,
        line_bytes: int,
        copies: Callable[[str], Copy],
    ) -> None:
        self.judgements = judgements
        self.check = judgements.check
        self.now = now
        self.listed = listed
        self.has_shares = has_shares
        self.list_s = list_s
        """The longest a list may take."""
        self.line_bytes = line_bytes
        """What a line of a watch has at most."""
        self.recovered_at = float("-inf")
        """When a request has succeeded after a problem, so that others needn't wait."""
        kinds = [kind for kind in _KIND_OF.values() if has_pods or kind != "Pod"]
        self.followers = {kind: Follower(kind, self, copies(kind)) for kind in kinds}
        self._of: dict[Exchange, Follower] = {}

    def on_begin(self, exchange: Exchange) -> None:
        """Check a request."""
        resource = target_of(exchange.path).resource
        if resource not in _KIND_OF or exchange.method != "GET":
            return
        if resource == "nodes" and "fieldSelector" not in exchange.query:
            return
        follower = self.followers[_KIND_OF[resource]]
        self._of[exchange] = follower
        if is_check(exchange):
            follower.ask(exchange)
        else:
            follower.begin(exchange)

    def wake_others(self, reached: Follower) -> None:
        """Have the others that wait begin soon, because one has reached the server again."""
        now = self.now()
        for follower in self.followers.values():
            if follower is not reached and follower.outage.waits(now):
                follower.must_begin_by = now + _SOON_S

    def follower_of(self, exchange: Exchange) -> Follower | None:
        """Return what follows the kind of a request, if that is its last one."""
        found = self._last_of(exchange)
        return None if found is None else found[0]

    def on_head(self, exchange: Exchange) -> str:
        """Note a response; return the kind that it is for, or an empty text."""
        if (found := self._last_of(exchange)) is not None:
            follower, request = found
            follower.on_head(request)
            return follower.kind
        asked = self._asked_by(exchange)
        return "" if asked is None else asked[0].kind

    def on_arrival(self, exchange: Exchange, piece: bytes) -> None:
        if (found := self._last_of(exchange)) is not None:
            follower, request = found
            follower.on_arrival(request, piece)
        elif (asked := self._asked_by(exchange)) is not None:
            *_, question = asked
            question.answer += piece

    def on_end(self, exchange: Exchange) -> Exchange | None:
        """Note the end of a response; return the watch that was waiting for an answer."""
        if (found := self._last_of(exchange)) is not None:
            follower, request = found
            follower.on_end(request)
        elif (asked := self._asked_by(exchange)) is not None:
            follower, request, question = asked
            follower.on_answer(request, question)
            return request.exchange
        return None

    def _last_of(self, exchange: Exchange) -> tuple[Follower, Request] | None:
        """Return a request with what follows its kind, if that is its last one."""
        follower = self._of.get(exchange)
        if follower is None or (request := follower.request) is None:
            return None
        return (follower, request) if request.exchange is exchange else None

    def _asked_by(self, exchange: Exchange) -> tuple[Follower, Request, Question] | None:
        """Return a question with its watch, if that is the last request of its kind."""
        follower = self._of.get(exchange)
        if follower is None or (request := follower.request) is None:
            return None
        question = request.question
        is_it = question is not None and question.exchange is exchange
        return (follower, request, question) if is_it and question is not None else None
