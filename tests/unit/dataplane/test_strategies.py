"""Strategies, and what an endpoint group makes of weights that grow."""

import errno

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
from userspace_proxy.dataplane import EndpointGroup
from userspace_proxy.dataplane.strategies import make_strategy
from userspace_proxy.model import Balance, Handling, SocketAddress
from userspace_proxy.model.failures import dial_failure
from userspace_proxy.model.serving import Serving

POD_A, POD_B, POD_C = (SocketAddress(f"10.0.0.{number}", 80) for number in (1, 2, 3))
ALICE = "203.0.113.1"


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


SLOWLY = Handling(slow_start_s=50.0)


def shares_of(group, endpoint, *moments, count=110):
    """Return how many of that many connections an endpoint gets at each moment."""
    return [
        sum(group.balancers.current.pick(ALICE, now) == endpoint for _ in range(count))
        for now in moments
    ]


@pytest.mark.parametrize("balance", [Balance.ROUND_ROBIN, Balance.RANDOM])
def test_a_new_endpoint_starts_slowly(balance):
    handling = Handling(balance=balance, slow_start_s=50.0)
    group = EndpointGroup("shop/web:http", Serving((POD_A,), handling=handling))
    group.update(Serving((POD_A, POD_B), handling=handling), 100.0)
    first, half, last = shares_of(group, POD_B, 100.0, 125.0, 150.0)
    leeway = 2 if balance is Balance.ROUND_ROBIN else 15
    assert abs(first - 10) <= leeway
    assert abs(half - 37) <= leeway
    assert abs(last - 55) <= leeway


def test_an_endpoint_that_answers_again_starts_slowly():
    group = EndpointGroup("shop/web:http", Serving((POD_A, POD_B), handling=SLOWLY))
    group.outcomes.failed(POD_B, dial_failure(errno.ECONNREFUSED, POD_B.ip), 0.0)
    group.outcomes.answered(POD_B, 100.0)
    assert abs(shares_of(group, POD_B, 100.0)[0] - 10) <= 1
    group.outcomes.failed(POD_B, dial_failure(errno.ECONNREFUSED, POD_B.ip), 150.0)
    group.outcomes.answered_elsewhere(POD_B, 200.0)
    assert abs(shares_of(group, POD_B, 200.0)[0] - 10) <= 1


def test_a_new_endpoint_gets_fewer_connections_by_load_too():
    handling = Handling(balance=Balance.LEAST_CONNECTIONS, slow_start_s=50.0)
    group = EndpointGroup("shop/web:http", Serving((POD_A,), handling=handling))
    group.counters_of(POD_A).active = 20
    group.update(Serving((POD_A, POD_B), handling=handling), 100.0)
    for _ in range(20):
        group.counters_of(group.balancers.current.pick(ALICE, 100.0)).active += 1
    assert abs(group.counters_of(POD_B).active - 4) <= 1, "A has ten times as many"


def test_where_no_other_endpoint_stays_new_ones_have_full_shares():
    group = EndpointGroup("shop/web:http", Serving((POD_C,), handling=SLOWLY))
    group.update(Serving((POD_A, POD_B), handling=SLOWLY), 100.0)
    assert shares_of(group, POD_B, 100.0) == [55]


def test_an_update_of_other_things_goes_on_with_slow_starts():
    group = EndpointGroup("shop/web:http", Serving((POD_A,), handling=SLOWLY))
    group.update(Serving((POD_A, POD_B), handling=SLOWLY), 100.0)
    group.update(Serving((POD_A, POD_B), affinity_timeout_s=60, handling=SLOWLY), 101.0)
    group.update(Serving((POD_A, POD_B), handling=SLOWLY), 102.0)
    assert abs(shares_of(group, POD_B, 102.0)[0] - 10) <= 1
