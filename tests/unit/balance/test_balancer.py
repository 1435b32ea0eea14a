"""Tests of affinity, ejection and strategies in combination."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from userspace_proxy.balance import (
    AffinityTables,
    Balancer,
    Limited,
    RoundRobin,
    Weights,
    make_strategy,
)
from userspace_proxy.balance.balancer import TRIED_MAX
from userspace_proxy.model import Balance, SocketAddress

from ..model.samples import ALICE, BOB, POD_A, POD_B, POD_C

PODS = (POD_A, POD_B, POD_C)


def connect(balancer, client, now, dead=()):
    """Dial until an endpoint answers or none is left; return the tried endpoints, in order."""
    tried = []
    while (endpoint := balancer.pick(client, now, tried=tried)) is not None:
        tried.append(endpoint)
        if endpoint not in dead:
            balancer.answered(endpoint)
            break
        balancer.failed(endpoint, now)
    return tried


class TestTurns:
    def test_pick_returns_none_without_endpoints(self):
        balancer = Balancer()
        assert balancer.pick(ALICE, 0.0) is None
        balancer.update(PODS, affinity_timeout_s=None)
        assert balancer.pick(ALICE, 0.0) == POD_A

    @given(st.data())
    def test_a_connection_never_picks_the_same_endpoint_twice(self, data):
        dead = data.draw(st.sets(st.sampled_from(PODS)))
        balancer = Balancer(PODS, affinity_timeout_s=data.draw(st.sampled_from([None, 7])))
        for now in data.draw(st.lists(st.integers(0, 90), max_size=12).map(sorted)):
            client = data.draw(st.sampled_from([ALICE, BOB]))
            tried = connect(balancer, client, float(now), dead)
            assert len(tried) == len(set(tried))
            # Fail-over ends only if an endpoint answers or all endpoints were tried.
            assert tried[-1] not in dead or set(tried) == set(PODS) == dead


class Counted(SocketAddress):
    """An endpoint; the class counts how often endpoints are hashed."""

    looks = 0

    def __hash__(self):
        Counted.looks += 1
        return super().__hash__()


class TestManyDeadEndpoints:
    def test_a_client_tries_a_bounded_number_of_endpoints(self):
        pods = [POD_A._replace(port=port) for port in range(1, 2 * TRIED_MAX + 1)]
        balancer = Balancer(pods)
        tried = connect(balancer, ALICE, 0.0, dead=pods)
        assert len(tried) == TRIED_MAX
        assert not balancer.has_more(ALICE, 0.0, tried=tried)
        assert balancer.has_more(ALICE, 0.0, tried=tried[1:])
        # The second client tries only endpoints that the first client hasn't tried.
        assert set(connect(balancer, BOB, 0.0, dead=pods)) == set(pods) - set(tried)

    @pytest.mark.parametrize("is_weighted", [False, True], ids=["plain", "weighted"])
    @pytest.mark.parametrize("balance", list(Balance))
    @pytest.mark.parametrize("live", [0, 1])
    def test_a_pick_visits_few_of_many_dead_endpoints(self, balance, is_weighted, live):
        pods = [Counted("192.0.2.1", port) for port in range(1, 2001)]
        weights = Weights(dict.fromkeys(pods, 2) if is_weighted else {})
        strategy = make_strategy(balance, weights, lambda: lambda _: 0, 0, chance=Random)
        balancer = Balancer(pods, strategy=strategy, weights=weights)
        for number, pod in enumerate(pods[live:]):
            balancer.failed(pod, number / 1000)
        picked = balancer.pick(ALICE, 2.0)
        Counted.looks = 0
        # During these picks, ejections end, and the readmitted endpoints fail again.
        for number in range(100):
            tried = connect(balancer, f"10.0.0.{number}", 4.9 + number / 1000, dead=pods[live:])
            assert not live or tried[-1] is picked
        assert Counted.looks < 2000 * 100 / 5


class TestEjection:
    def test_a_dead_endpoint_is_tried_once_and_then_skipped(self):
        balancer = Balancer(PODS)
        rounds = [connect(balancer, ALICE, now, dead={POD_A}) for now in (0.0, 1.0, 2.0, 3.0)]
        assert rounds == [[POD_A, POD_B], [POD_C], [POD_B], [POD_C]]

    def test_ejected_endpoints_are_tried_if_no_others_remain(self):
        balancer = Balancer((POD_A, POD_B))
        assert connect(balancer, ALICE, 0.0, dead={POD_A, POD_B}) == [POD_A, POD_B]
        assert connect(balancer, ALICE, 1.0, dead={POD_A, POD_B}) == [POD_A, POD_B]
        assert connect(balancer, ALICE, 1.0, dead={POD_A}) == [POD_A, POD_B]

    def test_recently_silent_endpoints_are_skipped_even_if_all_are_ejected(self):
        balancer = Balancer((POD_A, POD_B))
        balancer.failed(POD_A, 0.0, is_silent=True)
        balancer.failed(POD_B, 0.0)
        assert connect(balancer, ALICE, 0.5, dead={POD_B}) == [POD_B]
        assert balancer.pick(ALICE, 1.0, tried=[POD_B]) == POD_A
        assert balancer.pick(BOB, 1.1, tried=[POD_B]) is None
        assert not balancer.has_more(BOB, 1.1, tried=[POD_B])
        assert balancer.has_more(BOB, 2.0, tried=[POD_B])
        assert balancer.pick(BOB, 2.0, tried=[POD_B]) == POD_A

    def test_a_late_result_of_a_removed_endpoint_is_ignored(self):
        balancer = Balancer(PODS, affinity_timeout_s=60)
        balancer.update((POD_B,), affinity_timeout_s=60)
        assert not balancer.failed(POD_A, 0.0)
        assert not balancer.answered(POD_A)
        assert (balancer.ejected(0.0), len(balancer._affinity)) == ({}, 0)

    def test_an_update_keeps_the_ejections_of_remaining_endpoints(self):
        balancer = Balancer(PODS)
        balancer.failed(POD_A, 0.0)
        balancer.failed(POD_B, 0.0)
        balancer.update((POD_B, POD_C), affinity_timeout_s=None)
        balancer.update(PODS, affinity_timeout_s=None)
        assert balancer.ejected(1.0) == {POD_B: 4.0}


class TestAffinity:
    def test_a_client_returns_to_the_endpoint_that_accepted_it(self):
        balancer = Balancer(PODS, affinity_timeout_s=60)
        alice = [connect(balancer, ALICE, now) for now in (0.0, 1.0, 2.0)]
        bob = [connect(balancer, BOB, now) for now in (0.0, 1.0, 2.0)]
        assert (alice, bob) == ([[POD_A]] * 3, [[POD_B]] * 3)
        assert len(balancer._affinity) == 2

    def test_simultaneous_connections_of_a_client_pick_the_same_endpoint(self):
        balancer = Balancer(PODS, affinity_timeout_s=60)
        assert [balancer.pick(ALICE, 0.0) for _ in range(3)] == [POD_A] * 3

    def test_an_affinity_entry_does_not_select_an_already_tried_endpoint(self):
        balancer = Balancer(PODS, affinity_timeout_s=10800)
        connect(balancer, ALICE, 0.0)
        # If the source ports for an endpoint run out, it is tried but not ejected.
        assert balancer.pick(ALICE, 1.0, tried=[POD_A]) == POD_B

    def test_a_client_with_affinity_leaves_an_endpoint_ejected_by_another_client(self):
        balancer = Balancer((POD_A, POD_B), affinity_timeout_s=10800)
        connect(balancer, ALICE, 0.0)
        balancer.failed(POD_A, 1.0)
        assert connect(balancer, ALICE, 1.0, dead={POD_A}) == [POD_B]

    def test_switching_affinity_off_removes_all_affinity_entries(self):
        balancer = Balancer(PODS, affinity_timeout_s=10800)
        connect(balancer, ALICE, 0.0)
        balancer.update(PODS, affinity_timeout_s=None)
        assert balancer._affinity is None
        assert connect(balancer, ALICE, 1.0) == [POD_B]


def test_affinity_entries_of_a_previous_process_are_restored():
    former, successor = (Balancer(PODS, affinity_timeout_s=60) for _ in range(2))
    former.pick(BOB, 0.0)
    assert former.pick(ALICE, 0.0) == POD_B
    successor.restore(former.entries(5.0), 5.0)
    assert successor.pick(ALICE, 5.0) == POD_B


@pytest.mark.parametrize(
    "changed",
    [{"affinity_timeout_s": None}, {"affinity_timeout_s": 60, "shares_as": "shop/sip"}],
    ids=["off", "shared"],
)
def test_changed_affinity_frees_the_capacity_of_the_former_entries(changed):
    tables = AffinityTables()
    balancer = Balancer(PODS, affinity_timeout_s=60, entries=tables)
    balancer.pick(ALICE, 0.0)
    assert len(tables) == 1
    balancer.update(PODS, **changed)
    assert len(tables) == 0


def test_without_affinity_there_are_no_affinity_entries():
    former, balancer = Balancer(PODS, affinity_timeout_s=60), Balancer(PODS)
    former.pick(ALICE, 0.0)
    balancer.restore(former.entries(0.0), 0.0)
    assert list(balancer.entries(0.0)) == []


class TestStandby:
    """Tests in which POD_A has the first priority, and POD_B and POD_C are on standby."""

    def balancer(self, **options):
        return Balancer(PODS, standbys={POD_B: 1, POD_C: 2}, **options)

    def test_a_connection_with_a_failed_dial_reaches_the_standby(self):
        assert connect(self.balancer(), ALICE, 0.0, dead={POD_A}) == [POD_A, POD_B]
        assert connect(self.balancer(), ALICE, 0.0, dead={POD_A, POD_B}) == list(PODS)

    def test_a_standby_serves_while_the_first_priority_is_ejected(self):
        balancer = self.balancer()
        connect(balancer, ALICE, 0.0, dead={POD_A})
        assert [connect(balancer, BOB, now, dead={POD_A}) for now in (1.0, 2.0)] == [[POD_B]] * 2

    def test_one_connection_probes_the_first_priority_before_traffic_returns(self):
        balancer = self.balancer()
        connect(balancer, ALICE, 0.0, dead={POD_A})
        assert connect(balancer, ALICE, 5.0, dead={POD_A}) == [POD_A, POD_B]
        assert connect(balancer, ALICE, 15.0) == [POD_A]
        assert connect(balancer, BOB, 15.0) == [POD_A]

    def test_a_client_with_affinity_leaves_the_standby_when_the_first_priority_returns(self):
        balancer = self.balancer(affinity_timeout_s=60)
        assert connect(balancer, ALICE, 0.0, dead={POD_A}) == [POD_A, POD_B]
        assert connect(balancer, ALICE, 1.0) == [POD_B]
        assert connect(balancer, ALICE, 6.0) == [POD_A]

    def test_an_update_can_swap_standby_and_first_priority(self):
        balancer = self.balancer()
        balancer.update(PODS, affinity_timeout_s=None, standbys={POD_A: 1, POD_C: 2})
        assert connect(balancer, ALICE, 0.0) == [POD_B]

    def test_pick_returns_none_without_endpoints(self):
        assert Balancer((), standbys={POD_A: 1}).pick(ALICE, 0.0) is None

    @given(st.data())
    def test_a_standby_is_dialled_only_after_all_earlier_priorities_failed(self, data):
        dead = data.draw(st.sets(st.sampled_from(PODS)))
        timeout = data.draw(st.sampled_from([None, 7]))
        balancer = self.balancer(affinity_timeout_s=timeout)
        for now in data.draw(st.lists(st.integers(0, 90), max_size=12).map(sorted)):
            ejected = set(balancer.ejected(float(now)))
            tried = connect(balancer, data.draw(st.sampled_from([ALICE, BOB])), float(now), dead)
            for pod in tried:
                before = set(PODS[: PODS.index(pod)])
                assert before <= ejected | set(tried[: tried.index(pod)])
            assert tried[-1] not in dead or set(tried) == set(PODS) == dead


def test_a_first_priority_endpoint_serves_even_if_ejected():
    balancer = Balancer((POD_A, POD_B))
    balancer.failed(POD_A, now=0.0)
    assert balancer.serves("10.0.0.1", POD_A)
    balancer.update((POD_A, POD_B), affinity_timeout_s=None, standbys={POD_A: 1})
    assert [balancer.serves("10.0.0.1", pod) for pod in (POD_A, POD_B)] == [False, True]


class TestLimits:
    def limited(self, *full, **options):
        """Return a balancer of three endpoints, of which these are at their limit."""
        balancer = Balancer(PODS, strategy=Limited(RoundRobin(), full.__contains__), **options)
        balancer.is_full = full.__contains__
        return balancer

    def test_a_standby_is_not_offered_while_a_first_priority_endpoint_is_at_its_limit(self):
        balancer = self.limited(POD_B, standbys={POD_C: 1})
        assert balancer.pick(ALICE, 0.0, tried={POD_A}) is None
        assert not balancer.has_more(ALICE, 0.0, tried={POD_A})

    def test_a_client_with_affinity_to_a_full_endpoint_gets_no_other_endpoint(self):
        full = set()
        balancer = Balancer(PODS, affinity_timeout_s=60)
        balancer.is_full = full.__contains__
        assert balancer.pick(ALICE, 0.0) == POD_A
        full.add(POD_A)
        assert balancer.pick(ALICE, 0.0, tried={POD_B}) is None
        assert not balancer.has_more(ALICE, 0.0, tried={POD_B})

    def test_a_client_that_has_tried_all_endpoints_does_not_wait(self):
        balancer = self.limited(POD_A)
        assert balancer.pick(ALICE, 0.0, tried=PODS) is None
        assert not balancer.is_at_limit(ALICE, 0.0, tried=PODS)
        assert balancer.is_at_limit(ALICE, 0.0, tried=(POD_B, POD_C))
        assert not Balancer(PODS).is_at_limit(ALICE, 0.0)

    def test_a_client_waits_rather_than_use_an_ejected_endpoint(self):
        balancer = self.limited(POD_A, POD_B)
        balancer.failed(POD_C, 0.0)
        assert balancer.pick(ALICE, 1.0) is None
        assert balancer.is_at_limit(ALICE, 1.0)

    @pytest.mark.parametrize("is_silent", [False, True], ids=["refused", "silent"])
    def test_a_client_waits_for_the_only_endpoint_even_if_ejected(self, is_silent):
        full = [POD_A]
        balancer = Balancer([POD_A], strategy=Limited(RoundRobin(), full.__contains__))
        balancer.is_full = full.__contains__
        balancer.failed(POD_A, 0.0, is_silent=is_silent)
        assert balancer.pick(ALICE, 0.5) is None
        assert balancer.is_at_limit(ALICE, 0.5)
        assert not balancer.is_at_limit(ALICE, 0.5, tried=(POD_A,))
        full.clear()
        assert not balancer.is_at_limit(ALICE, 1.5)
        assert balancer.pick(ALICE, 1.5) == POD_A

    def test_a_client_with_affinity_waits_for_its_endpoint(self):
        full = []
        balancer = Balancer(
            PODS, affinity_timeout_s=60, strategy=Limited(RoundRobin(), full.__contains__)
        )
        balancer.is_full = full.__contains__
        pinned = balancer.pick(ALICE, 0.0)
        full.append(pinned)
        assert balancer.pick(ALICE, 1.0) is None
        assert balancer.is_at_limit(ALICE, 1.0)
        assert balancer.pick(BOB, 1.0) not in (None, pinned)
        full.clear()
        assert balancer.pick(ALICE, 2.0) == pinned


def test_ports_sharing_affinity_send_a_client_to_one_pod():
    tables = AffinityTables()
    one, other = (
        Balancer(
            [SocketAddress(ip, port) for ip in ("10.244.1.1", "10.244.1.2")],
            affinity_timeout_s=60,
            start=start,
            entries=tables,
            shares_as="shop/sip",
        )
        for start, port in enumerate((5060, 10000))
    )
    pod = one.pick("10.1.0.1", 0.0).ip
    assert other.pick("10.1.0.1", 0.0).ip == pod
    alone = Balancer([SocketAddress(pod, 80)], affinity_timeout_s=60, shares_as="shop/sip")
    assert alone.pick("10.1.0.1", 0.0) == SocketAddress(pod, 80)
