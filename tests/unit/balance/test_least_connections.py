"""Tests of picking the least loaded endpoint, in turns if several are equally loaded."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from userspace_proxy.balance import LeastConnections, WeightedLeastConnections, Weights

from ..model.samples import POD_A, POD_B, POD_C

PODS = (POD_A, POD_B, POD_C)


def under(start=0, **loads):
    """Return a strategy for endpoints with these loads, by default 0: ``under(a=1)``."""
    by_pod = {pod: loads.get(name, 0) for name, pod in zip("abc", PODS, strict=True)}
    return LeastConnections(by_pod.__getitem__, start)


@pytest.mark.parametrize(
    ("strategy", "skip", "expected"),
    [
        pytest.param(under(a=2, b=1, c=3), None, POD_B, id="least-loaded"),
        pytest.param(under(a=1, b=1), None, POD_C, id="idle"),
        pytest.param(under(a=2, b=1, c=3), {POD_B}, POD_A, id="least-loaded-is-skipped"),
        pytest.param(under(), None, POD_A, id="first-of-equals"),
        pytest.param(under(2), None, POD_C, id="turn-among-equals"),
        pytest.param(under(7), None, POD_B, id="turn-beyond-the-end"),
        pytest.param(under(1, a=1, b=2, c=1), None, POD_C, id="turn-only-among-equals"),
    ],
)
def test_the_least_loaded_endpoint_is_picked_and_equal_loads_take_turns(strategy, skip, expected):
    assert strategy.pick(PODS, skip=skip) == expected


@pytest.mark.parametrize(
    ("endpoints", "skip"),
    [
        pytest.param((), None, id="no-endpoints"),
        pytest.param(PODS, set(PODS), id="all-skipped"),
    ],
)
def test_pick_returns_none_if_all_endpoints_are_skipped(endpoints, skip):
    strategy = under(1)
    assert strategy.pick(endpoints, skip=skip) is None
    assert strategy.pick(PODS) == POD_B, "the position is unchanged"


def test_equally_loaded_endpoints_take_turns():
    strategy = under()
    assert [strategy.pick(PODS) for _ in range(7)] == [*PODS, *PODS, POD_A]


@given(
    loads=st.lists(st.integers(0, 5), min_size=1, max_size=8),
    start=st.integers(0, 20),
    data=st.data(),
)
def test_the_picked_endpoint_has_the_fewest_connections(loads, start, data):
    by_pod = {POD_A._replace(port=port): load for port, load in enumerate(loads)}
    skip = data.draw(st.sets(st.sampled_from(list(by_pod))))
    picked = LeastConnections(by_pod.__getitem__, start).pick(list(by_pod), skip=skip)
    left = by_pod.keys() - skip
    assert picked in left if left else picked is None
    assert picked is None or by_pod[picked] == min(by_pod[pod] for pod in left)


@given(loads=st.lists(st.integers(0, 9), min_size=1, max_size=6), count=st.integers(0, 40))
def test_new_connections_never_raise_the_maximum_while_loads_are_unequal(loads, count):
    load = Counter({POD_A._replace(port=port): load for port, load in enumerate(loads)})
    endpoints, before = list(load), max(loads)
    strategy = LeastConnections(load.__getitem__)
    for _ in range(count):
        load[strategy.pick(endpoints)] += 1
    lowest, highest = min(load[e] for e in endpoints), max(load[e] for e in endpoints)
    assert highest <= max(before, lowest + 1)


WEIGHTS = {POD_A: 100, POD_B: 200, POD_C: 300}


def under_weights(*loads, start=0):
    by_pod = dict(zip(PODS, loads, strict=True))
    return WeightedLeastConnections(by_pod.__getitem__, Weights(WEIGHTS), start)


@pytest.mark.parametrize(
    ("strategy", "skip", "expected"),
    [
        pytest.param(under_weights(1, 1, 2), None, POD_B, id="least-loaded-for-its-weight"),
        pytest.param(under_weights(1, 0, 0), {POD_C}, POD_B, id="idle"),
        pytest.param(under_weights(2, 4, 5), {POD_C, POD_B}, POD_A, id="only-one-left"),
        pytest.param(under_weights(0, 0, 0), set(PODS), None, id="none"),
    ],
)
def test_connections_are_compared_relative_to_weight(strategy, skip, expected):
    assert strategy.pick(PODS, skip=skip) == expected


def test_pick_returns_none_without_endpoints():
    assert under_weights(0, 0, 0).pick(()) is None


def test_idle_endpoints_take_turns_by_weight_and_skipped_turns_are_lost():
    strategy = under_weights(0, 0, 0)
    assert {strategy.pick(PODS, skip={POD_A}) for _ in range(50)} == {POD_B, POD_C}
    assert Counter(strategy.pick(PODS) for _ in range(60)) == {POD_A: 10, POD_B: 20, POD_C: 30}


def test_turns_among_equally_loaded_endpoints_begin_at_the_start_position():
    equal = Weights(dict.fromkeys(PODS, 7))
    strategy = WeightedLeastConnections(lambda _: 0, equal, start=5)
    assert [strategy.pick(PODS) for _ in range(2)] == [POD_C, POD_A]


def test_turns_continue_when_an_endpoint_is_added():
    strategy = WeightedLeastConnections(lambda _: 0, Weights(dict.fromkeys(PODS, 7)))
    assert [strategy.pick(PODS[:2]), strategy.pick(PODS)] == [POD_A, POD_B]
