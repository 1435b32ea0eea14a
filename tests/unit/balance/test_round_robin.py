"""Turns: strict, kept, and fair."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from userspace_proxy.balance import RoundRobin

from ..model.samples import POD_A, POD_B, POD_C

PODS = (POD_A, POD_B, POD_C)


def picks(turns, endpoints, count, **options):
    return [turns.pick(endpoints, **options) for _ in range(count)]


def test_endpoints_are_picked_in_turn():
    assert picks(RoundRobin(), PODS, 7) == [*PODS, *PODS, POD_A]


@pytest.mark.parametrize(
    ("start", "first"),
    [
        pytest.param(0, POD_A, id="at-the-first"),
        pytest.param(2, POD_C, id="at-the-last"),
        pytest.param(7, POD_B, id="beyond-the-end"),
    ],
)
def test_the_first_turn_is_the_start_position(start, first):
    assert RoundRobin(start).pick(PODS) == first


@pytest.mark.parametrize(
    ("endpoints", "skip"),
    [
        pytest.param((), (), id="no-endpoints"),
        pytest.param(PODS, set(PODS), id="all-skipped"),
    ],
)
def test_when_all_are_skipped_none_is_picked(endpoints, skip):
    assert RoundRobin().pick(endpoints, skip=skip) is None


def test_a_pick_without_a_result_takes_no_turn():
    turns = RoundRobin(1)
    turns.pick(PODS, skip=PODS)
    assert turns.pick(PODS) == POD_B


def test_a_skipped_endpoint_loses_its_turn_to_the_next():
    turns = RoundRobin()
    assert picks(turns, PODS, 4, skip={POD_B}) == [POD_A, POD_C, POD_A, POD_C]


def test_the_turn_survives_an_update_of_the_endpoints():
    turns = RoundRobin()
    assert picks(turns, PODS, 2) == [POD_A, POD_B]
    assert picks(turns, (*PODS, POD_A._replace(port=9090)), 2) == [
        POD_C,
        POD_A._replace(port=9090),
    ]


def test_a_turn_beyond_the_last_endpoint_starts_over():
    turns = RoundRobin()
    picks(turns, PODS, 3)
    assert picks(turns, (POD_A, POD_B), 3) == [POD_B, POD_A, POD_B]


@given(
    count=st.integers(1, 9),
    start=st.integers(0, 20),
    before=st.integers(0, 30),
    window=st.integers(1, 60),
)
def test_in_any_window_no_endpoint_is_picked_two_times_more_than_another(
    count, start, before, window
):
    turns, endpoints = RoundRobin(start), [POD_A._replace(port=port) for port in range(count)]
    picks(turns, endpoints, before)
    times = Counter(picks(turns, endpoints, window))
    assert max(times.values()) - min(times[e] for e in endpoints) <= 1


@given(st.data())
def test_endpoints_that_are_not_skipped_get_equal_shares(data):
    endpoints = [POD_A._replace(port=port) for port in range(data.draw(st.integers(2, 6)))]
    skip = data.draw(st.sets(st.sampled_from(endpoints), max_size=len(endpoints) - 1))
    times = Counter(picks(RoundRobin(data.draw(st.integers(0, 9))), endpoints, 20, skip=skip))
    assert set(times) <= set(endpoints) - skip
    assert max(times.values()) - min(times[e] for e in endpoints if e not in skip) <= 1
