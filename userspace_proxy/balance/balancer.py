"""Picks an endpoint for each connection of one Service port.

    client ─▶ pinned, and not ejected? ─▶ that one
                    │ no
                    └▶ the strategy, over those that aren't ejected: of the first priority, or if
                       none of it is left, of the next one
                              └▶ none left: over all but those that were silent a moment ago
                                 (a dial is better than a refusal, if it is quick)

Rule 1: within one connection no endpoint is picked twice (``tried``).
Rule 2: a pick pins the client at once, so that connections that begin at the same time use
one endpoint; if that one fails, the next pick pins the client to another.
Rule 3: a client that is pinned to an endpoint on standby leaves it as soon as one of a priority
before may be dialled.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Container, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple, Protocol, cast

from ..model import SocketAddress
from .affinity import AffinityTable, Pin
from .ejection import Ejections
from .round_robin import RoundRobin
from .weights import Weights

_NO_STANDBYS: Mapping[SocketAddress, int] = MappingProxyType({})


class Strategy(Protocol):
    """Chooses one of several usable endpoints."""

    def pick(
        self,
        endpoints: Sequence[SocketAddress],
        client: str = "",
        /,
        *,
        skip: Container[SocketAddress] | None = None,
    ) -> SocketAddress | None:
        """Return an endpoint, or None if all are to be skipped.

        Args:
            endpoints: Usable endpoints in plan order; may be empty.
            client: Its address.
            skip: Endpoints already tried for this connection, or ejected; None for none.
        """


class _Level(NamedTuple):
    """The endpoints of one priority."""

    endpoints: Sequence[SocketAddress]
    members: frozenset[SocketAddress]


class Balancer:
    """The choice for one Service port and family.

    Args:
        affinity_timeout_s: The timeout of ``sessionAffinity: ClientIP``; None without affinity.
        strategy: None for round robin.
        standbys: Priorities of endpoints other than 0.
        weights: The strategy's; they are told the time.
    """

    def __init__(
        self,
        endpoints: Sequence[SocketAddress] = (),
        *,
        affinity_timeout_s: float | None = None,
        start: int = 0,
        strategy: Strategy | None = None,
        standbys: Mapping[SocketAddress, int] = _NO_STANDBYS,
        weights: Weights | None = None,
    ) -> None:
        self.strategy: Strategy = strategy or RoundRobin(start)
        """May be replaced."""
        self._weights = weights or Weights()
        self._is_plain = True
        """Neither affinity nor slow start."""
        self.is_full: Callable[[SocketAddress], bool] | None = None
        """Returns whether an endpoint is at its limit, which the strategy leaves out then; None
        without limits."""
        self._ejections = Ejections()
        self._affinity: AffinityTable | None = None
        self.endpoints: Sequence[SocketAddress] = ()
        self._usable: frozenset[SocketAddress] = frozenset()
        self._levels: Sequence[_Level] = ()
        """By priority, the first one first."""
        self._first: Sequence[SocketAddress] = ()
        """The endpoints of the first priority."""
        self.update(endpoints, affinity_timeout_s=affinity_timeout_s, standbys=standbys)

    def update(
        self,
        endpoints: Sequence[SocketAddress],
        *,
        affinity_timeout_s: float | None,
        standbys: Mapping[SocketAddress, int] = _NO_STANDBYS,
    ) -> None:
        """Replace the endpoints; keeps the turn, and the pins and ejections of those that stay."""
        self.endpoints = endpoints
        self._usable = frozenset(endpoints)
        self._levels = _levels(endpoints, self._usable, standbys)
        self._first = self._levels[0].endpoints
        self._ejections.keep(self._usable)
        if affinity_timeout_s is None:
            self._affinity = None
        elif self._affinity is None:
            self._affinity = AffinityTable(affinity_timeout_s)
        else:
            self._affinity.timeout_s = affinity_timeout_s
        self._is_plain = self._affinity is None and not self._weights.may_grow

    def serves(self, _client: str, endpoint: SocketAddress) -> bool:
        """Return whether an endpoint is of the first priority, ejected or not."""
        return endpoint in self._levels[0].members

    def has_more(self, _client: str, now: float, *, tried: Container[SocketAddress]) -> bool:
        """Return whether :meth:`pick` would return an endpoint."""
        skip = _TriedOrQuiet(tried, self._ejections, now)
        is_full = self.is_full or _is_never_full
        return any(e not in skip and not is_full(e) for e in self.endpoints)

    def is_at_limit(
        self, _client: str, now: float, *, tried: Collection[SocketAddress] = ()
    ) -> bool:
        """Return whether :meth:`pick` returns None only until an endpoint is below its limit."""
        out: Collection[SocketAddress] = self._ejections.out(now) if self._ejections.ejected else ()
        return self.is_full is not None and any(
            e not in tried and e not in out and self.is_full(e) for e in self.endpoints
        )

    def pick(
        self, client: str, now: float, *, tried: Collection[SocketAddress] = ()
    ) -> SocketAddress | None:
        """Return the endpoint to dial next, or None if none is left to try.

        The caller then calls :meth:`answered` or :meth:`failed`.

        Args:
            now: Monotonic seconds.
        """
        if self._is_plain and not tried and not self._ejections.ejected:
            return self.strategy.pick(self._first, client)
        self._weights.grow(now)
        endpoint = self._choose(client, now, tried)
        if endpoint is not None:
            if self._ejections.ejected:
                self._ejections.picked(endpoint, now)
            if self._affinity is not None:
                self._affinity.pin(client, endpoint, now)
        return endpoint

    def answered(self, endpoint: SocketAddress) -> bool:
        """Note that a dial succeeded; True if this ends an ejection."""
        return bool(self._ejections.ejected) and self._ejections.answered(endpoint)

    def failed(self, endpoint: SocketAddress, now: float, *, is_silent: bool = False) -> bool:
        """Note that the endpoint failed a dial, and eject it; True if this begins an ejection."""
        return endpoint in self._usable and self._ejections.failed(
            endpoint, now, is_silent=is_silent
        )

    def ejected(self, now: float) -> Mapping[SocketAddress, float]:
        """Return the ejected endpoints, each with the seconds until its probe is due."""
        return self._ejections.left_s(self.endpoints, now)

    def pins(self, now: float) -> list[Pin]:
        """Return the pins of clients; empty without affinity."""
        return [] if self._affinity is None else self._affinity.list(now)

    def restore(self, pins: Iterable[Pin], now: float) -> None:
        """Add pins of a former process; without effect without affinity."""
        if self._affinity is not None:
            self._affinity.restore(pins, now)

    def _choose(
        self, client: str, now: float, tried: Collection[SocketAddress]
    ) -> SocketAddress | None:
        out: Collection[SocketAddress] = self._ejections.out(now) if self._ejections.ejected else ()
        pinned = None
        if self._affinity is not None:
            pinned = self._affinity.lookup(client, self._usable, now)
            if pinned is not None and (pinned in tried or pinned in out):
                pinned = None
        skip = _Either(out, tried) if out or tried else None
        for level in self._levels:
            if pinned is not None and pinned in level.members:
                # Affinity is a promise: the client waits for its endpoint.
                return None if self.is_full is not None and self.is_full(pinned) else pinned
            if len(out) >= len(level.members) and level.members.issubset(out):
                continue
            endpoint = self.strategy.pick(level.endpoints, client, skip=skip)
            if endpoint is not None:
                return endpoint
            if self.is_full is not None and self._has_full(level, skip):
                return None
        but_quiet = _TriedOrQuiet(tried, self._ejections, now)
        picks = (
            self.strategy.pick(level.endpoints, client, skip=but_quiet) for level in self._levels
        )
        return next((endpoint for endpoint in picks if endpoint is not None), None)

    def _has_full(self, level: _Level, skip: Container[SocketAddress] | None) -> bool:
        """Return whether a client waits for an endpoint of a priority.

        Then it uses none of the next one, nor one that is ejected.
        """
        is_full = self.is_full or _is_never_full
        return any(is_full(e) for e in level.endpoints if skip is None or e not in skip)


def _is_never_full(_endpoint: SocketAddress) -> bool:
    return False


def _levels(
    endpoints: Sequence[SocketAddress],
    members: frozenset[SocketAddress],
    standbys: Mapping[SocketAddress, int],
) -> Sequence[_Level]:
    """Return the endpoints by priority; one empty level without endpoints."""
    if not standbys:
        return (_Level(endpoints, members),)
    by_priority: dict[int, list[SocketAddress]] = {}
    for endpoint in endpoints:
        by_priority.setdefault(standbys.get(endpoint, 0), []).append(endpoint)
    levels = [tuple(level) for _, level in sorted(by_priority.items())] or [()]
    return [_Level(level, frozenset(level)) for level in levels]


class _TriedOrQuiet:
    """The endpoints that this client has tried, or that were silent a moment ago."""

    __slots__ = ("_ejections", "_now", "_tried")

    def __init__(self, tried: Container[SocketAddress], ejections: Ejections, now: float) -> None:
        self._tried = tried
        self._ejections = ejections
        self._now = now

    def __contains__(self, item: object) -> bool:
        return item in self._tried or self._ejections.is_quiet(cast(SocketAddress, item), self._now)


class _Either:
    """The union of two containers, without building it."""

    __slots__ = ("_a", "_b")

    def __init__(self, a: Container[SocketAddress], b: Container[SocketAddress]) -> None:
        self._a = a
        self._b = b

    def __contains__(self, item: object) -> bool:
        return item in self._a or item in self._b
