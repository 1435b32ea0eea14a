"""The fewest connections for the weight, and turns among equals."""

from collections import Counter

import pytest

from userspace_proxy.balance import WeightedLeastConnections, Weights

from ..model.samples import POD_A, POD_B, POD_C

PODS = (POD_A, POD_B, POD_C)
WEIGHTS = {POD_A: 100, POD_B: 200, POD_C: 300}


def under(*loads, start=0):
    by_pod = dict(zip(PODS, loads, strict=True))
    return WeightedLeastConnections(by_pod.__getitem__, Weights(WEIGHTS), start)


@pytest.mark.parametrize(
    ("strategy", "skip", "expected"),
    [
        pytest.param(under(1, 1, 2), None, POD_B, id="the-least-loaded-for-its-weight"),
        pytest.param(under(1, 0, 0), {POD_C}, POD_B, id="the-idle-one"),
        pytest.param(under(2, 4, 5), {POD_C, POD_B}, POD_A, id="the-only-one-left"),
        pytest.param(under(0, 0, 0), set(PODS), None, id="none"),
    ],
)
def test_connections_are_compared_for_the_weight(strategy, skip, expected):
    assert strategy.pick(PODS, skip=skip) == expected


def test_without_endpoints_none_is_picked():
    assert under(0, 0, 0).pick(()) is None


def test_idle_endpoints_take_turns_by_weight():
    strategy = under(0, 0, 0)
    assert Counter(strategy.pick(PODS) for _ in range(60)) == {POD_A: 10, POD_B: 20, POD_C: 30}


def test_long_lived_connections_are_spread_by_weight():
    loads = dict.fromkeys(PODS, 0)
    strategy = WeightedLeastConnections(loads.__getitem__, Weights(WEIGHTS))
    for _ in range(600):
        loads[strategy.pick(PODS)] += 1
    assert loads == WEIGHTS


def test_turns_among_equals_begin_at_the_start():
    equal = Weights(dict.fromkeys(PODS, 7))
    strategy = WeightedLeastConnections(lambda _: 0, equal, start=5)
    assert [strategy.pick(PODS) for _ in range(2)] == [POD_C, POD_A]


def test_one_that_was_busier_does_not_catch_up():
    loads = {POD_A: 9, POD_B: 0}
    strategy = WeightedLeastConnections(loads.__getitem__, Weights({POD_A: 7, POD_B: 7}))
    pods = (POD_A, POD_B)
    assert {strategy.pick(pods) for _ in range(100)} == {POD_B}
    loads[POD_A] = 0
    assert Counter(strategy.pick(pods) for _ in range(100))[POD_A] <= 51


def test_turns_go_on_when_an_endpoint_is_added():
    strategy = WeightedLeastConnections(lambda _: 0, Weights(dict.fromkeys(PODS, 7)))
    assert [strategy.pick(PODS[:2]), strategy.pick(PODS)] == [POD_A, POD_B]
