"""Tests of strategies that wrap another strategy."""

from userspace_proxy.balance import Balancer, LeastConnections, Limited, Preferred, RoundRobin

from ..model.samples import ALICE, POD_A, POD_B, POD_C

ALL = (POD_A, POD_B, POD_C)


def test_endpoints_at_their_limit_are_skipped():
    full = {POD_A}
    strategy = Limited(RoundRobin(), full.__contains__)
    assert [strategy.pick(ALL) for _ in range(3)] == [POD_B, POD_C, POD_B]
    full.clear()
    assert [strategy.pick(ALL) for _ in range(3)] == [POD_C, POD_A, POD_B]


def test_skipped_endpoints_are_omitted_like_endpoints_at_their_limit():
    strategy = Limited(RoundRobin(), {POD_A}.__contains__)
    assert strategy.pick(ALL, skip={POD_B}) == POD_C
    assert strategy.pick(ALL, skip={POD_B, POD_C}) is None


def test_the_wrapped_strategy_chooses_among_endpoints_below_their_limit():
    loads = {POD_A: 9, POD_B: 5, POD_C: 1}
    strategy = Limited(LeastConnections(loads.__getitem__), lambda e: loads[e] >= 6)
    assert strategy.pick(ALL) == POD_C
    loads[POD_C] = 6
    assert strategy.pick(ALL) == POD_B
    loads[POD_B] = 6
    assert strategy.pick(ALL) is None


def test_the_preferred_endpoint_is_picked_once_before_the_usual_turns():
    balancer = Balancer(ALL)
    then = balancer.strategy
    assert balancer.pick(ALICE, 0.0) == POD_A

    def end():
        balancer.strategy = then

    balancer.strategy = Preferred(POD_A, then, end)
    assert [balancer.pick(ALICE, 0.0) for _ in range(3)] == [POD_A, POD_B, POD_C]
    assert balancer.strategy is then


def test_an_unavailable_preferred_endpoint_is_skipped():
    ended = []
    preferred = Preferred(POD_B, RoundRobin(), lambda: ended.append(True))
    assert preferred.pick(ALL, skip={POD_B}) == POD_A
    assert preferred.pick((POD_A,)) == POD_A
    assert preferred.pick(()) is None
    assert ended == []
    assert preferred.pick(ALL, skip=set()) == POD_B
    assert ended == [True]
