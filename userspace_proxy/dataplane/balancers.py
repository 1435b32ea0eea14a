"""Builds and updates the balancers of a Service port from its ``Serving``.

    Serving ──change──▶ Balancers ──current──▶ Balancer        all clients use the same endpoints
                          │               or ▶ SplitBalancer   one balancer for each side
                          ├─ Weights: shares of endpoints, which may start slowly
                          └─ Loads: for strategies and limits

Rule 1: a change keeps the round-robin position, and the affinity entries and ejections of remaining
endpoints.
Rule 2: each priority has its own round-robin position: dialling all endpoints of one priority
doesn't advance the position of the next.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Sequence
from typing import assert_never

from ..balance import (
    AffinityTables,
    Balancer,
    LeastConnections,
    Limited,
    PowerOfTwoChoices,
    Preferred,
    RandomChoice,
    RoundRobin,
    SourceHash,
    SplitBalancer,
    Strategy,
    WeightedLeastConnections,
    WeightedPowerOfTwoChoices,
    WeightedRandomChoice,
    WeightedRoundRobin,
    Weights,
)
from ..model import Balance, SocketAddress
from ..model.serving import Serving
from .loads import Load, Loads


class Balancers:
    """The balancers of one Service port.

    Args:
        serving: The initial value; :meth:`change` replaces it.
        loads: The loads of the same endpoints; :meth:`change` updates their limit.
        start: The initial round-robin position.
        entries: The worker's affinity tables.
        service: The name of the Service, whose ports may share affinity entries.
    """

    __slots__ = (
        "_entries",
        "_loads",
        "_service",
        "_serving",
        "_start",
        "_weights",
        "current",
    )

    def __init__(
        self,
        serving: Serving,
        loads: Loads,
        *,
        start: int = 0,
        entries: AffinityTables | None = None,
        service: str = "",
    ) -> None:
        self._service = service
        self._serving = serving
        self._loads = loads
        self._start = start
        self._entries = entries
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
            self._loads.change(serving.handling)
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
        """Begin the slow start of a recovered endpoint."""
        if self._weights.may_grow:
            others = frozenset(self._serving.all_endpoints) - {endpoint}
            self._weights.begin(self._serving.newcomers(others), now)

    def is_at_limit(self, client: str, now: float, tried: Collection[SocketAddress]) -> bool:
        return self._loads.limit is not None and self.current.is_at_limit(client, now, tried=tried)

    def serves(self, client: str, endpoint: SocketAddress) -> bool:
        return self.current.serves(client, endpoint)

    def serves_everyone(self, endpoint: SocketAddress) -> bool:
        """Return whether new connections of all clients may use an endpoint."""
        balancer = self.current
        balancers = (
            (balancer.inner, balancer.outer) if isinstance(balancer, SplitBalancer) else (balancer,)
        )
        return all(each.serves("", endpoint) for each in balancers)

    def prefer(self, endpoint: SocketAddress) -> None:
        """Route the next connection that may use an endpoint to it; affinity takes precedence."""
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
        balancer = Balancer(
            endpoints,
            affinity_timeout_s=self._serving.affinity_timeout_s,
            strategy=self._make_strategy(),
            standbys=dict(self._serving.standbys),
            weights=self._weights,
            entries=self._entries,
            shares_as=self._shares_as,
        )
        balancer.standby_strategies = self._make_standby_strategies(())
        balancer.is_full = None if self._loads.limit is None else self._loads.is_full
        return balancer

    def _update(
        self, balancer: Balancer, endpoints: Sequence[SocketAddress], *, is_other_strategy: bool
    ) -> None:
        if is_other_strategy:
            balancer.strategy = self._make_strategy()
        kept = () if is_other_strategy else balancer.standby_strategies
        balancer.standby_strategies = self._make_standby_strategies(kept)
        balancer.is_full = None if self._loads.limit is None else self._loads.is_full
        balancer.update(
            endpoints,
            affinity_timeout_s=self._serving.affinity_timeout_s,
            standbys=dict(self._serving.standbys),
            shares_as=self._shares_as,
        )

    @property
    def _shares_as(self) -> str:
        return self._service if self._serving.handling.shares_affinity else ""

    def _make_standby_strategies(self, kept: Sequence[Strategy]) -> Sequence[Strategy]:
        """Return a strategy for each priority after the first; reuse ``kept``."""
        if not self._serving.standbys:
            return ()
        count = len({priority for _, priority in self._serving.standbys})
        return (*kept, *(self._make_strategy() for _ in range(count - len(kept))))

    def _make_strategy(self) -> Strategy:
        handling, loads = self._serving.handling, self._loads
        balance = handling.balance
        if loads.limit is not None and balance is Balance.ROUND_ROBIN:
            # With limits, a new connection must go to the endpoint with the most room, which round
            # robin doesn't find.
            balance = Balance.LEAST_CONNECTIONS
        strategy = make_strategy(balance, self._weights, loads.follow, self._start + handling.seed)
        return strategy if loads.limit is None else Limited(strategy, loads.is_full)


def make_strategy(
    balance: Balance, weights: Weights, loads: Callable[[], Load], start: int
) -> Strategy:
    """Return a strategy that follows changes of the weights.

    Args:
        weights: If empty, the returned strategy ignores them.
        loads: Returns the loads, and starts counting dials; called only if the strategy uses loads.
        start: The initial round-robin position, or the seed of random choices.
    """
    # A random generator is created only if needed: its state takes 2.5 KiB.
    match balance:
        case Balance.ROUND_ROBIN:
            return WeightedRoundRobin(weights, start) if weights else RoundRobin(start)
        case Balance.LEAST_CONNECTIONS:
            if weights:
                return WeightedLeastConnections(loads(), weights, start)
            return LeastConnections(loads(), start)
        case Balance.POWER_OF_TWO_CHOICES:
            if weights:
                return WeightedPowerOfTwoChoices(loads(), weights, random.Random(start))
            return PowerOfTwoChoices(loads(), random.Random(start))
        case Balance.RANDOM:
            chance = random.Random(start)
            return WeightedRandomChoice(weights, chance) if weights else RandomChoice(chance)
        case Balance.SOURCE_HASH:
            return SourceHash(weights)
        case _:
            assert_never(balance)
