"""Tests that a client has the same endpoint on each node, and that a change moves few clients."""

import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from userspace_proxy.balance import Balancer, SourceHash, Weights
from userspace_proxy.balance.balancer import TRIED_MAX
from userspace_proxy.balance.source_hash import CHOICES, CHOICES_MAX, CLIENTS_MAX, _hash_of
from userspace_proxy.model import SocketAddress

from ..model.samples import ALICE, BOB, CAROL, POD_A, POD_B, POD_C

PODS = tuple(SocketAddress(f"10.244.1.{number}", 8080) for number in range(10))
CLIENTS = [f"10.0.{number >> 8}.{number & 255}" for number in range(10_000)]


def choices(endpoints, weights=None, clients=CLIENTS):
    strategy = SourceHash(Weights(weights))
    endpoints = tuple(endpoints)
    return {client: strategy.pick(endpoints, client) for client in clients}


def test_hash_choices_are_stable_across_versions():
    """Otherwise clients would move during an upgrade, or differ between nodes of two versions."""
    strategy = SourceHash(Weights())
    clients = (ALICE, BOB, CAROL, "fd00::1", "fd00::2", "fd00::3")
    picked = [strategy.pick((POD_A, POD_B, POD_C), client) for client in clients]
    assert picked == [POD_B, POD_B, POD_B, POD_A, POD_C, POD_C]


def test_a_source_hash_does_not_depend_on_instance_or_order_of_endpoints():
    assert choices(PODS) == choices(PODS)
    assert choices(PODS) == choices(reversed(PODS))


@given(st.lists(st.sampled_from([1, 2, 3, 7]), min_size=1, max_size=120), st.sampled_from(CLIENTS))
def test_endpoints_are_chosen_in_the_order_of_their_weighted_hashes(weights, client):
    """This holds for any number of endpoints that are compared together."""
    pods = tuple(SocketAddress(f"10.1.{n}.1", 80) for n in range(len(weights)))
    weight_of = dict(zip(pods, weights, strict=True))

    def number(pod):
        product = ((_hash_of(client) ^ _hash_of(str(pod))) * 0x9E3779B97F4A7C15) % 2**64
        return math.log((product + 0.5) / 2**64) / weight_of[pod]

    expected = sorted(pods, key=number, reverse=True)
    strategy, skipped = SourceHash(Weights(weight_of)), set()
    for pod in expected:
        assert strategy.pick(pods, client, skip=skipped) == pod
        skipped.add(pod)


def test_clients_are_spread_evenly_over_endpoints():
    counts = Counter(choices(PODS).values())
    # The standard deviation is 30.
    assert all(abs(counts[pod] - 1000) < 150 for pod in PODS)


def test_removing_an_endpoint_moves_only_its_clients_to_all_other_endpoints():
    before, after = choices(PODS), choices(PODS[1:])
    moved = [client for client in CLIENTS if before[client] != after[client]]
    assert {before[client] for client in moved} == {PODS[0]}
    assert len(moved) < len(CLIENTS) / len(PODS) + 150
    spread = Counter(after[client] for client in moved)
    assert len(spread) == 9
    assert max(spread.values()) < 2 * len(moved) / 9


class Skipped:
    """A set of endpoints to skip, which counts membership tests."""

    def __init__(self, endpoints):
        self.endpoints, self.asked = frozenset(endpoints), 0

    def __contains__(self, endpoint):
        self.asked += 1
        return endpoint in self.endpoints


def test_a_known_client_uses_its_cached_choices():
    strategy, pods = (
        SourceHash(Weights()),
        tuple(SocketAddress(f"10.1.{n}.1", 80) for n in range(200)),
    )
    for client in CLIENTS[:100]:
        skipped = Skipped(pods[::2])
        expected = choices(pods[1::2], clients=[client])[client]
        assert strategy.pick(pods, client, skip=skipped) == expected
        skipped.asked = 0
        assert strategy.pick(pods, client, skip=skipped) == expected
        assert skipped.asked <= CHOICES[1]


def test_endpoints_beyond_a_clients_cached_choices_can_be_picked():
    pods = tuple(SocketAddress(f"10.{n >> 8}.{n & 255}.1", 80) for n in range(600))
    strategy = SourceHash(Weights())
    assert strategy.pick(pods, ALICE, skip={*pods} - {*pods[77:78]}) == pods[77]
    assert strategy.pick(pods, ALICE, skip=pods) is None
    order = [strategy.pick(pods, ALICE)]
    while (pod := strategy.pick(pods, ALICE, skip={*order})) is not None:
        order.append(pod)
    assert sorted(order) == sorted(pods)
    for n in (1, CHOICES[1] - 1, CHOICES[1], CHOICES[2] - 1, CHOICES[2], len(pods) - 1):
        left = [pod for pod in pods if pod not in order[:n]]
        assert order[n] == choices(left, clients=[ALICE])[ALICE]


@pytest.fixture
def hashed(monkeypatch):
    """The hashed texts in order, in which a client occurs once per pass over all endpoints."""
    texts = []

    def count(text):
        texts.append(text)
        return _hash_of(text)

    monkeypatch.setattr("userspace_proxy.balance.source_hash._hash_of", count)
    return texts


@pytest.mark.parametrize("weight", [None, 7], ids=["plain", "weights"])
def test_picks_for_a_client_of_dead_endpoints_hash_all_endpoints_only_twice(hashed, weight):
    pods = tuple(SocketAddress(f"10.{n >> 8}.{n & 255}.1", 80) for n in range(2_000))
    weights = Weights({} if weight is None else {pods[0]: weight})
    balancer = Balancer(pods, strategy=SourceHash(weights), weights=weights)
    for number, client in enumerate(CLIENTS[:3]):
        hashed.clear()
        tried = set()
        while (pod := balancer.pick(client, float(number), tried=tried)) is not None:
            balancer.failed(pod, float(number))
            tried.add(pod)
        assert len(tried) == TRIED_MAX
        assert hashed.count(client) == 2


def test_picks_for_a_reconnecting_client_hash_all_endpoints_a_fixed_number_of_times(hashed):
    pods = tuple(SocketAddress(f"10.{n >> 8}.{n & 255}.1", 80) for n in range(10_000))
    balancer = Balancer(pods, strategy=SourceHash(Weights()))
    balancer.pick(ALICE, 0.0)
    for _ in range(10_000 // 32 // TRIED_MAX):
        tried = set()
        while (pod := balancer.pick(ALICE, 0.0, tried=tried)) is not None:
            balancer.failed(pod, 0.0)
            tried.add(pod)
    assert hashed.count(ALICE) == len(CHOICES)


def test_a_change_of_endpoints_hashes_only_the_new_endpoints(hashed):
    strategy = SourceHash(Weights())
    strategy.pick(PODS[1:], ALICE)
    hashed.clear()
    strategy.pick(PODS, ALICE)
    assert hashed == [str(PODS[0]), ALICE]


def test_pick_returns_none_without_endpoints():
    strategy = SourceHash(Weights())
    assert strategy.pick((), ALICE) is None
    assert strategy.pick(PODS, ALICE, skip=PODS) is None


def test_clients_are_distributed_in_proportion_to_weights():
    counts = Counter(choices(PODS[:2], {PODS[0]: 300, PODS[1]: 100}).values())
    assert abs(counts[PODS[0]] - 7500) < 220


def test_a_growing_weight_moves_clients_only_to_its_endpoint():
    plain, equal = choices(PODS[:4]), choices(PODS[:4], dict.fromkeys(PODS[:4], 7))
    assert plain == equal
    after = choices(PODS[:4], {PODS[2]: 200})
    assert {after[client] for client in CLIENTS if after[client] != plain[client]} == {PODS[2]}


def test_new_weights_apply_to_known_clients():
    weights = Weights({POD_A: 1, POD_B: 65535})
    strategy, pods = SourceHash(weights), (POD_A, POD_B)
    assert strategy.pick(pods, ALICE) == POD_B
    weights.configure({POD_A: 65535, POD_B: 1})
    assert strategy.pick(pods, ALICE) == POD_A


def test_the_number_of_clients_with_cached_choices_is_bounded():
    strategy, pods = SourceHash(Weights()), (POD_A, POD_B)
    for number in range(CLIENTS_MAX + 10):
        strategy.pick(pods, str(number))
    assert len(strategy._remembered) == 10


def test_the_total_number_of_cached_choices_is_bounded():
    strategy, most = SourceHash(Weights()), CHOICES_MAX // CHOICES[1]
    pods = tuple(SocketAddress(f"10.1.{n}.1", 80) for n in range(CHOICES[1] + 1))
    for number in range(2 * most):
        client = str(number)
        strategy.pick(pods, client, skip={strategy.pick(pods, client)})
        assert len(strategy._remembered) <= most
    assert sum(map(len, strategy._remembered.values())) <= CHOICES_MAX
    strategy.pick(pods[1:], ALICE)
    assert strategy._choices == len(strategy._remembered[ALICE])
