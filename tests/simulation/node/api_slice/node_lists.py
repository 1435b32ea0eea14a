"""Lists of all Nodes: when they are asked for, and that what they contain is what is shown.

Rule 1: what the client has got is read here on its own, from the bytes that arrived.
Rule 2: the addresses of the last complete list are shown until another one is complete, two in a
row are denied, or the source looks again and finds that they aren't wanted.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from ...judgements import Judgements
from ..api_exchange import Exchange
from ..api_requests import target_of
from .reading import addresses_of as reached_at

ORACLES = ("node addresses", "list of Nodes")
NAMES_AT_MOST = "500"
_EVERY_S = 300.0
_RETRY_S = 10.0
_DENIALS = 2
# Turns of an event loop.
_SOON_S = 0.3
_TURNS_S = 0.05

Addresses = frozenset[str] | None
"""None: they are unknown."""


class NodeLists:
    """The lists of all Nodes that one source asks for.

    Args:
        is_wanted: Whether addresses are wanted at the beginning.
        known: Those of an earlier run.
    """

    def __init__(
        self, judgements: Judgements, now: Callable[[], float], known: Addresses, *, is_wanted: bool
    ) -> None:
        self._judgements = judgements
        self._now = now
        self._is_wanted = is_wanted
        self._known = self._before = known
        """What is shown, and what was before."""
        self._changed_at = now()
        self._again_at: float | None = now()
        """When the source looks again whether they are wanted; None: it waits for that."""
        self._wanted_at = now()
        self._denials = 0
        self._is_unsure = False
        """Whether the source has noticed a change of what is wanted; or that it gave a list up."""
        self._may_lack = False
        """What was known may be dropped: the source has looked at about that time."""
        # -- the list that is under way
        self._exchange: Exchange | None = None
        self._addresses: set[str] = set()
        self._data = bytearray()
        self._token: str | None = None

    # -- what happens ------------------------------------------------------------------------------

    def want(self, *, is_wanted: bool) -> None:
        """Note whether addresses are wanted from now on."""
        now = self._now()
        self._go_on()
        if self._again_at is not None and abs(now - self._again_at) < _TURNS_S:
            is_other = is_wanted != self._is_wanted
            self._is_unsure, self._may_lack = (
                self._is_unsure or is_other,
                self._may_lack or is_other,
            )
        if is_wanted and not self._is_wanted:
            self._wanted_at = now
        self._is_wanted = is_wanted

    def is_of(self, exchange: Exchange) -> bool:
        """Return whether a request is for a list of all Nodes."""
        is_list = exchange.method == "GET" and "fieldSelector" not in exchange.query
        # Names that are similar to one that has no Node are another question.
        is_list = is_list and exchange.query.get("limit") != NAMES_AT_MOST
        return is_list and target_of(exchange.path).resource == "nodes"

    def on_begin(self, exchange: Exchange) -> None:
        """Check a request for a page."""
        self._go_on()
        token = exchange.query.get("continue")
        is_right = token == self._token
        if token is None and not self._is_unsure:
            is_right = self._is_due() and self._exchange is None
        self._judgements.check(
            "list of Nodes", is_right, lambda: f"{dict(exchange.query)}, and that isn't due"
        )
        if token is None:
            self._addresses.clear()
            self._is_unsure = False
        self._exchange = exchange
        self._data.clear()

    def on_arrival(self, exchange: Exchange, piece: bytes) -> None:
        """Note a part of a page."""
        if exchange is self._exchange:
            self._data += piece

    def on_end(self, exchange: Exchange) -> None:
        """Note that a page has ended, or broken off."""
        if exchange is not self._exchange:
            return
        page = None if exchange.error else self._page(exchange)
        if page is None:
            self._fail(is_denied=exchange.code == 403 and not exchange.error)
            return
        items = page["items"] or ()
        self._addresses.update(each for item in items for each in addresses_of(item))
        self._token = page["metadata"].get("continue")
        if self._token is None:
            self._denials = 0
            self._show(frozenset(self._addresses))
            self._end(_EVERY_S)

    def _page(self, exchange: Exchange) -> dict[str, Any] | None:
        try:
            page: dict[str, Any] = json.loads(bytes(self._data))
        except ValueError:
            return None
        return page if exchange.code == 200 else None

    def _fail(self, *, is_denied: bool) -> None:
        self._denials = self._denials + 1 if is_denied else 0
        if self._denials >= _DENIALS:
            self._show(None)
        self._end(_RETRY_S)

    def _end(self, again_s: float) -> None:
        self._exchange = self._token = None
        self._again_at = self._now() + again_s

    def _show(self, addresses: Addresses) -> None:
        self._before, self._known, self._changed_at = self._known, addresses, self._now()
        self._may_lack = False

    def _go_on(self) -> None:
        """Note what has happened without a request."""
        exchange, now = self._exchange, self._now()
        has_given_up = exchange is not None and exchange.is_closed and not exchange.is_ended
        if exchange is not None and has_given_up and not exchange.error:
            # Some time ago: nothing arrived for too long.
            self._fail(is_denied=False)
            self._is_unsure = True
        looks = self._again_at is not None and now > self._again_at + _TURNS_S
        if looks and self._exchange is None and not self._is_wanted:
            self._show(None)
            self._again_at = None

    def _is_due(self) -> bool:
        return self._is_wanted and not self._is_early()

    def _is_early(self) -> bool:
        return self._again_at is not None and self._now() < self._again_at - _TURNS_S

    # -- checks ------------------------------------------------------------------------------------

    def check(self) -> None:
        """Check that a list that is due has begun."""
        self._go_on()
        if self._exchange is not None or not self._is_wanted or self._is_unsure:
            return
        late_s = self._now() - (self._wanted_at if self._again_at is None else self._again_at)
        self._judgements.check(
            "list of Nodes", late_s <= _SOON_S, lambda: f"none for {late_s:.1f} s since it is due"
        )

    def check_shown(self, shown: Addresses) -> None:
        """Check which addresses are shown."""
        self._go_on()
        right = {self._known}
        if self._now() - self._changed_at < _TURNS_S + _SOON_S:
            right.add(self._before)
        is_sure = self._is_wanted or self._is_early()
        if self._is_unsure or self._may_lack or not is_sure:
            right.add(None)
        self._judgements.check("node addresses", shown in right, lambda: f"{shown}, not {right}")


def addresses_of(item: dict[str, Any]) -> list[str]:
    """Return the addresses of a Node; of one that can't be read, none."""
    status = item.get("status")
    found = status.get("addresses") if isinstance(status, dict) else None
    return reached_at(found) if isinstance(found, list) else []
