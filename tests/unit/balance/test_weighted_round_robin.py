"""Turns in proportion to weights, and spread evenly."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from userspace_proxy.balance import WeightedRoundRobin, Weights

from ..model.samples import POD_A, POD_B, POD_C

PODS = (POD_A, POD_B, POD_C)


def turns_of(*weights, start=0):
    """Return a strategy for POD_A, POD_B and so on, with these weights."""
    return WeightedRoundRobin(Weights(dict(zip(PODS, weights, strict=False))), start)


def picks(strategy, count, endpoints=PODS, skip=None):
    return [strategy.pick(endpoints, skip=skip) for _ in range(count)]


def test_turns_are_spread_evenly():
    a, b = POD_A, POD_B
    assert picks(turns_of(5, 1), 12, (POD_A, POD_B)) == [a, a, a, b, a, a, a, a, a, b, a, a]


def test_equal_weights_take_turns_in_order():
    assert picks(turns_of(7, 7, 7), 6) == [*PODS, *PODS]


@pytest.mark.parametrize("start", [2, 5])
def test_it_begins_where_earlier_turns_ended(start):
    assert picks(turns_of(7, 7, 7, start=start), 2) == [POD_C, POD_A]


def test_without_endpoints_none_is_picked():
    assert picks(turns_of(1, start=3), 1, ()) == [None]
    assert picks(turns_of(1, 2, 3), 1, skip=PODS) == [None]


def test_one_that_was_skipped_does_not_catch_up():
    strategy = turns_of(1, 1)
    picks(strategy, 100, (POD_A, POD_B), skip={POD_A})
    assert picks(strategy, 100, (POD_A, POD_B)).count(POD_A) <= 51


def test_turns_go_on_when_weights_change():
    weights = Weights({POD_A: 1, POD_B: 1})
    strategy = WeightedRoundRobin(weights)
    picks(strategy, 3, (POD_A, POD_B))
    weights.configure({POD_A: 300, POD_B: 100})
    assert abs(picks(strategy, 40, (POD_A, POD_B)).count(POD_A) - 30) <= 1


def test_turns_go_on_when_an_endpoint_is_added_and_one_goes():
    strategy = turns_of(10, 10, 10)
    assert picks(strategy, 1, (POD_A, POD_B)) == [POD_A]
    assert picks(strategy, 1, (POD_A, POD_B, POD_C)) == [POD_B], "A has had its turn"
    assert picks(strategy, 2, (POD_A, POD_C)) == [POD_C, POD_A]


WEIGHTS = st.lists(st.integers(1, 65535), min_size=1, max_size=3)


@given(WEIGHTS, st.integers(1, 300), st.integers(0, 5))
def test_after_any_number_of_picks_the_shares_are_those_of_the_weights(weights, count, start):
    pods = PODS[: len(weights)]
    counts = Counter(picks(turns_of(*weights, start=start), count, pods))
    for pod, weight in zip(pods, weights, strict=True):
        # Webster's method stays within the quota but for rare cases, and within one of it.
        assert abs(counts[pod] - count * weight / sum(weights)) < 2


@given(st.data())
def test_whatever_happens_the_shares_are_soon_right_again(data):
    weights = Weights({POD_A: 3, POD_B: 2, POD_C: 1})
    strategy = WeightedRoundRobin(weights)
    for _ in range(data.draw(st.integers(0, 20))):
        endpoints = tuple(data.draw(st.lists(st.sampled_from(PODS), unique=True)))
        skip = data.draw(st.sets(st.sampled_from(PODS)))
        picked = strategy.pick(endpoints, skip=skip)
        assert picked is None if set(endpoints) <= skip else picked in set(endpoints) - skip
    counts = Counter(picks(strategy, 60))
    assert all(abs(counts[pod] - share) <= 2 for pod, share in zip(PODS, (30, 20, 10), strict=True))
