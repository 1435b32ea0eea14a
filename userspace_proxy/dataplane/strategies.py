"""Makes the strategy that a Service's annotations ask for."""

from __future__ import annotations

import random
from collections.abc import Callable

from ..balance import (
    LeastConnections,
    PowerOfTwoChoices,
    RandomChoice,
    RoundRobin,
    SourceHash,
    Strategy,
    WeightedLeastConnections,
    WeightedPowerOfTwoChoices,
    WeightedRandomChoice,
    WeightedRoundRobin,
    Weights,
)
from ..model import Balance, SocketAddress

BY_LOAD = (Balance.LEAST_CONNECTIONS, Balance.POWER_OF_TWO_CHOICES)
"""Those for which dials must be counted."""


def make_strategy(
    balance: Balance, weights: Weights, load: Callable[[SocketAddress], int], start: int
) -> Strategy:
    """Return a strategy; it follows changes of the weights.

    Args:
        weights: If there are none, a strategy is returned that doesn't look at them.
        load: Returns how many connections an endpoint has, pending dials included.
        start: The position of the first turn, and the seed of random choices.
    """
    # Random numbers are created only if needed: their state takes 2.5 KiB.
    match balance, bool(weights):
        case Balance.LEAST_CONNECTIONS, False:
            return LeastConnections(load, start)
        case Balance.LEAST_CONNECTIONS, True:
            return WeightedLeastConnections(load, weights, start)
        case Balance.POWER_OF_TWO_CHOICES, False:
            return PowerOfTwoChoices(load, random.Random(start))
        case Balance.POWER_OF_TWO_CHOICES, True:
            return WeightedPowerOfTwoChoices(load, weights, random.Random(start))
        case Balance.RANDOM, False:
            return RandomChoice(random.Random(start))
        case Balance.RANDOM, True:
            return WeightedRandomChoice(weights, random.Random(start))
        case Balance.SOURCE_HASH, _:
            return SourceHash(weights)
        case _, True:
            return WeightedRoundRobin(weights, start)
    return RoundRobin(start)
