"""Picks an endpoint for each connection of one Service port.

    client ─▶ pinned to an endpoint that isn't ejected? ─▶ the pinned endpoint
                    │ no
                    └▶ the strategy, over endpoints that aren't ejected, of the first priority that
                       has any
                              └▶ none left: in turn, whatever the strategy, over all endpoints that
                                 weren't silent a moment ago (a quick dial is better than a refusal)

Rule 1: a connection tries no endpoint twice, and at most TRIED_MAX endpoints (``tried``).
Rule 2: with affinity, a pick pins the client immediately, so that concurrent connections use the
same endpoint; if that endpoint fails, the next pick pins the client to another endpoint.
Rule 3: a client that is pinned to a standby endpoint is moved as soon as an endpoint of a better
priority may be dialled.
Rule 4: no pick iterates over all ejected endpoints (``priority_level``).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import (
    Callable,
    Collection,
    Container,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from types import MappingProxyType

from ..model import SocketAddress
from .affinity import AffinityEntry, AffinityTable, AffinityTables
from .ejection import Ejections
from .pod_affinity import PodAffinity
from .priority_level import PriorityLevel
from .round_robin import RoundRobin
from .strategy import Skip, Strategy
from .weights import Weights

TRIED_MAX = 16
"""The maximum number of endpoints dialled for one connection or flow. A failure ejects an endpoint
for all clients, so later clients try others: with half of the endpoints dead, one client in 65,536
tries only dead endpoints. Without this bound a client might dial thousands of dead endpoints."""

# The maximum number of endpoints to check per priority if all are ejected: the next in turn were
# dialled longest ago, so if they were silent a moment ago, all other endpoints were as well.
_LOOKS = 64
_NO_STANDBYS: Mapping[SocketAddress, int] = MappingProxyType({})
# Cost: all balancers that have ejected no endpoint yet share this object; nothing is added to it.
_NO_EJECTIONS = Ejections()


class Balancer:
    """The balancer of one Service port and family.

    Args:
        affinity_timeout_s: The timeout of ``sessionAffinity: ClientIP``; None without affinity.
        strategy: None for round robin.
        standbys: The priorities of endpoints whose priority isn't 0.
        weights: The strategy's weights; the balancer advances their slow start.
        entries: The worker's affinity tables, to which this balancer adds a table.
        shares_as: The Service's name if its ports share affinity entries; empty otherwise.
    """

    __slots__ = (
        "_affinity",
        "_ejections",
        "_entries",
        "_first",
        "_is_plain",
        "_levels",
        "_turn",
        "_usable",
        "_weights",
        "endpoints",
        "is_full",
        "standby_strategies",
        "strategy",
    )

    def __init__(
        self,
        endpoints: Sequence[SocketAddress] = (),
        *,
        affinity_timeout_s: float | None = None,
        start: int = 0,
        strategy: Strategy | None = None,
        standbys: Mapping[SocketAddress, int] = _NO_STANDBYS,
        weights: Weights | None = None,
        entries: AffinityTables | None = None,
        shares_as: str = "",
    ) -> None:
        self.strategy: Strategy = strategy or RoundRobin(start)
        """The strategy of the first priority; may be replaced."""
        self.standby_strategies: Sequence[Strategy] = ()
        """Strategies of the priorities after the first, each with its own turn. May be replaced; a
        priority without a strategy uses ``strategy``."""
        # Compare with None: empty weights are falsy, but may be filled later.
        self._weights = Weights() if weights is None else weights
        self._is_plain = True
        """Whether there is neither affinity nor slow start."""
        self.is_full: Callable[[SocketAddress], bool] | None = None
        """Returns whether an endpoint is at its limit, so that the strategy skips it; None without
        limits."""
        self._ejections = _NO_EJECTIONS
        self._entries = entries
        self._affinity: AffinityTable | PodAffinity | None = None
        self.endpoints: Sequence[SocketAddress] = ()
        self._usable: frozenset[SocketAddress] = frozenset()
        self._levels: Sequence[PriorityLevel] = ()
        """The levels in order of priority."""
        self._turn = 0
        """The round-robin position among ejected endpoints, used if no other endpoints are left."""
        self._first: Sequence[SocketAddress] = ()
        """The endpoints of the first priority."""
        self.update(
            endpoints,
            affinity_timeout_s=affinity_timeout_s,
            standbys=standbys,
            shares_as=shares_as,
        )

    def update(
        self,
        endpoints: Sequence[SocketAddress],
        *,
        affinity_timeout_s: float | None,
        standbys: Mapping[SocketAddress, int] = _NO_STANDBYS,
        shares_as: str = "",
    ) -> None:
        """Replace the endpoints; keep the position, and remaining endpoints' pins and ejections."""
        self.endpoints = endpoints
        self._usable = frozenset(endpoints)
        self._ejections.keep(self._usable)
        # Use the ejections as of the last pick: later changes are reported relative to that state.
        out = self._ejections.out(-math.inf)
        self._levels = _levels(endpoints, self._usable, standbys, out)
        self._first = self._levels[0].endpoints
        if affinity_timeout_s is None:
            self.forget_entries()
            self._affinity = None
        else:
            self._follow_affinity(affinity_timeout_s, shares_as)
        self._is_plain = self._affinity is None and not self._weights.may_grow

    def _follow_affinity(self, timeout_s: float, shares_as: str) -> None:
        have = self._affinity
        name = have.name if isinstance(have, PodAffinity) else ""
        if have is None or name != shares_as:
            self.forget_entries()
            if shares_as:
                tables = AffinityTables() if self._entries is None else self._entries
                have = PodAffinity(shares_as, timeout_s, tables)
            else:
                have = AffinityTable(timeout_s, self._entries)
            self._affinity = have
        have.timeout_s = timeout_s
        if isinstance(have, PodAffinity):
            have.serve(self.endpoints)

    def serves(self, _client: str, endpoint: SocketAddress) -> bool:
        """Return whether an endpoint has the first priority, ejected or not."""
        return endpoint in self._levels[0].members

    def has_more(self, client: str, now: float, *, tried: Collection[SocketAddress]) -> bool:
        """Return whether :meth:`pick` returns an endpoint; may drop a pin or advance the turn."""
        if len(tried) >= TRIED_MAX:
            return False
        pinned = self._pinned(client, now, tried, self._ejections.out(now))
        is_full = self.is_full or _is_never_full
        for level in self._levels:
            if pinned in level.members:
                return not is_full(pinned)
            candidates = level.candidates(now)
            usable = [e for e in candidates if e not in level.skipped and e not in tried]
            if usable:
                return not all(map(is_full, usable))
        return next(self._last_choices(now, tried), None) is not None

    def is_at_limit(
        self, _client: str, now: float, *, tried: Collection[SocketAddress] = ()
    ) -> bool:
        """Return whether an untried endpoint is at its limit, so that a client can wait for it.

        Ejected endpoints also count, as clients may be sent to them; this advances their turn.
        """
        self._ejections.out(now)
        is_full = self.is_full
        return is_full is not None and any(
            e not in tried and is_full(e)
            for e in itertools.chain(self._candidates(now), self._in_turn())
        )

    def pick(
        self, client: str, now: float, *, tried: Collection[SocketAddress] = ()
    ) -> SocketAddress | None:
        """Pick the endpoint to dial next, and with affinity pin the client to it.

        Returns None if no untried endpoint may be dialled now, or after TRIED_MAX dials. The caller
        reports the outcome of the dial by :meth:`answered` or :meth:`failed`.

        Args:
            now: Monotonic seconds.
        """
        if self._is_plain and not tried and not self._ejections.ejected:
            return self.strategy.pick(self._first, client)
        if len(tried) >= TRIED_MAX:
            return None
        self._weights.grow(now)
        endpoint = self._choose(client, now, tried)
        if endpoint is not None:
            if self._ejections.ejected:
                self._ejections.picked(endpoint, now)
            if self._affinity is not None:
                self._affinity.remember(client, endpoint, now)
        return endpoint

    def answered(self, endpoint: SocketAddress) -> bool:
        """Record that a dial succeeded; return True if this ends an ejection."""
        return bool(self._ejections.ejected) and self._ejections.answered(endpoint)

    def failed(self, endpoint: SocketAddress, now: float, *, is_silent: bool = False) -> bool:
        """Record a failed dial; return True if it begins or extends the endpoint's ejection."""
        if endpoint not in self._usable:
            return False
        if self._ejections is _NO_EJECTIONS:
            self._ejections = Ejections(self._on_ejections)
        return self._ejections.failed(endpoint, now, is_silent=is_silent)

    def ejected(self, now: float) -> Mapping[SocketAddress, float]:
        """Return the ejected endpoints, each with the seconds until its probe is due."""
        return self._ejections.left_s(self.endpoints, now)

    def entries(self, now: float) -> Iterator[AffinityEntry]:
        """Yield the affinity entries, most recently used first; none without affinity."""
        return iter(()) if self._affinity is None else self._affinity.each(now)

    def forget_entries(self) -> None:
        """Drop all affinity entries; required when the balancer is no longer used."""
        if self._affinity is not None:
            self._affinity.clear()

    def restore(self, entries: Iterable[AffinityEntry], now: float) -> None:
        """Add the affinity entries of a previous process; no effect without affinity."""
        if self._affinity is not None:
            self._affinity.restore(entries, now)

    def _choose(
        self, client: str, now: float, tried: Collection[SocketAddress]
    ) -> SocketAddress | None:
        out: Collection[SocketAddress] = self._ejections.out(now) if self._ejections.ejected else ()
        pinned = self._pinned(client, now, tried, out)
        strategies = itertools.chain((self.strategy,), self.standby_strategies)
        for level in self._levels:
            strategy = next(strategies, self.strategy)
            if pinned is not None and pinned in level.members:
                # Affinity takes precedence over load: the client waits for its endpoint.
                return None if self.is_full is not None and self.is_full(pinned) else pinned
            if level.is_out:
                continue
            candidates, skipped = level.candidates(now), level.skipped
            skip = _Either(skipped, tried) if skipped and tried else skipped or tried or None
            endpoint = strategy.pick(candidates, client, skip=skip)
            if endpoint is not None:
                return endpoint
            if self.is_full is not None and self._has_full(candidates, skip):
                return None
        for endpoint in self._last_choices(now, tried):
            self._turn += 1
            return endpoint
        return None

    def _pinned(
        self,
        client: str,
        now: float,
        tried: Container[SocketAddress],
        out: Container[SocketAddress],
    ) -> SocketAddress | None:
        """Return a client's pinned endpoint; None without one, or if it may not be dialled now."""
        if self._affinity is None:
            return None
        pinned = self._affinity.lookup(client, self._usable, now)
        return None if pinned is not None and (pinned in tried or pinned in out) else pinned

    def _candidates(self, now: float) -> Iterator[SocketAddress]:
        """Yield the endpoints that aren't ejected, in order of priority."""
        for level in self._levels:
            candidates = level.candidates(now)
            yield from (e for e in candidates if e not in level.skipped)

    def _last_choices(self, now: float, tried: Container[SocketAddress]) -> Iterator[SocketAddress]:
        """Yield ejected endpoints to dial anyway, by priority and in turn."""
        is_full = self.is_full or _is_never_full
        for endpoint in self._in_turn():
            is_usable = endpoint not in tried and not self._ejections.is_quiet(endpoint, now)
            if is_usable and not is_full(endpoint):
                yield endpoint

    def _in_turn(self) -> Iterator[SocketAddress]:
        """Yield a bounded number of endpoints, by priority and in turn; advance the turn."""
        for level in self._levels:
            for _ in range(min(_LOOKS, len(level.endpoints))):
                yield level.endpoints[self._turn % len(level.endpoints)]
                self._turn += 1

    def _has_full(self, candidates: Sequence[SocketAddress], skip: Skip) -> bool:
        """Return whether a client must wait for an endpoint of this priority.

        The client then uses neither the next priority nor an ejected endpoint.
        """
        is_full = self.is_full or _is_never_full
        return any(is_full(e) for e in candidates if skip is None or e not in skip)

    def _on_ejections(self, endpoint: SocketAddress, is_out: bool) -> None:
        for level in self._levels:
            if endpoint in level.members:
                level.change(endpoint, is_out=is_out)


def _is_never_full(_endpoint: SocketAddress) -> bool:
    return False


def _levels(
    endpoints: Sequence[SocketAddress],
    members: frozenset[SocketAddress],
    standbys: Mapping[SocketAddress, int],
    out: Collection[SocketAddress],
) -> Sequence[PriorityLevel]:
    """Return one level per priority; without endpoints, one empty level."""
    if not standbys:
        return (PriorityLevel(endpoints, members, out),)
    by_priority: dict[int, list[SocketAddress]] = {}
    for endpoint in endpoints:
        by_priority.setdefault(standbys.get(endpoint, 0), []).append(endpoint)
    levels = [tuple(level) for _, level in sorted(by_priority.items())] or [()]
    return [PriorityLevel(level, frozenset(level), out) for level in levels]


class _Either:
    """A view of the union of two containers."""

    __slots__ = ("_a", "_b")

    def __init__(self, a: Container[SocketAddress], b: Container[SocketAddress]) -> None:
        self._a = a
        self._b = b

    def __contains__(self, item: object) -> bool:
        return item in self._a or item in self._b
