import errno
from collections import Counter

import pytest

from tests.port_keys import port_key
from userspace_proxy.balance import AffinityTables
from userspace_proxy.dataplane import EndpointGroup
from userspace_proxy.model import Balance, Handling
from userspace_proxy.model.failures import dial_failure
from userspace_proxy.model.serving import Serving

from .groups import ALICE, BOB, CLUSTER, POD_A, POD_B, POD_C, POD_CLIENT, limited, picked, picks


def test_affinity_entries_and_ejections_still_apply_after_a_change_of_balance(group):
    group.update(Serving([POD_A, POD_B, POD_C], affinity_timeout_s=60))
    (pinned,) = picks(group, 1, BOB)
    dead = POD_A if pinned != POD_A else POD_B
    group.failed(dead, dial_failure(errno.ECONNREFUSED, dead.ip), 0.0)
    lc = Serving([POD_A, POD_B, POD_C], 60, handling=Handling(balance=Balance.LEAST_CONNECTIONS))
    group.update(lc)
    assert group.balancers.tracks_loads
    assert picks(group, 2, BOB) == [pinned] * 2
    assert group.balancers.current.ejected(0.0) == {dead: 5.0}
    group.update(Serving([POD_A, POD_B, POD_C], 60))
    assert not group.balancers.tracks_loads


@pytest.mark.parametrize("balance", [one for one in Balance if one is not Balance.SOURCE_HASH])
def test_only_equal_seeds_result_in_equal_choices(balance):
    pods = [POD_A, POD_B, POD_C]

    def chosen(seed):
        handling = Handling(balance=balance, seed=seed)
        return picks(EndpointGroup(port_key("shop/web"), Serving(pods, handling=handling)), 20)

    assert chosen(1) == chosen(1)
    assert chosen(1) != chosen(0)


@pytest.mark.parametrize("split", [{}, {"outside": [POD_A, POD_B, POD_C], "inside": CLUSTER}])
def test_only_a_changed_seed_restarts_the_sequence(group, split):
    group.update(Serving([POD_A, POD_B, POD_C], **split))
    assert picks(group, 1) == [POD_A]
    seeded = Serving([POD_A, POD_B, POD_C], handling=Handling(seed=2), **split)
    group.update(seeded)
    assert picks(group, 1) == [POD_C]
    group.update(seeded)
    assert picks(group, 1) == [POD_A]


def test_affinity_entries_and_ejections_survive_a_temporary_split(group):
    pods = [POD_A, POD_B, POD_C]
    group.update(Serving(pods, affinity_timeout_s=60))
    pinned = {client: picks(group, 1, client)[0] for client in (POD_CLIENT, "10.9.9.8")}
    group.failed(POD_C, dial_failure(errno.ECONNREFUSED, POD_C.ip), 0.0)
    for split in (
        Serving(pods, 60, outside=[POD_B], inside=CLUSTER),
        Serving(pods, 60, outside=[POD_B], inside=("10.9.0.0/16",)),
        Serving(pods, 60),
    ):
        group.update(split)
        assert {client: picks(group, 1, client)[0] for client in pinned} == pinned
        assert group.balancers.current.ejected(0.0) == {POD_C: 5.0}


def test_the_worker_counts_the_affinity_entries_in_use():
    tables, pods = AffinityTables(), (POD_A, POD_B)
    split = Serving(pods, 60, outside=[POD_B], inside=CLUSTER)
    group = EndpointGroup(port_key("shop/web:http"), split, entries=tables)
    for client in (POD_CLIENT, ALICE):
        picks(group, 1, client)
    counts = [len(tables)]
    for serving in (Serving(pods, 60), split, Serving(pods), Serving(pods, 60), Serving()):
        group.update(serving)
        counts.append(len(tables))
    assert counts == [2, 1, 1, 0, 0, 0]


def test_changed_inside_networks_apply_to_the_next_pick(group):
    group.update(Serving([POD_A], outside=[POD_B], inside=CLUSTER))
    group.update(Serving([POD_A], outside=[POD_B], inside=(f"{ALICE}/32",)))
    assert [picks(group, 1, client)[0] for client in (ALICE, POD_CLIENT)] == [POD_A, POD_B]


def test_weights_determine_the_shares_of_endpoints_and_can_change():
    group = EndpointGroup(port_key("shop/web:http"), Serving((POD_A, POD_B)))
    group.update(Serving((POD_A, POD_B), weights=((POD_A, 400),)))
    assert picked(group) == {POD_A: 8, POD_B: 2}
    group.update(Serving((POD_A, POD_B), weights=((POD_A, 100), (POD_B, 400))))
    assert picked(group) == {POD_A: 2, POD_B: 8}
    group.update(Serving((POD_A, POD_B)))
    assert picked(group) == {POD_A: 5, POD_B: 5}


def test_with_a_limit_the_endpoint_with_the_most_room_is_picked_until_all_are_full():
    group = EndpointGroup(port_key("shop/web"), limited(2))
    group.counters_of(POD_A).active = 1
    for expected in (POD_B, POD_A, POD_B):
        (picked,) = picks(group, 1)
        group.balancers.dial_began(picked)
        assert picked == expected or group.balancers.load_of(POD_A) == group.balancers.load_of(
            POD_B
        )
    assert picks(group, 1) == [None]
    assert group.balancers.is_full(POD_A)
    assert group.balancers.is_at_limit(ALICE, 0.0, ())
    group.balancers.dial_ended(POD_B)
    assert picks(group, 1) == [POD_B]


def test_a_limit_can_be_added_and_removed_with_or_without_endpoints_for_outside_clients(group):
    for serving in (limited(1), limited(1, outside=(POD_B,), inside=("10.0.0.0/8",))):
        group.update(serving)
        group.counters_of(POD_A).active = group.counters_of(POD_B).active = 1
        assert picks(group, 1) == [None]
        group.update(Serving([POD_A, POD_B]))
        assert None not in picks(group, 2)
        assert not group.balancers.is_at_limit(ALICE, 0.0, ())


@pytest.mark.parametrize("weights", [(), ((POD_B, 500),)], ids=["equal", "weighted"])
def test_standbys_take_turns_independently_of_first_priority_endpoints(weights):
    pods, standbys = (POD_A, POD_B, POD_C), ((POD_B, 1), (POD_C, 1))
    group = EndpointGroup(
        port_key("shop/web:http"), Serving(pods, standbys=standbys, weights=weights)
    )
    fail_overs = Counter()
    for _ in range(12):
        assert picks(group, 1) == [POD_A]
        fail_overs[group.balancers.current.pick(ALICE, 0.0, tried=(POD_A,))] += 1
        # An update keeps the round-robin position of standbys.
        group.update(Serving(pods, standbys=standbys, weights=weights, affinity_timeout_s=None))
    assert fail_overs == ({POD_B: 10, POD_C: 2} if weights else {POD_B: 6, POD_C: 6})


def test_an_added_connection_limit_applies_to_standbys():
    pods, standbys = (POD_A, POD_B, POD_C), ((POD_B, 1), (POD_C, 1))
    group = EndpointGroup(port_key("shop/web:http"), Serving(pods, standbys=standbys))
    group.update(Serving(pods, standbys=standbys, handling=Handling(max_connections=1)))
    group.counters_of(POD_B).active = 1
    fail_overs = [group.balancers.current.pick(ALICE, 0.0, tried=(POD_A,)) for _ in range(2)]
    assert fail_overs == [POD_C, POD_C]


def test_a_preferred_standby_is_picked_once_its_priority_is_reached():
    pods = (POD_A, POD_B, POD_C)
    group = EndpointGroup(
        port_key("shop/web:http"), Serving(pods, standbys=((POD_B, 1), (POD_C, 1)))
    )
    group.balancers.prefer(POD_C)
    assert picks(group, 1) == [POD_A]
    # The update adds a third priority before the preferred endpoint is picked.
    group.update(Serving(pods, standbys=((POD_C, 1), (POD_B, 2))))
    chosen = [group.balancers.current.pick(ALICE, 0.0, tried=(POD_A,)) for _ in range(2)]
    assert chosen == [POD_C, POD_C]
    assert group.balancers.current.pick(ALICE, 0.0, tried=(POD_A, POD_C)) == POD_B


@pytest.mark.parametrize("outside", [None, (POD_A,)], ids=["one-balancer", "a-side-of-two"])
def test_a_preferred_endpoint_is_picked_only_once(group, outside):
    group.update(Serving((POD_A, POD_B, POD_C), outside=outside, inside=CLUSTER))
    group.balancers.prefer(POD_C)
    assert picks(group, 3, POD_CLIENT) == [POD_C, POD_A, POD_B]


def test_an_endpoint_serves_all_clients_if_both_sides_use_it(group):
    group.update(Serving((POD_A, POD_B), outside=(POD_B, POD_C), inside=CLUSTER))
    pods = (POD_A, POD_B, POD_C)
    assert [group.balancers.serves_everyone(pod) for pod in pods] == [False, True, False]
    assert [group.balancers.current.serves(POD_CLIENT, pod) for pod in pods] == [True, True, False]


SLOWLY = Handling(slow_start_s=50.0)


def shares_of(group, endpoint, *moments, count=110):
    """Return how many of ``count`` connections an endpoint receives at each of these times."""
    return [
        sum(group.balancers.current.pick(ALICE, now) == endpoint for _ in range(count))
        for now in moments
    ]


@pytest.mark.parametrize("balance", [Balance.ROUND_ROBIN, Balance.RANDOM])
def test_slow_start_applies_to_a_new_endpoint(balance):
    handling = Handling(balance=balance, slow_start_s=50.0)
    group = EndpointGroup(port_key("shop/web:http"), Serving((POD_A,), handling=handling))
    group.failed(POD_A, dial_failure(errno.ECONNREFUSED, POD_A.ip), 0.0)
    group.answered(POD_A, 100.0)
    group.update(Serving((POD_A, POD_B), handling=handling), 100.0)
    first, half, last = shares_of(group, POD_B, 100.0, 125.0, 150.0)
    leeway = 2 if balance is Balance.ROUND_ROBIN else 15
    assert abs(first - 10) <= leeway
    assert abs(half - 37) <= leeway
    assert abs(last - 55) <= leeway


def test_slow_start_applies_to_a_recovered_endpoint():
    group = EndpointGroup(port_key("shop/web:http"), Serving((POD_A, POD_B), handling=SLOWLY))
    group.failed(POD_B, dial_failure(errno.ECONNREFUSED, POD_B.ip), 0.0)
    group.answered(POD_B, 100.0)
    assert abs(shares_of(group, POD_B, 100.0)[0] - 10) <= 1
    group.failed(POD_B, dial_failure(errno.ECONNREFUSED, POD_B.ip), 150.0)
    group.answered_elsewhere(POD_B, 200.0)
    assert abs(shares_of(group, POD_B, 200.0)[0] - 10) <= 1


def test_slow_start_applies_to_least_connections():
    handling = Handling(balance=Balance.LEAST_CONNECTIONS, slow_start_s=50.0)
    group = EndpointGroup(port_key("shop/web:http"), Serving((POD_A,), handling=handling))
    group.counters_of(POD_A).active = 20
    group.update(Serving((POD_A, POD_B), handling=handling), 100.0)
    for _ in range(20):
        group.counters_of(group.balancers.current.pick(ALICE, 100.0)).active += 1
    assert abs(group.counters_of(POD_B).active - 4) <= 1, "POD_A has ten times as many connections"


def test_new_endpoints_have_full_shares_if_no_previous_endpoint_remains():
    group = EndpointGroup(port_key("shop/web:http"), Serving((POD_C,), handling=SLOWLY))
    group.update(Serving((POD_A, POD_B), handling=SLOWLY), 100.0)
    assert shares_of(group, POD_B, 100.0) == [55]


def test_an_endpoint_of_outside_clients_is_not_new_to_inside_clients():
    sides = {"outside": (POD_B,), "inside": CLUSTER, "handling": SLOWLY}
    group = EndpointGroup(port_key("shop/web:http"), Serving((POD_A,), **sides))
    group.update(Serving((POD_A, POD_B), handling=SLOWLY), 100.0)
    assert shares_of(group, POD_B, 100.0) == [55]


@pytest.mark.parametrize("balance", [Balance.LEAST_CONNECTIONS, Balance.POWER_OF_TWO_CHOICES])
def test_load_based_strategies_count_connections_and_dials(balance):
    group = EndpointGroup(
        port_key("shop/web"), Serving([POD_A, POD_B], handling=Handling(balance=balance))
    )
    assert group.balancers.tracks_loads
    group.counters_of(POD_A).active = 1
    group.balancers.dial_began(POD_B)
    group.balancers.dial_began(POD_B)
    assert (group.balancers.load_of(POD_A), group.balancers.load_of(POD_B)) == (1, 2)
    assert picks(group, 3) == [POD_A] * 3
    group.balancers.dial_ended(POD_B)
    group.balancers.dial_ended(POD_B)
    assert picks(group, 3) == [POD_B] * 3


def test_a_dial_counts_as_load_until_it_ends_even_if_the_strategy_changes(group):
    by_load = Serving([POD_A, POD_B], handling=Handling(balance=Balance.LEAST_CONNECTIONS))
    group.update(by_load)
    group.balancers.dial_began(POD_A)
    group.update(Serving([POD_A, POD_B]))
    group.update(by_load)
    assert group.balancers.load_of(POD_A) == 1
    group.balancers.dial_ended(POD_A)
    assert group.balancers.load_of(POD_A) == 0


def test_both_sides_of_a_split_share_the_load_counts(group):
    pods = [POD_A, POD_B]
    group.update(
        Serving(
            pods, outside=pods, inside=CLUSTER, handling=Handling(balance=Balance.LEAST_CONNECTIONS)
        )
    )
    group.balancers.dial_began(POD_A)
    assert [picks(group, 1, client)[0] for client in (POD_CLIENT, ALICE)] == [POD_B] * 2


@pytest.mark.parametrize(
    ("limit", "processes", "shares"),
    [
        pytest.param(100, 1, [100], id="one-process"),
        pytest.param(100, 3, [34, 33, 33], id="with-a-rest"),
        pytest.param(2, 3, [1, 1, 1], id="at-least-one"),
    ],
)
def test_worker_processes_share_the_connection_limit_of_an_endpoint(limit, processes, shares):
    groups = [
        EndpointGroup(port_key("shop/web"), limited(limit), start=index, processes=processes)
        for index in range(processes)
    ]
    for group, share in zip(groups, shares, strict=True):
        group.counters_of(POD_A).active = share - 1
        assert not group.balancers.is_full(POD_A)
        group.counters_of(POD_A).active = share
        assert group.balancers.is_full(POD_A)
