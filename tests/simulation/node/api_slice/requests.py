"""What the source asks servers for: which request belongs to which kind."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ..api_exchange import Exchange
from ..api_requests import target_of
from .copies import Copy
from .follower import Follower

if TYPE_CHECKING:
    from ...judgements import Judgements

_KIND_OF = {"services": "Service", "endpointslices": "EndpointSlice", "nodes": "Node"}
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
        has_shares: bool,
        list_s: float,
        copies: Callable[[str], Copy],
    ) -> None:
        self.judgements = judgements
        self.check = judgements.check
        self.now = now
        self.listed = listed
        self.has_shares = has_shares
        self.list_s = list_s
        """The longest a list may take."""
        self.recovered_at = float("-inf")
        """When a request has succeeded after a problem, so that others needn't wait."""
        self.followers = {kind: Follower(kind, self, copies(kind)) for kind in _KIND_OF.values()}
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
        follower = self._of.get(exchange)
        return follower if follower is not None and follower.last is exchange else None

    def on_head(self, exchange: Exchange) -> str:
        """Note a response; return the kind that it is for, or an empty text."""
        follower = self.follower_of(exchange)
        if follower is not None:
            follower.on_head(exchange)
        else:
            follower = self._asking(exchange)
        return "" if follower is None else follower.kind

    def on_arrival(self, exchange: Exchange, piece: bytes) -> None:
        follower = self._of.get(exchange)
        if follower is not None and follower.last is exchange:
            follower.on_arrival(exchange, piece)
        elif (follower := self._asking(exchange)) is not None:
            follower.answer += piece

    def on_end(self, exchange: Exchange) -> Exchange | None:
        """Note the end of a response; return the watch that was waiting for an answer."""
        if (follower := self.follower_of(exchange)) is not None:
            follower.on_end(exchange)
        elif (follower := self._asking(exchange)) is not None:
            follower.on_answer(exchange)
            return follower.last
        return None

    def _asking(self, exchange: Exchange) -> Follower | None:
        """Return what follows the kind of a question, if that is its last one."""
        follower = self._of.get(exchange)
        return follower if follower is not None and follower.question is exchange else None
