"""Two by lot, and the less loaded of them."""

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from userspace_proxy.balance import PowerOfTwoChoices

from ..model.samples import POD_A, POD_B, POD_C

PODS = (POD_A, POD_B, POD_C)


class Lots:
    """Returns the numbers of the test, and records the bounds."""

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
        pytest.param((0, 0), {POD_A: 3, POD_B: 1}, POD_B, id="the-second-has-fewer"),
        pytest.param((0, 0), {POD_A: 1, POD_B: 3}, POD_A, id="the-first-has-fewer"),
        pytest.param((2, 0), {POD_A: 2, POD_C: 2}, POD_C, id="equal-ones-the-first"),
        pytest.param((1, 1), {POD_A: 0, POD_B: 9, POD_C: 8}, POD_C, id="the-idle-one-not-drawn"),
    ],
)
def test_the_less_loaded_of_the_two_is_picked(drawn, busy, expected):
    strategy = PowerOfTwoChoices(lambda pod: busy.get(pod, 0), Lots(*drawn))
    assert strategy.pick(PODS) == expected


def test_two_different_endpoints_are_drawn():
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
def test_without_a_choice_no_number_is_drawn(endpoints, skip, expected):
    assert PowerOfTwoChoices(idle, Lots()).pick(endpoints, skip=skip) == expected


@given(seed=st.integers(), data=st.data(), count=st.integers(2, 6))
def test_skipped_endpoints_are_never_picked(seed, data, count):
    endpoints = [POD_A._replace(port=port) for port in range(count)]
    skip = data.draw(st.sets(st.sampled_from(endpoints), max_size=count - 1))
    strategy = PowerOfTwoChoices(idle, random.Random(seed))
    assert {strategy.pick(endpoints, skip=skip) for _ in range(10)} <= set(endpoints) - skip


@given(seed=st.integers(), loads=st.lists(st.integers(0, 99), min_size=2, max_size=8, unique=True))
def test_the_busiest_is_never_picked(seed, loads):
    by_pod = {POD_A._replace(port=port): load for port, load in enumerate(loads)}
    strategy = PowerOfTwoChoices(by_pod.__getitem__, random.Random(seed))
    busiest = max(by_pod, key=by_pod.__getitem__)
    assert busiest not in {strategy.pick(list(by_pod)) for _ in range(20)}


def test_a_thousand_connections_are_nearly_even():
    load, endpoints = Counter(), [POD_A._replace(port=port) for port in range(10)]
    strategy = PowerOfTwoChoices(load.__getitem__, random.Random(7))
    for _ in range(1000):
        load[strategy.pick(endpoints)] += 1
    assert max(load.values()) - min(load.values()) <= 5


@pytest.mark.parametrize("left", [1, 2, 20])
def test_of_many_endpoints_those_that_are_not_skipped_are_picked_by_load(left):
    many = [POD_A._replace(port=number) for number in range(40)]
    strategy = PowerOfTwoChoices(lambda pod: pod == many[0], random.Random(7))
    picked = {strategy.pick(many, skip=set(many[left:])) for _ in range(1000)}
    assert picked == (set(many[1:left]) or {many[0]})
