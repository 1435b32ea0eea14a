"""Makes the strategy for a balance, with or without weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import assert_never

from ..model import Balance, SocketAddress
from .least_connections import LeastConnections, WeightedLeastConnections
from .random_choice import (
    PowerOfTwoChoices,
    RandomChoice,
    RandomNumbers,
    WeightedPowerOfTwoChoices,
    WeightedRandomChoice,
)
from .round_robin import RoundRobin, WeightedRoundRobin
from .source_hash import SourceHash
from .strategy import Strategy
from .weights import Weights

Load = Callable[[SocketAddress], int]
"""Returns how many connections an endpoint has, pending dials included."""


def make_strategy(
    balance: Balance,
    weights: Weights,
    loads: Callable[[], Load],
    start: int,
    *,
    chance: Callable[[int], RandomNumbers],
) -> Strategy:
    """Return a strategy that follows changes of the weights.

    Args:
        weights: If empty, only ``SOURCE_HASH`` follows their later changes.
        loads: Returns the loads, and starts counting dials; called only if the strategy uses loads.
        start: The initial round-robin position, or the seed of random choices.
        chance: Makes random numbers from a seed; called only if the strategy uses them.
    """
    match balance:
        case Balance.ROUND_ROBIN:
            return WeightedRoundRobin(weights, start) if weights else RoundRobin(start)
        case Balance.LEAST_CONNECTIONS:
            if weights:
                return WeightedLeastConnections(loads(), weights, start)
            return LeastConnections(loads(), start)
        case Balance.POWER_OF_TWO_CHOICES:
            if weights:
                return WeightedPowerOfTwoChoices(loads(), weights, chance(start))
            return PowerOfTwoChoices(loads(), chance(start))
        case Balance.RANDOM:
            rng = chance(start)
            return WeightedRandomChoice(weights, rng) if weights else RandomChoice(rng)
        case Balance.SOURCE_HASH:
            return SourceHash(weights)
        case _:
            assert_never(balance)
