"""Builds and updates the balancers of a Service port from its ``Serving``.

    Serving ──change──▶ Balancers ──current──▶ Balancer        all clients use the same endpoints
                          │               or ▶ SplitBalancer   one balancer for each side
                          ├─ Weights: shares of endpoints, which may start slowly
                          └─ loads of endpoints: for strategies and limits

    load = open connections (``CounterTable``) + dials in progress
    limit = this worker's share of ``max-connections``

Rule 1: a change keeps the round-robin position, and the affinity entries and ejections of remaining
endpoints.
Rule 2: each priority has its own round-robin position: dialling all endpoints of one priority
doesn't advance the position of the next.
Rule 3: dials are counted from their beginning only if a limit or a strategy depends on loads.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from types import MappingProxyType
from typing import cast

from ..balance import (
    AffinityTables,
    Balancer,
    Limited,
    Load,
    Preferred,
    SplitBalancer,
    Strategy,
    Weights,
    make_strategy,
)
from ..facts import CounterTable
from ..model import Balance, SocketAddress
from ..model.serving import Serving

# Cost: all Service ports whose dials aren't counted share this mapping.
_NONE_DIALLING = cast("dict[SocketAddress, int]", MappingProxyType({}))


class Balancers:
    """The balancers of one Service port, and the loads of its endpoints in this worker.

    Args:
        serving: The initial value; :meth:`change` replaces it.
        table: Counts the open connections.
        start: The initial round-robin position, and the index of this process.
        processes: How many processes share a limit.
        entries: The worker's affinity tables.
        service: The name of the Service, whose ports may share affinity entries.
    """

    __slots__ = (
        "_dialling",
        "_entries",
        "_processes",
        "_service",
        "_serving",
        "_start",
        "_table",
        "_weights",
        "current",
        "limit",
        "tracks_loads",
    )

    def __init__(
        self,
        serving: Serving,
        table: CounterTable,
        *,
        start: int = 0,
        processes: int = 1,
        entries: AffinityTables | None = None,
        service: str = "",
    ) -> None:
        self._service = service
        self._serving = serving
        self._table = table
        self._start = start
        self._processes = processes
        self._entries = entries
        self._dialling = _NONE_DIALLING
        self.limit: int | None = None
        """This worker's maximum number of connections per endpoint; None for no limit."""
        self.tracks_loads = False
        """Whether dials must be counted."""
        self._set_limit()
        self._weights = Weights(dict(serving.weights), serving.handling.slow_start_s)
        self.current: Balancer | SplitBalancer = self._make(serving.endpoints)
        """The balancer that picks the next endpoint."""
        self.change(serving, 0.0)

    def change(self, serving: Serving, now: float) -> None:
        """Apply a new ``Serving``; the slow start of new endpoints begins at ``now``."""
        old, self._serving, before = self._serving, serving, self.current
        inner, outer = (
            (before.inner, before.outer) if isinstance(before, SplitBalancer) else (before, None)
        )
        was_weighted = bool(self._weights)
        self._weights.configure(dict(serving.weights), serving.handling.slow_start_s, now)
        is_other_strategy = (
            serving.handling.balance is not old.handling.balance
            or serving.handling.seed != old.handling.seed
            or serving.handling.max_connections != old.handling.max_connections
            or bool(self._weights) is not was_weighted
        )
        if is_other_strategy:
            self._set_limit()
        self._update(inner, serving.endpoints, is_other_strategy=is_other_strategy)
        self.current = inner
        if serving.outside is not None:
            if outer is None:
                outer = self._make(serving.outside)
            else:
                self._update(outer, serving.outside, is_other_strategy=is_other_strategy)
            self.current = SplitBalancer(inner, outer, serving.inside)
        elif outer is not None:
            outer.forget_entries()
        if self._weights.may_grow:
            self._weights.keep(frozenset(serving.all_endpoints))
            self._weights.begin(serving.newcomers(frozenset(old.all_endpoints)), now)

    def restart(self, endpoint: SocketAddress, now: float) -> None:
        """Begin the slow start of a recovered endpoint, if the Service has a slow start."""
        if self._weights.may_grow:
            others = frozenset(self._serving.all_endpoints) - {endpoint}
            self._weights.begin(self._serving.newcomers(others), now)

    def load_of(self, endpoint: SocketAddress) -> int:
        """Return the number of this worker's connections to an endpoint, plus its counted dials."""
        return self._table.counters_of(endpoint).active + self._dialling.get(endpoint, 0)

    def is_full(self, endpoint: SocketAddress) -> bool:
        return self.limit is not None and self.load_of(endpoint) >= self.limit

    def dial_began(self, endpoint: SocketAddress) -> None:
        """Count a dial; call only if ``tracks_loads``."""
        if self._dialling is _NONE_DIALLING:
            self._dialling = {}
        self._dialling[endpoint] = self._dialling.get(endpoint, 0) + 1

    def dial_ended(self, endpoint: SocketAddress) -> None:
        """Remove a counted dial; call this even if dials are no longer tracked."""
        self._dialling[endpoint] -= 1
        if not self._dialling[endpoint]:
            del self._dialling[endpoint]

    def is_at_limit(self, client: str, now: float, tried: Collection[SocketAddress]) -> bool:
        return self.limit is not None and self.current.is_at_limit(client, now, tried=tried)

    def serves_everyone(self, endpoint: SocketAddress) -> bool:
        """Return whether new connections of all clients may use an endpoint."""
        balancer = self.current
        balancers = (
            (balancer.inner, balancer.outer) if isinstance(balancer, SplitBalancer) else (balancer,)
        )
        return all(each.serves("", endpoint) for each in balancers)

    def prefer(self, endpoint: SocketAddress) -> None:
        """Pick an endpoint for the next unpinned client inside the cluster that may use it."""
        balancer = self.current.inner if isinstance(self.current, SplitBalancer) else self.current
        first, others = balancer.strategy, balancer.standby_strategies

        def end() -> None:
            balancer.strategy = first
            # An update may have added priorities since; keep their strategies.
            added = balancer.standby_strategies[len(others) :]
            balancer.standby_strategies = (*others, *added)

        balancer.strategy = Preferred(endpoint, first, end)
        balancer.standby_strategies = tuple(Preferred(endpoint, each, end) for each in others)

    def _make(self, endpoints: Sequence[SocketAddress]) -> Balancer:
        balancer = Balancer(weights=self._weights, entries=self._entries)
        self._update(balancer, endpoints, is_other_strategy=True)
        return balancer

    def _update(
        self, balancer: Balancer, endpoints: Sequence[SocketAddress], *, is_other_strategy: bool
    ) -> None:
        serving, standbys = self._serving, dict(self._serving.standbys)
        if is_other_strategy:
            balancer.strategy = self._make_strategy()
        # Each priority after the first has a strategy of its own.
        kept = balancer.standby_strategies if standbys and not is_other_strategy else ()
        added = range(len(set(standbys.values())) - len(kept))
        balancer.standby_strategies = (*kept, *(self._make_strategy() for _ in added))
        balancer.is_full = None if self.limit is None else self.is_full
        balancer.update(
            endpoints,
            affinity_timeout_s=serving.affinity_timeout_s,
            standbys=standbys,
            shares_as=self._service if serving.handling.shares_affinity else "",
        )

    def _make_strategy(self) -> Strategy:
        handling = self._serving.handling
        balance = handling.balance
        if self.limit is not None and balance is Balance.ROUND_ROBIN:
            # With limits, a new connection must go to the endpoint with the most room, which round
            # robin doesn't find.
            balance = Balance.LEAST_CONNECTIONS
        start = self._start + handling.seed
        # A random generator is created only if needed: its state takes 2.5 KiB.
        strategy = make_strategy(
            balance, self._weights, self._follow_loads, start, chance=random.Random
        )
        return strategy if self.limit is None else Limited(strategy, self.is_full)

    def _follow_loads(self) -> Load:
        """Return the function that returns endpoints' loads, and count dials from now on."""
        self.tracks_loads = True
        return self.load_of

    def _set_limit(self) -> None:
        """Set this worker's share of the limit, at least 1; count dials only with a limit."""
        limit = self._serving.handling.max_connections
        if limit is not None:
            share, rest = divmod(limit, self._processes)
            limit = max(1, share + (self._start % self._processes < rest))
        self.limit = limit
        self.tracks_loads = limit is not None
