from random import Random

import pytest

from userspace_proxy.balance import (
    LeastConnections,
    PowerOfTwoChoices,
    RandomChoice,
    RoundRobin,
    SourceHash,
    WeightedLeastConnections,
    WeightedPowerOfTwoChoices,
    WeightedRandomChoice,
    WeightedRoundRobin,
    Weights,
    make_strategy,
)
from userspace_proxy.model import Balance

from ..model.samples import POD_A, POD_B

STRATEGIES = {
    Balance.ROUND_ROBIN: (RoundRobin, WeightedRoundRobin),
    Balance.RANDOM: (RandomChoice, WeightedRandomChoice),
    Balance.LEAST_CONNECTIONS: (LeastConnections, WeightedLeastConnections),
    Balance.POWER_OF_TWO_CHOICES: (PowerOfTwoChoices, WeightedPowerOfTwoChoices),
    Balance.SOURCE_HASH: (SourceHash, SourceHash),
}


@pytest.mark.parametrize("balance", Balance)
def test_each_balance_has_a_strategy_with_and_without_weights(balance):
    plain, weighted = STRATEGIES[balance]
    load = {POD_A: 1, POD_B: 1}.__getitem__
    for weights, expected in ((Weights(), plain), (Weights({POD_A: 5}), weighted)):
        strategy = make_strategy(balance, weights, lambda: load, 1, chance=Random)
        assert type(strategy) is expected
        assert strategy.pick((POD_A, POD_B)) in (POD_A, POD_B)


def test_a_balance_without_a_strategy_is_an_error():
    with pytest.raises(AssertionError, match="first"):
        make_strategy("first", Weights(), dict, 1, chance=Random)
