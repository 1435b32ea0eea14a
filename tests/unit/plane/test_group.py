from types import SimpleNamespace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from tests.port_keys import port_key
from userspace_proxy.causes.cause import CauseCode
from userspace_proxy.dataplane import Waiting
from userspace_proxy.facts import TIMES_BOUNDS_S, EndpointCounters, GroupCounters, StreakPart
from userspace_proxy.facts.last_minute import MinuteCounts
from userspace_proxy.model import Balance, Failure, Handling, Hold, SocketAddress
from userspace_proxy.model.serving import Serving
from userspace_proxy.plane import group as module
from userspace_proxy.plane.channel import MAX_FRAME_BYTES
from userspace_proxy.plane.denials import DropReason
from userspace_proxy.plane.group import (
    KNOWN_MAX,
    EndpointChanges,
    Group,
    Totals,
    diff_endpoints,
    keys_of_removed,
)
from userspace_proxy.plane.messages import (
    MAX_GROUP_BYTES,
    ChangeGroup,
    DurationReport,
    EndpointReport,
    GroupReport,
    OpenGroup,
    WaitingReport,
)
from userspace_proxy.policy import ENDPOINTS_MAX

from .reports import endpoint_report, group_report

POD_A, POD_B, POD_C = (SocketAddress(f"10.0.0.{number}", 80) for number in (1, 2, 3))
ONE, TWO = 0, 1


SERVING = Serving((POD_A, POD_B), 60)


def report_of_a(**counted):
    return group_report(endpoint_report(POD_A, **counted))


@pytest.fixture
def group():
    group = Group(7, port_key("shop/web:http"))
    group.change(SERVING)
    return group


@pytest.mark.parametrize(("away_s", "failures"), [(59, 1), (60, 0)])
def test_failures_count_after_an_endpoints_return_only_for_a_minute(group, away_s, failures):
    """Otherwise a Node that isn't ready for a second would hide that its endpoints fail."""
    group.counters_of(POD_A).dials.failed(5.0)
    group.change(Serving(()), 6.0)
    group.change(Serving((POD_B,)), 7.0)
    group.change(SERVING, 6.0 + away_s)
    assert group.read_counters(POD_A).dials.part.failures == failures


@pytest.mark.parametrize(
    ("without", "flaps"),
    [
        pytest.param(Serving(()), 1, id="clients-are-refused"),
        pytest.param(Serving((), handling=Handling(hold=Hold(60))), 0, id="clients-wait"),
        pytest.param(Serving((), outside=(POD_A,)), 0, id="outside-clients-are-served"),
        pytest.param(Serving((POD_B,)), 0, id="another-endpoint"),
    ],
)
def test_losing_all_endpoints_is_a_flap_for_a_minute_if_clients_are_refused(group, without, flaps):
    assert group.last_minute.failing(1.0).flaps == 0, "no endpoint before"
    group.change(without, 1.0)
    group.change(replace(without, affinity_timeout_s=9), 2.0)
    group.change(SERVING, 3.0)
    assert group.last_minute.failing(4.0).flaps == flaps
    assert group.last_minute.failing(90.0).flaps == 0


def test_an_opening_message_contains_the_complete_group(group):
    assert group.opening().message() == OpenGroup(7, port_key("shop/web:http"), SERVING)


@pytest.mark.parametrize(
    ("serving", "removed", "added"),
    [
        pytest.param(Serving((POD_A,), 60), [POD_B], [], id="an-endpoint-fewer"),
        pytest.param(Serving((POD_A, POD_C, POD_B), 60), [], [(1, POD_C)], id="an-endpoint-more"),
    ],
)
def test_a_change_message_contains_only_changed_endpoints(group, serving, removed, added):
    assert group.change(serving).message() == ChangeGroup(7, removed, added)
    assert group.serving is serving
    assert group.change(serving) is None


@pytest.mark.parametrize(
    "others",
    [
        pytest.param({"affinity_timeout_s": None}, id="no-affinity"),
        pytest.param(
            {"handling": Handling(balance=Balance.LEAST_CONNECTIONS)}, id="another-balance"
        ),
        pytest.param({"outside": (POD_A,), "inside": ("10.0.0.0/8",)}, id="a-split"),
        pytest.param({"weights": ((POD_A, 5),), "standbys": ((POD_B, 1),)}, id="preferences"),
        pytest.param({"admits": (), "handling": Handling(keeps_clients=False)}, id="several"),
    ],
)
def test_a_change_of_options_is_sent_without_endpoints(group, others):
    changed = replace(SERVING, **others)
    message = group.change(changed).message()
    assert message == ChangeGroup(7, [], [], replace(changed, endpoints=()))
    assert group.change(changed) is None


def test_the_message_of_a_waiting_update_contains_the_newest_endpoints(group):
    update = group.change(Serving((POD_A,), 60))
    update.new = Serving((POD_A, POD_C), 60)
    assert update.message() == ChangeGroup(7, [POD_B], [(1, POD_C)])


def largest(count):
    """Return a Serving with this many endpoints, whose texts are as long as possible."""
    endpoints = tuple(SocketAddress(f"2001:db8:{'ffff:' * 5}{n:04x}", 65535) for n in range(count))
    numbers = tuple((endpoint, 65535) for endpoint in endpoints)
    return Serving(endpoints, outside=endpoints, weights=numbers, standbys=numbers)


def test_a_worker_accepts_a_group_with_the_maximum_number_of_endpoints_but_not_twice_as_many(group):
    assert group.too_large_reason(largest(ENDPOINTS_MAX)) == ""
    assert "a worker process takes 2,621,440" in group.too_large_reason(largest(2 * ENDPOINTS_MAX))


def test_the_size_of_an_unchanged_state_is_not_measured_again(group, monkeypatch):
    measured, measure = [], group._measure
    monkeypatch.setattr(Group, "_measure", lambda _, one: measured.append(one) or measure(one))
    fits, other, huge = Serving((POD_A,)), Serving((POD_B,)), largest(2 * ENDPOINTS_MAX)
    for serving in (fits, fits, Serving((POD_A,)), other, huge, huge, fits):
        assert bool(group.too_large_reason(serving)) == (serving is huge)
    assert measured == [fits, other, huge, fits]


def test_any_change_of_a_group_of_allowed_size_fits_into_a_frame(group):
    # The texts are as short as possible, and in reverse order, so that indexes dominate the size.
    endpoints = tuple(SocketAddress(f"::{n:x}", 1) for n in range(65536))
    group.change(Serving(endpoints))
    opening = len(msgspec.json.encode(group.opening().message()))
    change = len(msgspec.json.encode(group.change(Serving(endpoints[::-1])).message()))
    assert change / opening < MAX_FRAME_BYTES / MAX_GROUP_BYTES


def test_an_endpoint_that_serves_only_outside_clients_is_counted(group):
    group.change(Serving((POD_A,), outside=(POD_B,)))
    group.add(ONE, group_report(endpoint_report(POD_B, connections=1), ejected=[(POD_B, 5.0)]), 0.0)
    assert group.counters_of(POD_B).connections == 1
    assert group.ejected(0.0) == {POD_B: 5.0}
    group.change(Serving((), outside=(POD_B,)))
    group.change(Serving(()), 1.0)
    assert group.last_minute.failing(1.0).flaps == 1


def test_worker_reports_are_summed(group):
    one = {
        "active": 1,
        "connections": 2,
        "failures": 3,
        "endpoint_silent": 3,
        "received_bytes": 4,
        "sent_bytes": 5,
    }
    two = {name: 10 * figure for name, figure in one.items()}
    group.add(ONE, group_report(endpoint_report(POD_A, **one), refused=1), 0.0)
    b = endpoint_report(POD_B, connections=1)
    group.add(TWO, group_report(endpoint_report(POD_A, **two), b, refused=2), 0.0)
    pod_a = group.counters_of(POD_A)
    assert (pod_a.active, pod_a.connections, pod_a.failures) == (11, 22, 33)
    assert group.totals().failures_by_cause() == {CauseCode.ENDPOINT_SILENT: 33}
    assert (pod_a.received_bytes, pod_a.sent_bytes) == (44, 55)
    assert group.totals().connections == 23
    assert group.counters.refused == 3


def test_an_exited_workers_open_connections_are_subtracted(group):
    group.add(ONE, report_of_a(active=3, connections=3, received_bytes=70), 0.0)
    group.add(ONE, report_of_a(active=-1), 0.0)
    group.add(TWO, report_of_a(active=5, connections=5), 0.0)
    group.worker_ended(ONE)
    group.worker_ended(ONE)
    pod_a = group.counters_of(POD_A)
    assert (pod_a.active, pod_a.connections, pod_a.received_bytes) == (5, 8, 70)


def test_reports_count_for_present_and_the_most_recently_removed_endpoints(group):
    pods = [SocketAddress(f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}", 80) for n in range(24_000)]
    stay, others = tuple(pods[:4_000]), pods[4_000:]
    for first in range(0, len(others), 5_000):
        some = others[first : first + 5_000]
        group.change(Serving((*stay, *some[::2]), outside=(*stay, *some[1::2])))
    group.add(ONE, group_report(*(endpoint_report(pod, connections=1) for pod in pods)), 0.0)
    assert group.totals().connections == len(group.serving.all_endpoints) + KNOWN_MAX
    present = group.serving.all_endpoints
    assert {group.counters_of(pod).connections for pod in present} == {1}


def test_endpoint_counters_share_the_address_objects_of_the_plan(group):
    read = SocketAddress(POD_A.ip, POD_A.port)
    group.add(ONE, group_report(endpoint_report(read, connections=1)), 0.0)
    assert [each for each, _ in group.each_counters() if each is POD_A] == [POD_A]


def test_connections_to_dropped_endpoints_are_not_counted_as_open(group, monkeypatch):
    monkeypatch.setattr(module, "KNOWN_MAX", 10)
    pods = [SocketAddress(f"10.0.0.{n}", 80) for n in range(24)]
    first, second, third = pods[:8], pods[8:16], pods[16:]
    for current in (first, second, third):
        group.change(Serving(tuple(current)))
        begun = group_report(*(endpoint_report(pod, active=1) for pod in current))
        for worker in (ONE, TWO):
            group.add(worker, begun, 0.0)
    # The third update dropped 6 of the first endpoints, including POD_A, which now returns.
    group.change(Serving((POD_A,)))
    ends = group_report(*(endpoint_report(pod, active=-1) for pod in pods))
    for worker in (ONE, TWO):
        group.add(worker, ends, 1.0)
    assert group.totals().active == 0
    group.change(Serving((POD_B,)))
    assert dict(group.each_counters()) == {}


def test_failed_clients_are_counted_by_endpoint_for_a_minute(group):
    assert group.failed_at(POD_A, 0.0) == MinuteCounts()
    group.add(ONE, report_of_a(connections=9, unanswered=2), 0.0)
    others = (
        endpoint_report(POD_B, connections=9, failures=4),
        endpoint_report(POD_C, connections=9),
    )
    group.add(TWO, group_report(endpoint_report(POD_A, unanswered=3), *others), 30.0)
    assert group.failed_at(POD_A, 59.0) == MinuteCounts(connections=9, unanswered=5)
    assert group.failed_at(POD_B, 59.0) == MinuteCounts(connections=9, refused=4)
    assert group.failed_at(POD_C, 59.0) == MinuteCounts()
    assert group.failed_at(POD_A, 65.0) == MinuteCounts(unanswered=3)
    assert group.failed_at(POD_A, 95.0) == MinuteCounts()
    group.change(Serving((POD_B,)))
    group.change(SERVING)
    assert group.failed_at(POD_A, 65.0) == MinuteCounts(), "the endpoint left in between"
    assert group.failed_at(POD_B, 59.0) == MinuteCounts(connections=9, refused=4)


def test_an_endpoint_is_ejected_while_any_worker_ejects_it(group):
    group.add(ONE, group_report(ejected=[(POD_A, 5.0)]), 100.0)
    group.add(TWO, group_report(ejected=[(POD_A, 9.0), (POD_B, 1.0)]), 100.0)
    assert group.ejected(102.0) == {POD_A: 7.0, POD_B: 0.0}
    group.add(TWO, group_report(), 102.0)
    assert group.ejected(102.0) == {POD_A: 3.0}
    group.worker_ended(ONE)
    assert group.ejected(102.0) == {}
    assert not group.each_counters(), "reading ejections creates no counters"


def test_an_ejection_of_an_endpoint_outside_the_group_is_not_shown(group):
    group.add(ONE, group_report(ejected=[(POD_C, 5.0)]), 0.0)
    assert group.ejected(0.0) == {}


def test_an_endpoint_that_answered_after_its_ejection_is_not_shown_as_ejected(group):
    failed = StreakPart(-1.0, 1, 99.0, 99.0, Failure.RESET)
    group.add(ONE, group_report(endpoint_report(POD_A, failed), ejected=[(POD_A, 5.0)]), 100.0)
    assert group.ejected(100.0) == {POD_A: 5.0}
    answered = StreakPart(99.0, 0, -1.0, -1.0, Failure.OTHER)
    group.add(TWO, group_report(endpoint_report(POD_A, answered), ejected=[(POD_A, 5.0)]), 100.0)
    assert group.ejected(100.0) == {}, "POD_A answered after both ejections"
    failed = StreakPart(99.0, 1, 101.0, 101.0, Failure.RESET)
    group.add(ONE, group_report(endpoint_report(POD_A, failed), ejected=[(POD_A, 5.0)]), 101.0)
    assert group.ejected(101.0) == {POD_A: 5.0}


def test_the_time_of_the_last_source_port_shortage_is_recorded(group):
    group.add(0, group_report(out_of_ports=2), 5.0)
    group.add(1, group_report(out_of_client_ports=1), 6.0)
    group.add(1, group_report(evicted=3), 7.0)
    assert (group.counters.out_of_ports, group.out_of_ports_at) == (2, 5.0)
    assert (group.counters.out_of_client_ports, group.out_of_client_ports_at) == (1, 6.0)
    assert group.counters.evicted == 3


def test_the_last_response_time_covers_all_endpoints_and_connections(group):
    assert group.sent_at < 0
    group.add(0, report_of_a(connections=1, received_bytes=9), 4.0)
    assert group.sent_at < 0
    group.add(0, report_of_a(sent_bytes=7), 9.0)
    group.add(1, report_of_a(sent_bytes=0), 14.0)
    assert group.sent_at == 9.0
    group.add(1, group_report(endpoint_report(POD_B, sent_bytes=1)), 19.0)
    assert group.sent_at == 19.0


def test_a_byte_after_the_client_closed_does_not_count_as_a_response(group):
    ends = StreakPart(-1.0, 1, 6.0, 6.0, Failure.UNANSWERED)
    report = replace(endpoint_report(POD_A, connections=1, sent_bytes=9), ends=ends)
    group.add(0, group_report(report), 8.0)
    assert group.sent_at < 0


def test_an_empty_datagram_is_a_reply(group):
    ends = StreakPart(6.0, 0, -1.0, -1.0, Failure.OTHER)
    report = replace(endpoint_report(POD_A, connections=1), ends=ends)
    group.add(0, group_report(report), 8.0)
    assert group.sent_at == 6.0


def test_unanswered_connections_are_summed_over_endpoints_and_workers(group):
    ended = (endpoint_report(pod, connections=4, unanswered=1) for pod in (POD_A, POD_B))
    group.add(0, group_report(*ended), 4.0)
    group.add(1, report_of_a(connections=2, unanswered=2, client_aborts=2), 5.0)
    group.add(0, report_of_a(client_aborts=1, endpoint_aborts=1), 11.0)
    assert group.last_minute.failing(12.0) == MinuteCounts(10, 0, 4, 3, 1)


def test_clients_that_failed_while_waiting_are_counted_separately(group):
    counted = {
        "waits.timeouts": 1,
        "waits.overflows": 2,
        "waits.client_aborts": 3,
        "aborts_after_wait": 4,
    }
    group.add(0, group_report(endpoint_report(POD_A, connections=9), refused=5, **counted), 4.0)
    assert group.last_minute.failing(4.0) == MinuteCounts(connections=5, refused=2, queued=10)


def test_connections_reset_for_an_endpoints_removal_or_an_idle_timeout_are_counted(group):
    group.add(0, group_report(endpoint_report(POD_A, connections=9), ended_by_removal=4), 4.0)
    assert group.last_minute.failing(4.0) == MinuteCounts(connections=9, removed=4)
    group.add(0, group_report(ended_idle=2), 5.0)
    assert group.last_minute.failing(5.0) == MinuteCounts(connections=9, removed=4, idle=2)


def test_denied_clients_are_attributed_to_the_source_ranges_that_denied_them(group):
    group.change(Serving((POD_A,), admits=("192.0.2.0/24",)), 1.0)
    group.add(0, group_report(denied=2), 7.0)
    group.change(Serving((POD_A,), admits=("198.51.100.0/24",)), 8.0)
    by = group.denials.by
    assert (by[DropReason.RANGES].packets, by[DropReason.FORMER_RANGES].packets) == (0, 2)


PODS = [SocketAddress(f"10.0.0.{number}", 80) for number in range(10)]
A, B, C, D = PODS[:4]
some_pods = st.lists(st.sampled_from(PODS), unique=True)


def applied(changes, have):
    """Return the endpoints after changes, applied as by a worker."""
    endpoints = [e for e in have if e not in set(changes.removed)]
    for place, endpoint in changes.added:
        endpoints.insert(place, endpoint)
    return endpoints


@given(some_pods, some_pods)
def test_applying_the_difference_of_two_lists_to_the_first_yields_the_second(have, want):
    assert applied(diff_endpoints(have, want), have) == want


@given(st.lists(st.sampled_from(PODS), unique=True, min_size=1), st.data())
def test_a_single_added_or_removed_endpoint_is_the_only_difference(endpoints, data):
    place = data.draw(st.integers(0, len(endpoints) - 1))
    others = endpoints[:place] + endpoints[place + 1 :]
    one = endpoints[place]
    assert diff_endpoints(endpoints, others) == EndpointChanges([one], [])
    assert diff_endpoints(others, endpoints) == EndpointChanges([], [(place, one)])


def test_waiting_clients_are_summed_over_running_workers(group):
    assert group.waiting(100.0) == Waiting()
    group.add(ONE, group_report(waiting=WaitingReport(2, 1.0)), 100.0)
    group.add(TWO, group_report(waiting=WaitingReport(3, 5.0)), 100.0)
    assert group.has_passing
    assert group.waiting(102.0) == Waiting(5, 7.0)
    group.worker_ended(ONE)
    assert group.waiting(102.0) == Waiting(3, 7.0)
    group.add(TWO, group_report(), 103.0)
    assert group.waiting(103.0) == Waiting()
    assert not group.has_passing


@pytest.mark.parametrize("side", ["endpoints", "outside"])
def test_a_group_reports_slow_starting_endpoints_like_its_workers(group, side):
    def serving(*pods):
        return Serving(handling=Handling(slow_start_s=50.0), **{side: pods})

    group.change(serving(POD_A, POD_B), 100.0)
    assert group.starting(100.0) == {}
    assert not group.has_passing
    group.change(serving(POD_A, POD_B, POD_C), 100.0)
    group.returned(POD_A, 110.0)
    assert group.has_passing
    assert group.starting(125.0) == {POD_A: 0.3, POD_C: 0.5}
    group.change(serving(POD_A, POD_B), 130.0)
    assert group.starting(135.0) == {POD_A: 0.5}
    assert group.starting(160.0) == {}
    assert not group.has_passing


def test_an_endpoint_that_left_its_group_is_removed_even_if_another_group_has_it(group):
    other = Group(8, port_key("shop/cart:http"))
    followed = {
        one.number: SimpleNamespace(group=one, endpoint=POD_A, serving=None)
        for one in (group, other)
    }
    other.change(Serving((POD_B,)))
    assert keys_of_removed(followed) == [8]


def make_report(group, *, refused, connections):
    counters, endpoint = GroupCounters(), EndpointCounters()
    counters.refused, endpoint.connections = refused, connections
    endpoints = [EndpointReport(pod, endpoint.figures()) for pod in (POD_A, POD_B)]
    times = DurationReport([1, *[0] * len(TIMES_BOUNDS_S)], 0.25)
    first_bytes = replace(times, seconds=1.0)
    return GroupReport(group, counters.figures(), endpoints, [], times, first_bytes)


def test_totals_add_up_the_counters_of_all_groups_and_endpoints(group):
    totals = Totals()
    totals.add(make_report(1, refused=3, connections=5))
    totals.add(make_report(2, refused=4, connections=1))
    assert totals.counters.refused == 7
    assert totals.endpoints.connections == 12
    group.add(ONE, make_report(7, refused=3, connections=5), 0.0)
    found = [(one.connect_times.seconds, one.first_byte_times.seconds) for one in (totals, group)]
    assert found == [(0.5, 2.0), (0.25, 1.0)]
    assert totals.connect_times.count == 2
