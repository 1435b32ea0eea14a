import errno
import logging
from collections import Counter

import pytest

from userspace_proxy.dataplane import EndpointGroup, Serving
from userspace_proxy.model import Balance, CauseCode, Handling, SocketAddress

POD_A, POD_B, POD_C = (SocketAddress(f"10.0.0.{number}", 80) for number in (1, 2, 3))
ALICE, BOB = "203.0.113.1", "203.0.113.2"


@pytest.fixture
def group():
    return EndpointGroup("shop/web:http", Serving([POD_A, POD_B]))


def test_a_failed_dial_ejects_the_endpoint_and_is_counted(group):
    group.dial_failed(POD_A, errno.ECONNREFUSED, 0.0)
    assert group.balancer.ejected(0.0) == {POD_A: 5.0}
    assert group.counters_of(POD_A).failures == 1


def test_failures_in_a_row_are_those_since_the_last_answer(group):
    group.dial_failed(POD_A, errno.ETIMEDOUT, 0.0)
    group.answered(POD_A, 1.0)
    dials = group.counters_of(POD_A).dials
    assert not dials.is_on
    for now in (2.0, 3.0):
        group.dial_failed(POD_A, errno.ECONNREFUSED, now)
    assert dials.whole() == (1.0, 2, 2.0, 3.0, errno.ECONNREFUSED)
    assert group.counters_of(POD_A).failures_by_cause() == {
        CauseCode.ENDPOINT_REFUSES: 2,
        CauseCode.ENDPOINT_SILENT: 1,
    }


def test_an_answer_to_another_worker_ends_the_row(group):
    group.dial_failed(POD_A, errno.ETIMEDOUT, 0.0)
    group.returned(POD_A, 1.0)
    assert not group.counters_of(POD_A).dials.is_on
    assert group.balancer.ejected(1.0) == {}


def test_what_may_concern_one_client_ejects_nothing_and_shows_nothing_if_it_does(group):
    group.dial_failed(POD_A, errno.ECONNREFUSED, 0.0, may_be_client_specific=True)
    group.dial_failed(POD_B, errno.ECONNREFUSED, 0.0, is_client_specific=True)
    assert group.balancer.ejected(0.0) == {}
    assert group.counters_of(POD_A).dials.is_on
    assert not group.counters_of(POD_B).dials.is_on


@pytest.mark.parametrize(
    "number",
    [errno.EMFILE, errno.ENFILE, errno.EADDRNOTAVAIL, errno.ENOBUFS, errno.ENOMEM, errno.EAGAIN],
    ids=errno.errorcode.get,
)
def test_a_shortage_of_this_node_ejects_nothing(group, number):
    group.dial_failed(POD_A, number, 0.0)
    assert group.balancer.ejected(0.0) == {}
    assert (group.counters_of(POD_A).failures, group.counters.shortages) == (1, 1)
    assert not group.counters_of(POD_A).dials.is_on


def test_an_ejection_is_logged_when_it_begins_and_when_it_ends(group, caplog):
    caplog.set_level(logging.INFO)
    for now in (0.0, 1.0):
        group.dial_failed(POD_A, errno.ECONNREFUSED, now)
    group.answered(POD_A, 2.0)
    group.answered(POD_A, 2.0)
    assert [record.getMessage() for record in caplog.records] == [
        "shop/web:http: endpoint ejected: "
        "10.0.0.1:80 refuses connections: nothing listens on port 80 there",
        "shop/web:http: endpoint is back: 10.0.0.1:80",
    ]
    assert caplog.records[0].endpoint == "10.0.0.1:80"


def test_many_ejections_and_returns_of_a_minute_are_a_few_lines(caplog):
    caplog.set_level(logging.INFO)
    pods = [SocketAddress(f"10.0.0.{number}", 80) for number in range(1, 101)]
    group = EndpointGroup("shop/web:http", Serving(pods))
    for pod in pods:
        group.dial_failed(pod, errno.ECONNREFUSED, 0.0)
    for pod in pods:
        group.answered(pod, 1.0)
    lines = [record.getMessage() for record in caplog.records]
    assert (sum(" ejected: " in line for line in lines), len(lines)) == (10, 22)
    assert [line for line in lines if "more endpoints" in line] == [
        "shop/web:http: more endpoints ejected, not logged one by one for up to a minute",
        "shop/web:http: more endpoints are back, not logged one by one for up to a minute",
    ]
    group.dial_failed(pods[0], errno.ECONNREFUSED, 60.0)
    assert "endpoint ejected: 10.0.0.1:80 refuses" in caplog.records[-1].getMessage()


def test_the_silence_of_a_dial_before_an_endpoints_return_is_over(group):
    group.dial_failed(POD_A, errno.ETIMEDOUT, 0.0)
    assert not group.has_returned_since(POD_A, 0.0)
    group.answered(POD_A, 6.0)
    assert group.has_returned_since(POD_A, 5.9)
    assert not group.has_returned_since(POD_A, 6.1)
    assert not group.has_returned_since(POD_B, 0.0)


def test_a_shortage_is_logged_once_a_minute(group, caplog):
    for now in (0.0, 1.0, 59.0, 60.0):
        group.dial_failed(POD_A, errno.EMFILE, now)
    assert len(caplog.records) == 2


def test_ports_of_a_clients_address_are_counted_apart_and_one_line_names_the_remedy(group, caplog):
    for now in (0.0, 1.0):
        group.left_client_address(POD_A, ALICE, now)
    group.dial_failed(POD_A, errno.EADDRNOTAVAIL, 2.0, client=ALICE)
    group.dial_failed(POD_A, errno.EADDRNOTAVAIL, 3.0)
    assert (group.counters.out_of_client_ports, group.out_of_client_ports_at) == (3, 2.0)
    assert (group.counters.out_of_ports, group.out_of_ports_at) == (1, 3.0)
    assert group.counters.shortages == 2
    (record,) = caplog.records
    assert (record.client, record.endpoint) == (ALICE, "10.0.0.1:80")
    assert "tcp_timestamps=1" in record.hint


def test_an_update_reports_removed_endpoints_and_only_then(group):
    told = []
    group.on_removed.append(told.append)
    group.update(Serving([POD_B, POD_C]))
    group.update(Serving([POD_B, POD_C, POD_A]))
    assert told == [{POD_A}]


def test_counters_of_a_removed_endpoint_stay_in_the_sums(group):
    group.counters_of(POD_A).connections = 3
    group.counters_of(POD_B).connections = 4
    group.update(Serving([POD_B]))
    assert group.totals().connections == 7
    assert group.counters_of(POD_A).connections == 0


def test_an_endpoint_in_use_keeps_its_counters_after_its_removal(group):
    group.counters_of(POD_A).active = 1
    group.update(Serving([POD_B]))
    assert group.counters_of(POD_A).active == 1
    group.counters_of(POD_A).active -= 1
    assert group.totals().active == 0


def test_endpoints_that_are_added_and_removed_leave_nothing_behind():
    group = EndpointGroup("shop/web")
    for number in range(1000):
        pod = SocketAddress("10.0.0.1", number)
        group.update(Serving([pod]))
        group.counters_of(pod).connections += 1
    assert len(group._per_endpoint) <= 2
    assert group.totals().connections == 1000


# -- how one is chosen -----------------------------------------------------------


def picks(group, count, client=ALICE, now=0.0):
    return [group.balancer.pick(client, now) for _ in range(count)]


@pytest.mark.parametrize("balance", [Balance.LEAST_CONNECTIONS, Balance.POWER_OF_TWO_CHOICES])
def test_strategies_by_load_see_connections_and_dials(balance):
    group = EndpointGroup("shop/web", Serving([POD_A, POD_B], handling=Handling(balance=balance)))
    assert group.tracks_load
    group.counters_of(POD_A).active = 1
    group.dial_began(POD_B)
    group.dial_began(POD_B)
    assert (group.load_of(POD_A), group.load_of(POD_B)) == (1, 2)
    assert picks(group, 3) == [POD_A] * 3
    group.dial_ended(POD_B)
    group.dial_ended(POD_B)
    assert picks(group, 3) == [POD_B] * 3


def test_a_dial_that_was_not_counted_may_end(group):
    group.dial_ended(POD_A)
    assert group.load_of(POD_A) == 0


def test_64_unanswered_dials_are_spread_evenly():
    pods = [POD_A, POD_B, POD_C, SocketAddress("10.0.0.4", 80)]
    group = EndpointGroup(
        "shop/web", Serving(pods, handling=Handling(balance=Balance.LEAST_CONNECTIONS))
    )
    for _ in range(64):
        group.dial_began(group.balancer.pick(ALICE, 0.0))
    assert [group.load_of(pod) for pod in pods] == [16] * 4


def test_the_balance_may_change_and_pins_and_ejections_stay(group):
    group.update(Serving([POD_A, POD_B, POD_C], affinity_timeout_s=60.0))
    (pinned,) = picks(group, 1, BOB)
    dead = POD_A if pinned != POD_A else POD_B
    group.dial_failed(dead, errno.ECONNREFUSED, 0.0)
    lc = Serving([POD_A, POD_B, POD_C], 60.0, handling=Handling(balance=Balance.LEAST_CONNECTIONS))
    group.update(lc)
    assert group.tracks_load
    assert picks(group, 2, BOB) == [pinned] * 2
    assert group.ejected(0.0) == {dead: 5.0}
    group.update(Serving([POD_A, POD_B, POD_C], 60.0))
    assert not group.tracks_load


@pytest.mark.parametrize("balance", [one for one in Balance if one is not Balance.SOURCE_HASH])
def test_a_seed_repeats_the_choices_and_another_one_changes_them(balance):
    pods = [POD_A, POD_B, POD_C]

    def chosen(seed):
        handling = Handling(balance=balance, seed=seed)
        return picks(EndpointGroup("shop/web", Serving(pods, handling=handling)), 20)

    assert chosen(1) == chosen(1)
    assert chosen(1) != chosen(0)


def test_a_seed_that_changes_starts_the_choices_again(group):
    group.update(Serving([POD_A, POD_B, POD_C]))
    assert picks(group, 1) == [POD_A]
    seeded = Serving([POD_A, POD_B, POD_C], handling=Handling(seed=2))
    group.update(seeded)
    assert picks(group, 1) == [POD_C]
    group.update(seeded)
    assert picks(group, 1) == [POD_A]


def test_dials_that_end_uncounted_are_no_load_for_ever(group):
    by_load = Serving([POD_A, POD_B], handling=Handling(balance=Balance.LEAST_CONNECTIONS))
    group.update(by_load)
    group.dial_began(POD_A)
    group.update(Serving([POD_A, POD_B]))
    group.update(by_load)
    assert group.load_of(POD_A) == 0


def test_affinity_may_begin_and_end(group):
    group.update(Serving([POD_A, POD_B], affinity_timeout_s=60.0))
    assert len(set(picks(group, 4))) == 1
    group.update(Serving([POD_A, POD_B]))
    assert len(set(picks(group, 4))) == 2


# -- inside and outside ------------------------------------------------------------

CLUSTER = ("10.0.0.0/8",)
POD_CLIENT = "10.9.9.9"


def test_clients_outside_have_endpoints_of_their_own(group):
    group.update(Serving([POD_A, POD_B], outside=[POD_C], inside=CLUSTER))
    assert picks(group, 2, POD_CLIENT) == [POD_A, POD_B]
    assert picks(group, 2, ALICE) == [POD_C] * 2


def test_a_split_that_begins_and_ends_keeps_turns_pins_and_ejections(group):
    pods = [POD_A, POD_B, POD_C]
    group.update(Serving(pods, affinity_timeout_s=60.0))
    pinned = {client: picks(group, 1, client)[0] for client in (POD_CLIENT, "10.9.9.8")}
    group.dial_failed(POD_C, errno.ECONNREFUSED, 0.0)
    for split in (
        Serving(pods, 60.0, outside=[POD_B], inside=CLUSTER),
        Serving(pods, 60.0, outside=[POD_B], inside=("10.9.0.0/16",)),
        Serving(pods, 60.0),
    ):
        group.update(split)
        assert {client: picks(group, 1, client)[0] for client in pinned} == pinned
        assert group.ejected(0.0) == {POD_C: 5.0}


def test_the_networks_inside_may_change(group):
    group.update(Serving([POD_A], outside=[POD_B], inside=CLUSTER))
    group.update(Serving([POD_A], outside=[POD_B], inside=(f"{ALICE}/32",)))
    assert [picks(group, 1, client)[0] for client in (ALICE, POD_CLIENT)] == [POD_A, POD_B]


def test_an_endpoint_is_reported_as_removed_if_one_side_may_not_use_it(group):
    told = []
    group.on_removed.append(told.append)
    group.update(Serving([POD_A, POD_B], outside=[POD_B, POD_C], inside=CLUSTER))
    assert told == [{POD_A}]
    group.update(Serving([POD_A], outside=[POD_B, POD_C], inside=CLUSTER))
    assert told == [{POD_A}, {POD_B}]
    group.update(Serving([POD_A], outside=[POD_B], inside=CLUSTER))
    assert told == [{POD_A}, {POD_B}, {POD_C}]
    group.update(Serving([POD_A]))
    assert told == [{POD_A}, {POD_B}, {POD_C}, {POD_B}]


def test_by_load_both_sides_see_the_same_load(group):
    pods = [POD_A, POD_B]
    group.update(
        Serving(
            pods, outside=pods, inside=CLUSTER, handling=Handling(balance=Balance.LEAST_CONNECTIONS)
        )
    )
    group.dial_began(POD_A)
    assert [picks(group, 1, client)[0] for client in (POD_CLIENT, ALICE)] == [POD_B] * 2


def picked(group, count=10, client=ALICE):
    """Return how often each endpoint is picked."""
    return Counter(group.balancer.pick(client, 0.0) for _ in range(count))


def test_weights_decide_the_shares_and_may_change():
    group = EndpointGroup("shop/web:http", Serving((POD_A, POD_B), weights=((POD_A, 400),)))
    assert picked(group) == {POD_A: 8, POD_B: 2}
    group.update(Serving((POD_A, POD_B), weights=((POD_A, 100), (POD_B, 400))))
    assert picked(group) == {POD_A: 2, POD_B: 8}
    group.update(Serving((POD_A, POD_B)))
    assert picked(group) == {POD_A: 5, POD_B: 5}


def test_weights_count_on_both_sides_of_a_split():
    pods = (POD_A, POD_B)
    group = EndpointGroup(
        "shop/web:http",
        Serving(pods, outside=pods, inside=(f"{ALICE}/32",), weights=((POD_A, 400),)),
    )
    assert [picked(group, client=client)[POD_A] for client in (ALICE, BOB)] == [8, 8]


def test_an_endpoint_that_is_put_on_standby_loses_its_flows(group):
    left = []
    group.on_removed.append(left.append)
    group.update(Serving((POD_A, POD_B), standbys=((POD_B, 1),)))
    assert picked(group) == {POD_A: 10}
    group.update(Serving((POD_B,), standbys=()))
    assert picked(group) == {POD_B: 10}
    group.update(Serving((POD_A, POD_B), standbys=((POD_B, 1),)))
    assert left == [{POD_B}, {POD_A}, {POD_B}]


def test_a_client_keeps_its_endpoint_by_its_address_in_each_worker():
    serving = Serving(
        (POD_A, POD_B, POD_C),
        handling=Handling(balance=Balance.SOURCE_HASH),
        standbys=((POD_C, 1),),
    )
    groups = [EndpointGroup("shop/web:http", serving, start=number) for number in range(3)]
    clients = [f"203.0.113.{number}" for number in range(20)]
    found = [[group.balancer.pick(client, 0.0) for client in clients] for group in groups]
    assert found[0] == found[1] == found[2]
    assert set(found[0]) == {POD_A, POD_B}


def limited(max_connections, *pods, **others):
    handling = Handling(max_connections=max_connections)
    return Serving(pods or (POD_A, POD_B), handling=handling, **others)


def test_with_a_limit_the_endpoint_with_the_most_room_is_picked_until_none_has_any():
    group = EndpointGroup("shop/web", limited(2))
    group.counters_of(POD_A).active = 1
    for expected in (POD_B, POD_A, POD_B):
        (picked,) = picks(group, 1)
        group.dial_began(picked)
        assert picked == expected or group.load_of(POD_A) == group.load_of(POD_B)
    assert picks(group, 1) == [None]
    assert group.is_full(POD_A)
    assert group.is_at_limit(ALICE, 0.0, ())
    group.dial_ended(POD_B)
    assert picks(group, 1) == [POD_B]


@pytest.mark.parametrize(
    ("limit", "processes", "shares"),
    [
        pytest.param(100, 1, [100], id="one-process"),
        pytest.param(100, 3, [34, 33, 33], id="with-a-rest"),
        pytest.param(2, 3, [1, 1, 1], id="at-least-one"),
    ],
)
def test_processes_share_a_limit(limit, processes, shares):
    groups = [
        EndpointGroup("shop/web", limited(limit), start=index, processes=processes)
        for index in range(processes)
    ]
    for group, share in zip(groups, shares, strict=True):
        group.counters_of(POD_A).active = share - 1
        assert not group.is_full(POD_A)
        group.counters_of(POD_A).active = share
        assert group.is_full(POD_A)


def test_a_limit_may_come_and_go_also_for_clients_outside(group):
    for serving in (limited(1), limited(1, outside=(POD_B,), inside=("10.0.0.0/8",))):
        group.update(serving)
        group.counters_of(POD_A).active = group.counters_of(POD_B).active = 1
        assert picks(group, 1) == [None]
        group.update(Serving([POD_A, POD_B]))
        assert None not in picks(group, 2)
        assert not group.is_at_limit(ALICE, 0.0, ())
