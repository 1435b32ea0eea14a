"""Maintains the list of candidates of one priority, from which strategies choose.

    endpoints    A B C D E F …        as the plan lists them
    candidates   A   C D   F …        without most ejected endpoints
    skipped          C                ejected, but still in the list of candidates

Rule 1: a pick visits only candidates, so its cost doesn't depend on the number of ejected
endpoints.
Rule 2: building the list of candidates visits every endpoint, and weighted strategies rearrange
each new list, so the list is rebuilt only when a share of it is ejected, and for endpoints that
may be used again at most once per RELIST_S, unless the list is short.
Rule 3: with few ejected endpoints, all endpoints are candidates, in the plan's order.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from types import MappingProxyType
from typing import cast

from ..model import SocketAddress

# A pick may skip SKIPPED_MAX ejected candidates, or one in _SKIPPED_PART if that is more. Skipping
# a candidate costs up to 2 µs (with weights), rebuilding the list 1 µs per candidate.
SKIPPED_MAX = 16
_SKIPPED_PART = 32
# The maximum length of a short list: each endpoint matters, and a new list is cheaper than a dial.
SHORT = 64
# How long a readmitted endpoint may be missing from a list of more than SHORT candidates.
RELIST_S = 1.0
_NEVER = -math.inf
# Cost: nearly all levels have no ejected endpoint, and share this empty dictionary.
_NONE = cast("dict[SocketAddress, None]", MappingProxyType({}))


class PriorityLevel:
    """The endpoints of one priority.

    Args:
        endpoints: The endpoints in the order of the plan.
        members: The same endpoints as a set.
        out: Endpoints that no client may use now; may contain endpoints of other levels.
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
        """Candidates that no client may use now; read-only for callers."""
        self._candidates = endpoints
        self._out = _NONE
        self._returned = _NONE
        """Endpoints that may be used again but aren't candidates yet, in a fixed order."""
        self._listed_at = _NEVER
        for endpoint in endpoints if out else ():
            if endpoint in out:
                self.change(endpoint, is_out=True)

    @property
    def is_out(self) -> bool:
        """Whether clients may use no endpoint of this level now."""
        return len(self._out) == len(self.members)

    def change(self, endpoint: SocketAddress, *, is_out: bool) -> None:
        """Record that clients may no longer use a member (``is_out``), or may use it again."""
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
        """Return the candidates, ``skipped`` included; the same object until it changes.

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
