"""A random endpoint for each connection."""

import random
from collections import Counter

import pytest

from userspace_proxy.balance import RandomChoice

from ..model.samples import POD_A, POD_B, POD_C

PODS = (POD_A, POD_B, POD_C)


@pytest.mark.parametrize(
    ("endpoints", "skip", "expected"),
    [
        pytest.param((), None, {None}, id="no-endpoints"),
        pytest.param(PODS, set(PODS), {None}, id="all-skipped"),
        pytest.param(PODS, None, set(PODS), id="all"),
        pytest.param(PODS, {POD_B}, {POD_A, POD_C}, id="one-skipped"),
    ],
)
def test_one_of_those_that_are_not_skipped_is_picked(endpoints, skip, expected):
    strategy = RandomChoice(random.Random(7))
    assert {strategy.pick(endpoints, skip=skip) for _ in range(50)} == expected


def test_every_endpoint_has_the_same_chance():
    strategy = RandomChoice(random.Random(7))
    picked = Counter(strategy.pick(PODS) for _ in range(3000))
    assert all(900 < count < 1100 for count in picked.values())


def test_equal_seeds_give_equal_choices():
    first, second = (RandomChoice(random.Random(7)) for _ in range(2))
    assert [first.pick(PODS) for _ in range(50)] == [second.pick(PODS) for _ in range(50)]


@pytest.mark.parametrize("left", [1, 20])
def test_of_many_endpoints_one_that_is_not_skipped_is_picked(left):
    strategy, many = RandomChoice(random.Random(7)), [POD_A._replace(port=n) for n in range(40)]
    picked = {strategy.pick(many, skip=set(many[left:])) for _ in range(1000)}
    assert picked == set(many[:left])
