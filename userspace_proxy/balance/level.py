"""The endpoints of one priority, and the candidates among them: those that strategies choose from.

    endpoints    A B C D E F …        as the plan lists them
    candidates   A   C D   F …        without most of those that are ejected
    skipped          C                ejected, and still a candidate

Rule 1: a pick looks at candidates alone, so its cost doesn't depend on how many endpoints are
ejected.
Rule 2: a list of candidates costs a look at all of them, and strategies with weights arrange each
new one. So it is made only when a part of it is ejected, and for endpoints that may be used again
at most once in RELIST_S, unless it is short.
Rule 3: with few ejected endpoints all endpoints are candidates, in the plan's order.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from types import MappingProxyType
from typing import cast

from ..model import SocketAddress

# A pick may meet this many ejected candidates, or this part of all: passing over each of them costs
# up to 2 us for each (weights), and a list 1 us for each candidate.
SKIPPED_MAX = 16
_SKIPPED_PART = 32
# In so short a list an endpoint is missed at once, and a new list costs less than a dial.
SHORT = 64
# While more candidates than that are left, an endpoint that is back may be used a second later.
RELIST_S = 1.0
_NEVER = -math.inf
# Cost: nearly all levels have none, and share this.
_NONE = cast("dict[SocketAddress, None]", MappingProxyType({}))


class PriorityLevel:
    """The endpoints of one priority.

    Args:
        endpoints: In the order of the plan.
        members: The same.
        out: Endpoints that no client may use now; others may be among them.
    """

    __slots__ = (
        "_candidates",
        "_listed_at",
        "_out",
        "_returned",
        "endpoints",
        "members",
        "skipped",
    )

    def __init__(
        self,
        endpoints: Sequence[SocketAddress],
        members: frozenset[SocketAddress],
        out: Collection[SocketAddress] = (),
    ) -> None:
        self.endpoints = endpoints
        self.members = members
        self.skipped = _NONE
        """Candidates that no client may use now; read-only for others."""
        self._candidates = endpoints
        self._out = _NONE
        self._returned = _NONE
        """Those that may be used and aren't candidates yet, in a fixed order."""
        self._listed_at = _NEVER
        for endpoint in endpoints if out else ():
            if endpoint in out:
                self.change(endpoint, is_out=True)

    @property
    def is_out(self) -> bool:
        """Whether no client may use any of them."""
        return len(self._out) == len(self.members)

    def change(self, endpoint: SocketAddress, *, is_out: bool) -> None:
        """Note that no client may use a member from now on, or that clients may."""
        if self._out is _NONE:
            self._out, self._returned, self.skipped = {}, {}, {}
        if is_out:
            self._out[endpoint] = None
            if endpoint in self._returned:
                del self._returned[endpoint]
                return
            self.skipped[endpoint] = None
            if len(self.skipped) > max(SKIPPED_MAX, len(self._candidates) // _SKIPPED_PART):
                self._list()
        elif endpoint in self._out:
            del self._out[endpoint]
            if endpoint in self.skipped:
                del self.skipped[endpoint]
            else:
                self._returned[endpoint] = None

    def candidates(self, now: float) -> Sequence[SocketAddress]:
        """Return what to choose from, without ``skipped``; the same object until it changes.

        Args:
            now: Monotonic seconds.
        """
        if self._returned and (len(self._candidates) <= SHORT or now >= self._listed_at + RELIST_S):
            self._listed_at = now
            self._list()
        return self._candidates

    def _list(self) -> None:
        if self._out:
            usable = [e for e in self._candidates if e not in self.skipped]
            self._candidates = (*usable, *self._returned)
        else:
            self._candidates = self.endpoints
        self.skipped.clear()
        self._returned.clear()
