"""Tests of the order, the position and the shares of round robin."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from userspace_proxy.balance import RoundRobin, WeightedRoundRobin, Weights

from ..model.samples import POD_A, POD_B, POD_C

PODS = (POD_A, POD_B, POD_C)


def picks(turns, endpoints, count, **options):
    return [turns.pick(endpoints, **options) for _ in range(count)]


def test_endpoints_are_picked_in_turn():
    assert picks(RoundRobin(), PODS, 7) == [*PODS, *PODS, POD_A]


@pytest.mark.parametrize(
    ("endpoints", "skip"),
    [
        pytest.param((), (), id="no-endpoints"),
        pytest.param(PODS, set(PODS), id="all-skipped"),
    ],
)
def test_pick_returns_none_if_all_endpoints_are_skipped(endpoints, skip):
    assert RoundRobin().pick(endpoints, skip=skip) is None


def test_a_pick_that_returns_none_does_not_advance_the_round_robin():
    turns = RoundRobin(1)
    turns.pick(PODS, skip=PODS)
    assert turns.pick(PODS) == POD_B


def test_a_skipped_endpoint_loses_its_turn_to_the_next_endpoint():
    turns = RoundRobin()
    assert picks(turns, PODS, 4, skip={POD_B}) == [POD_A, POD_C, POD_A, POD_C]


@given(
    count=st.integers(1, 9),
    start=st.integers(0, 20),
    before=st.integers(0, 30),
    window=st.integers(1, 60),
)
def test_endpoint_counts_differ_by_at_most_one_in_any_window(count, start, before, window):
    turns, endpoints = RoundRobin(start), [POD_A._replace(port=port) for port in range(count)]
    picks(turns, endpoints, before)
    times = Counter(picks(turns, endpoints, window))
    assert max(times.values()) - min(times[e] for e in endpoints) <= 1


def turns_of(*weights, start=0):
    """Return a strategy for POD_A, POD_B and so on, with these weights."""
    return WeightedRoundRobin(Weights(dict(zip(PODS, weights, strict=False))), start)


def picks_by_weight(strategy, count, endpoints=PODS, skip=None):
    return [strategy.pick(endpoints, skip=skip) for _ in range(count)]


def test_turns_of_unequal_weights_are_spread_evenly():
    a, b = POD_A, POD_B
    assert picks_by_weight(turns_of(5, 1), 12, (POD_A, POD_B)) == [
        a,
        a,
        a,
        b,
        a,
        a,
        a,
        a,
        a,
        b,
        a,
        a,
    ]


def test_endpoints_with_equal_weights_take_turns_in_order():
    assert picks_by_weight(turns_of(7, 7, 7), 6) == [*PODS, *PODS]


@pytest.mark.parametrize("start", [2, 5])
def test_round_robin_begins_at_the_start_position(start):
    assert picks_by_weight(turns_of(7, 7, 7, start=start), 2) == [POD_C, POD_A]


def test_pick_returns_none_without_endpoints():
    assert picks_by_weight(turns_of(1, start=3), 1, ()) == [None]
    assert picks_by_weight(turns_of(1, 2, 3), 1, skip=PODS) == [None]


def test_an_endpoint_skipped_for_some_time_gets_no_additional_turns():
    strategy, pods = turns_of(1, 1), (POD_A, POD_B)
    picks_by_weight(strategy, 100, pods, skip={POD_A})
    assert picks_by_weight(strategy, 100, pods).count(POD_A) in (50, 51)


def test_changed_weights_apply_to_the_following_turns():
    weights, pods = Weights({POD_A: 1, POD_B: 1}), (POD_A, POD_B)
    strategy = WeightedRoundRobin(weights)
    picks_by_weight(strategy, 3, pods)
    weights.configure({POD_A: 300, POD_B: 100})
    assert abs(picks_by_weight(strategy, 40, pods).count(POD_A) - 30) <= 1


def test_turns_continue_when_endpoints_are_added_and_removed():
    strategy = turns_of(10, 10, 10, start=2)
    assert picks_by_weight(strategy, 1, (POD_A, POD_B)) == [POD_A]
    assert picks_by_weight(strategy, 1, (POD_A, POD_B, POD_C)) == [POD_B], "A has had its turn"
    assert picks_by_weight(strategy, 2, (POD_A, POD_C)) == [POD_C, POD_A]


@pytest.mark.parametrize("start", [0, 1])
def test_turns_continue_when_all_endpoints_leave_and_return(start):
    undisturbed, strategy = turns_of(2, 2, 1, start=start), turns_of(2, 2, 1, start=start)
    found = []
    for _ in range(10):
        assert picks_by_weight(strategy, 1, ()) == [None], "a client asks meanwhile"
        found += picks_by_weight(strategy, 1)
    assert found == picks_by_weight(undisturbed, 10)


WEIGHTS = st.lists(st.integers(1, 65535), min_size=1, max_size=3)


@given(WEIGHTS, st.integers(1, 300), st.integers(0, 5))
def test_shares_of_turns_match_the_weights_after_any_number_of_picks(weights, count, start):
    pods = PODS[: len(weights)]
    counts = Counter(picks_by_weight(turns_of(*weights, start=start), count, pods))
    for pod, weight in zip(pods, weights, strict=True):
        # Webster's method deviates from the quota by one or more only in rare cases.
        assert abs(counts[pod] - count * weight / sum(weights)) < 2


@given(st.data())
def test_after_arbitrary_changes_the_shares_soon_match_the_weights(data):
    weights = Weights({POD_A: 3, POD_B: 2, POD_C: 1})
    strategy = WeightedRoundRobin(weights)
    for _ in range(data.draw(st.integers(0, 20))):
        endpoints = tuple(data.draw(st.lists(st.sampled_from(PODS), unique=True)))
        skip = data.draw(st.sets(st.sampled_from(PODS)))
        picked = strategy.pick(endpoints, skip=skip)
        assert picked is None if set(endpoints) <= skip else picked in set(endpoints) - skip
    counts = Counter(picks_by_weight(strategy, 60))
    assert all(abs(counts[pod] - share) <= 2 for pod, share in zip(PODS, (30, 20, 10), strict=True))
