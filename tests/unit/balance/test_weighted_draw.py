"""Random choices by weight."""

from collections import Counter

import pytest

from userspace_proxy.balance import WeightedPowerOfTwoChoices, WeightedRandomChoice, Weights

from ..model.samples import POD_A, POD_B, POD_C

PODS = (POD_A, POD_B, POD_C)


class EachNumber:
    """Every number in turn, so that each is as frequent as the others."""

    def __init__(self, step=1):
        self._next, self._step = 0, step

    def randrange(self, stop, /):
        self._next += self._step
        return self._next % stop


def test_each_endpoint_has_a_chance_in_proportion_to_its_weight():
    # A prime step visits all numbers below 6,000.
    strategy = WeightedRandomChoice(Weights({POD_A: 1, POD_B: 2, POD_C: 3}), EachNumber(7))
    counts = Counter(strategy.pick(PODS) for _ in range(6000))
    assert counts == {POD_A: 1000, POD_B: 2000, POD_C: 3000}


def test_new_weights_count_at_once():
    weights = Weights({POD_A: 1, POD_B: 65535})
    strategy = WeightedRandomChoice(weights, EachNumber(999_983))
    assert Counter(strategy.pick(PODS[:2]) for _ in range(60)) == {POD_B: 60}
    weights.configure({POD_A: 65535, POD_B: 1})
    assert Counter(strategy.pick(PODS[:2]) for _ in range(60)) == {POD_A: 60}


@pytest.mark.parametrize(
    "strategy",
    [
        WeightedRandomChoice(Weights({POD_A: 5}), EachNumber(7919)),
        WeightedPowerOfTwoChoices(lambda _: 0, Weights({POD_A: 5}), EachNumber(7919)),
    ],
)
def test_skipped_endpoints_are_not_picked(strategy):
    assert {strategy.pick(PODS, skip={POD_B}) for _ in range(500)} == {POD_A, POD_C}
    assert strategy.pick(PODS, skip={POD_A, POD_B}) == POD_C
    assert strategy.pick(PODS, skip=PODS) is None
    assert strategy.pick(()) is None


def test_of_two_the_one_with_fewer_connections_for_its_weight_is_picked():
    weights = Weights({POD_A: 100, POD_B: 300})
    for loads, expected in (((1, 2), POD_B), ((1, 4), POD_A)):
        load = dict(zip(PODS, loads, strict=False)).__getitem__
        strategy = WeightedPowerOfTwoChoices(load, weights, EachNumber(101))
        assert {strategy.pick((POD_A, POD_B)) for _ in range(50)} == {expected}


def test_idle_endpoints_are_picked_by_weight():
    weights = Weights({POD_A: 1, POD_B: 2, POD_C: 3})
    strategy = WeightedPowerOfTwoChoices(lambda _: 0, weights, EachNumber(7919))
    counts = Counter(strategy.pick(PODS) for _ in range(6000))
    assert all(abs(counts[pod] - 1000 * n) < 100 for n, pod in enumerate(PODS, 1))


@pytest.mark.parametrize("heavy", PODS)
def test_the_two_are_different_ones(heavy):
    loads = {pod: 9 if pod is heavy else 0 for pod in PODS}
    weights = Weights({pod: 65535 if pod is heavy else 60000 for pod in PODS})
    strategy = WeightedPowerOfTwoChoices(loads.__getitem__, weights, EachNumber(7_654_321))
    assert {strategy.pick(PODS) for _ in range(200)} == set(PODS) - {heavy}


@pytest.mark.parametrize("left", [1, 2, 20])
def test_of_many_endpoints_those_that_are_not_skipped_are_picked(left):
    many = [POD_A._replace(port=number) for number in range(40)]
    weights, skip = Weights({many[0]: 1}), set(many[left:])
    by_chance = WeightedRandomChoice(weights, EachNumber(7919))
    assert {by_chance.pick(many, skip=skip) for _ in range(9000)} == set(many[:left])
    by_load = WeightedPowerOfTwoChoices(lambda pod: pod == many[0], weights, EachNumber(7919))
    picked = {by_load.pick(many, skip=skip) for _ in range(3000)}
    assert picked == (set(many[1:left]) or {many[0]})
