"""Tests of random choice and power of two choices, with and without weights."""

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from userspace_proxy.balance import (
    PowerOfTwoChoices,
    RandomChoice,
    WeightedPowerOfTwoChoices,
    WeightedRandomChoice,
    Weights,
)

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
def test_a_random_choice_picks_no_skipped_endpoint(endpoints, skip, expected):
    strategy = RandomChoice(random.Random(7))
    assert {strategy.pick(endpoints, skip=skip) for _ in range(50)} == expected


def test_a_random_choice_picks_each_endpoint_with_equal_probability():
    strategy = RandomChoice(random.Random(7))
    picked = Counter(strategy.pick(PODS) for _ in range(3000))
    assert all(900 < count < 1100 for count in picked.values())


def test_random_choices_with_equal_seeds_are_equal():
    first, second = (RandomChoice(random.Random(7)) for _ in range(2))
    assert [first.pick(PODS) for _ in range(50)] == [second.pick(PODS) for _ in range(50)]


@pytest.mark.parametrize("left", [1, 20])
def test_a_random_choice_among_many_endpoints_picks_no_skipped_endpoint(left):
    strategy, many = RandomChoice(random.Random(7)), [POD_A._replace(port=n) for n in range(40)]
    picked = {strategy.pick(many, skip=set(many[left:])) for _ in range(1000)}
    assert picked == set(many[:left])


class Lots:
    """A random generator that returns the test's numbers, and records the limits."""

    def __init__(self, *drawn):
        self.drawn = list(drawn)
        self.stops = []

    def randrange(self, stop):
        self.stops.append(stop)
        return self.drawn.pop(0)


def idle(_endpoint):
    return 0


@pytest.mark.parametrize(
    ("drawn", "busy", "expected"),
    [
        pytest.param((0, 0), {POD_A: 3, POD_B: 1}, POD_B, id="second-has-fewer"),
        pytest.param((0, 0), {POD_A: 1, POD_B: 3}, POD_A, id="first-has-fewer"),
        pytest.param((2, 0), {POD_A: 2, POD_C: 2}, POD_C, id="equal-loads"),
        pytest.param((1, 1), {POD_A: 0, POD_B: 9, POD_C: 8}, POD_C, id="idle-endpoint-not-drawn"),
    ],
)
def test_the_less_loaded_of_two_drawn_endpoints_is_picked(drawn, busy, expected):
    strategy = PowerOfTwoChoices(lambda pod: busy.get(pod, 0), Lots(*drawn))
    assert strategy.pick(PODS) == expected


def test_power_of_two_choices_draws_two_different_endpoints():
    lots = Lots(1, 1)
    seen = []
    PowerOfTwoChoices(lambda pod: seen.append(pod) or 0, lots).pick(PODS)
    assert lots.stops == [3, 2]
    assert sorted(seen) == [POD_B, POD_C]


@pytest.mark.parametrize(
    ("endpoints", "skip", "expected"),
    [
        pytest.param((), None, None, id="no-endpoints"),
        pytest.param(PODS, set(PODS), None, id="all-skipped"),
        pytest.param((POD_B,), None, POD_B, id="one-endpoint"),
        pytest.param(PODS, {POD_A, POD_B}, POD_C, id="one-left"),
    ],
)
def test_without_two_candidates_no_random_number_is_drawn(endpoints, skip, expected):
    assert PowerOfTwoChoices(idle, Lots()).pick(endpoints, skip=skip) == expected


@given(seed=st.integers(), loads=st.lists(st.integers(0, 99), min_size=2, max_size=8, unique=True))
def test_power_of_two_choices_never_picks_the_most_loaded_endpoint(seed, loads):
    by_pod = {POD_A._replace(port=port): load for port, load in enumerate(loads)}
    strategy = PowerOfTwoChoices(by_pod.__getitem__, random.Random(seed))
    busiest = max(by_pod, key=by_pod.__getitem__)
    assert busiest not in {strategy.pick(list(by_pod)) for _ in range(20)}


@pytest.mark.parametrize("left", [1, 2, 20])
def test_power_of_two_choices_among_many_endpoints_picks_no_skipped_endpoint(left):
    many = [POD_A._replace(port=number) for number in range(40)]
    strategy = PowerOfTwoChoices(lambda pod: pod == many[0], random.Random(7))
    picked = {strategy.pick(many, skip=set(many[left:])) for _ in range(1000)}
    assert picked == (set(many[1:left]) or {many[0]})


class EachNumber:
    """A random generator that returns each number equally often."""

    def __init__(self, step=1):
        self._next, self._step = 0, step

    def randrange(self, stop, /):
        self._next += self._step
        return self._next % stop


def test_each_endpoint_is_picked_in_proportion_to_its_weight():
    # A prime step visits all numbers below 6,000.
    strategy = WeightedRandomChoice(Weights({POD_A: 1, POD_B: 2, POD_C: 3}), EachNumber(7))
    counts = Counter(strategy.pick(PODS) for _ in range(6000))
    assert counts == {POD_A: 1000, POD_B: 2000, POD_C: 3000}


def test_new_weights_affect_a_random_choice_immediately():
    weights = Weights({POD_A: 1, POD_B: 65535})
    strategy = WeightedRandomChoice(weights, EachNumber(999_983))
    pods = PODS[:2]
    assert Counter(strategy.pick(pods) for _ in range(60)) == {POD_B: 60}
    weights.configure({POD_A: 65535, POD_B: 1})
    assert Counter(strategy.pick(pods) for _ in range(60)) == {POD_A: 60}


@pytest.mark.parametrize(
    "strategy",
    [
        WeightedRandomChoice(Weights({POD_A: 5}), EachNumber(7919)),
        WeightedPowerOfTwoChoices(lambda _: 0, Weights({POD_A: 5}), EachNumber(7919)),
    ],
)
def test_a_weighted_random_choice_picks_no_skipped_endpoint(strategy):
    assert {strategy.pick(PODS, skip={POD_B}) for _ in range(500)} == {POD_A, POD_C}
    assert strategy.pick(PODS, skip={POD_A, POD_B}) == POD_C
    assert strategy.pick(PODS, skip=PODS) is None
    assert strategy.pick(()) is None


def test_the_endpoint_with_less_load_per_weight_is_picked():
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
def test_weighted_power_of_two_choices_compares_two_distinct_endpoints(heavy):
    loads = {pod: 9 if pod is heavy else 0 for pod in PODS}
    weights = Weights({pod: 65535 if pod is heavy else 60000 for pod in PODS})
    strategy = WeightedPowerOfTwoChoices(loads.__getitem__, weights, EachNumber(7_654_321))
    assert {strategy.pick(PODS) for _ in range(200)} == set(PODS) - {heavy}


@pytest.mark.parametrize("left", [1, 2, 20])
def test_weighted_choices_among_many_endpoints_pick_no_skipped_endpoint(left):
    many = [POD_A._replace(port=number) for number in range(40)]
    weights, skip = Weights({many[0]: 1}), set(many[left:])
    by_chance = WeightedRandomChoice(weights, EachNumber(7919))
    assert {by_chance.pick(many, skip=skip) for _ in range(9000)} == set(many[:left])
    by_load = WeightedPowerOfTwoChoices(lambda pod: pod == many[0], weights, EachNumber(7919))
    picked = {by_load.pick(many, skip=skip) for _ in range(3000)}
    assert picked == (set(many[1:left]) or {many[0]})
