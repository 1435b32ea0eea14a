from userspace_proxy.balance import LeastConnections, Limited, RoundRobin
from userspace_proxy.model import SocketAddress

A, B, C = ENDPOINTS = tuple(SocketAddress(f"10.0.0.{number}", 80) for number in (1, 2, 3))


def test_endpoints_at_their_limit_are_left_out():
    full = {A}
    strategy = Limited(RoundRobin(), full.__contains__)
    assert [strategy.pick(ENDPOINTS) for _ in range(3)] == [B, C, B]
    full.clear()
    assert [strategy.pick(ENDPOINTS) for _ in range(3)] == [C, A, B]


def test_so_are_those_that_are_to_be_skipped():
    strategy = Limited(RoundRobin(), {A}.__contains__)
    assert strategy.pick(ENDPOINTS, skip={B}) == C
    assert strategy.pick(ENDPOINTS, skip={B, C}) is None


def test_the_other_strategy_chooses_among_the_rest():
    loads = {A: 9, B: 5, C: 1}
    strategy = Limited(LeastConnections(loads.__getitem__), lambda e: loads[e] >= 6)
    assert strategy.pick(ENDPOINTS) == C
    loads[C] = 6
    assert strategy.pick(ENDPOINTS) == B
    loads[B] = 6
    assert strategy.pick(ENDPOINTS) is None
