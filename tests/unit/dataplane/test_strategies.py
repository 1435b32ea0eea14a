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
)
from userspace_proxy.dataplane.strategies import make_strategy
from userspace_proxy.model import Balance, SocketAddress

POD_A, POD_B = SocketAddress("10.0.0.1", 80), SocketAddress("10.0.0.2", 80)


@pytest.mark.parametrize(
    ("balance", "plain", "weighted"),
    [
        (Balance.ROUND_ROBIN, RoundRobin, WeightedRoundRobin),
        (Balance.RANDOM, RandomChoice, WeightedRandomChoice),
        (Balance.LEAST_CONNECTIONS, LeastConnections, WeightedLeastConnections),
        (Balance.POWER_OF_TWO_CHOICES, PowerOfTwoChoices, WeightedPowerOfTwoChoices),
        (Balance.SOURCE_HASH, SourceHash, SourceHash),
    ],
)
def test_each_balance_has_a_strategy_with_and_without_weights(balance, plain, weighted):
    load = {POD_A: 1, POD_B: 1}.__getitem__
    for weights, expected in ((Weights(), plain), (Weights({POD_A: 5}), weighted)):
        strategy = make_strategy(balance, weights, load, 1)
        assert type(strategy) is expected
        assert strategy.pick((POD_A, POD_B)) in (POD_A, POD_B)
