import errno
import logging

import pytest

from tests.port_keys import port_key
from userspace_proxy.agent.rounds.wall_clock import WallClock
from userspace_proxy.balance import AffinityTables
from userspace_proxy.causes.cause import CauseCode
from userspace_proxy.causes.endpoints import no_host, no_route
from userspace_proxy.causes.say import say
from userspace_proxy.dataplane import EndpointGroup, endpoint_group
from userspace_proxy.diagnosis.failures import failure_of
from userspace_proxy.facts.connection import ConnectionFacts, failed_dials
from userspace_proxy.model import DialFailure, Failure, Handling, IPFamily, SocketAddress
from userspace_proxy.model.failures import dial_failure
from userspace_proxy.model.serving import Serving

from .groups import ALICE, CLUSTER, POD_A, POD_B, POD_C, News, picked, picks


def test_an_update_reports_only_removed_endpoints(group):
    told = []
    for listener in (1, 2):
        group.on_removed.append(lambda gone, _begun_by, at=listener: told.append((at, gone)))
    group.update(Serving([POD_B, POD_C]))
    group.update(Serving([POD_B, POD_C, POD_A]))
    assert told == [(1, {POD_A}), (2, {POD_A})]


def test_only_ports_of_one_service_share_affinity_entries():
    tables, shared = AffinityTables(), Handling(shares_affinity=True)
    serving = Serving([POD_A, POD_B], affinity_timeout_s=60, handling=shared)
    keys = ("shop/sip:sip", "shop/sip:rtp", "bank/sip:rtp", "shop/web:rtp")
    groups = [
        EndpointGroup(port_key(key), serving, start=bool(at), entries=tables)
        for at, key in enumerate(keys)
    ]
    assert [picks(group, 1) for group in groups] == [[POD_A], [POD_A], [POD_B], [POD_B]]


def test_an_endpoint_in_use_keeps_its_counters_after_its_removal(group):
    group.counters_of(POD_A).active = 1
    group.update(Serving([POD_B]))
    assert group.counters_of(POD_A).active == 1
    group.note_left({POD_A: 1.0, POD_B: 1.0, POD_C: 1.0}, 2.0)
    assert group.left_at.keys() == {POD_A, POD_B}
    group.counters_of(POD_B).active = group.counters_of(POD_C).connections = 1
    assert group.former_endpoints() == {POD_A}
    group.counters_of(POD_A).active -= 1
    assert group.totals().active == 1


@pytest.mark.parametrize(
    ("answered_at", "dialled_at", "is_blamed"),
    [(5.0, 6.0, False), (4.9, 6.0, True), (5.5, 5.2, True), (5.5, None, True)],
    ids=["waited", "others-waited-too", "at-once", "not-dialled"],
)
def test_an_endpoint_is_not_blamed_for_a_client_that_waited_while_it_answered_others(
    group, answered_at, dialled_at, is_blamed
):
    counters = group.counters_of(POD_A)
    counters.ends.succeeded_at = answered_at
    abort_counters = group.abort_counters_of(counters, 5.0, dialled_at)
    assert (abort_counters is counters) is is_blamed


@pytest.mark.parametrize(
    ("failed", "late"),
    [
        ([CauseCode.ENDPOINT_REFUSES], 0),
        ([CauseCode.ENDPOINT_REFUSES, CauseCode.ENDPOINT_SILENT], 1),
        ([CauseCode.ENDPOINT_NO_HOST], 1),
    ],
)
def test_a_saved_connection_counts_as_late_only_after_a_slow_dial_failure(group, failed, late):
    counters = group.counters_of(POD_A)
    group.note_saved(counters, failed)
    assert (group.counters.saved, counters.late) == (1, late)


@pytest.mark.parametrize("side", ["endpoints", "outside"])
def test_counters_of_removed_endpoints_are_added_to_the_totals_and_dropped(side):
    group = EndpointGroup(port_key("shop/web"))
    for number in range(1000):
        pod = SocketAddress("10.0.0.1", number)
        group.update(Serving(**{side: [pod]}))
        group.counters_of(pod).connections += 1
    assert len(group._per_endpoint) <= 2
    assert group.totals().connections == 1000


def test_an_endpoint_removed_from_either_side_is_reported_as_removed(group):
    told = []
    group.on_removed.append(lambda removed, _begun_by: told.append(removed))
    group.update(Serving([POD_A, POD_B], outside=[POD_B, POD_C], inside=CLUSTER))
    assert told == [{POD_A}]
    group.update(Serving([POD_A], outside=[POD_B, POD_C], inside=CLUSTER))
    assert told == [{POD_A}, {POD_B}]
    group.update(Serving([POD_A], outside=[POD_B], inside=CLUSTER))
    assert told == [{POD_A}, {POD_B}, {POD_C}]
    group.update(Serving([POD_A]))
    assert told == [{POD_A}, {POD_B}, {POD_C}, {POD_B}]


def test_an_endpoint_that_becomes_a_standby_is_reported_as_removed(group):
    left = []
    group.on_removed.append(lambda removed, _begun_by: left.append(removed))
    group.update(Serving((POD_A, POD_B), standbys=((POD_B, 1),)))
    assert picked(group) == {POD_A: 10}
    group.update(Serving((POD_B,), standbys=()))
    assert picked(group) == {POD_B: 10}
    group.update(Serving((POD_A, POD_B), standbys=((POD_B, 1),)))
    assert left == [{POD_B}, {POD_A}, {POD_B}]
    for endpoint in (POD_A, POD_B):
        group.end_flows_to(endpoint, begun_by=1.0)
    assert left[3:] == [{POD_B}]


def test_a_group_has_the_label_and_prefixes_of_its_service_port():
    group = EndpointGroup(port_key("shop/web:http", IPFamily.IPV6))
    assert (group.label, group.reference) == ("shop/web:http (IPv6)", "shop/web:http")
    assert group.prefixes == ("shop", "shop/web", "shop/web:http")


def test_timeouts_between_icmp_errors_do_not_hide_the_errors(group):
    dials = group.counters_of(POD_A).dials
    for now, number in enumerate((errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ETIMEDOUT)):
        group.failed(POD_A, dial_failure(number, POD_A.ip), float(now))
    assert (dials.part.failures, dials.part.failure) == (3, Failure.HOST_UNREACHABLE)
    group.failed(POD_A, dial_failure(errno.ECONNREFUSED, POD_A.ip), 3.0)
    assert dials.part.failure is Failure.REFUSED
    group.failed(POD_B, dial_failure(errno.EHOSTUNREACH, POD_B.ip), 0.0)
    group.answered(POD_B, 1.0)
    group.failed(POD_B, dial_failure(errno.ETIMEDOUT, POD_B.ip), 2.0)
    assert group.counters_of(POD_B).dials.part.failure is Failure.SILENT


def test_a_success_in_another_worker_ends_the_streak(group):
    group.failed(POD_A, dial_failure(errno.ETIMEDOUT, POD_A.ip), 0.0)
    group.answered_elsewhere(POD_A, 1.0)
    assert not group.counters_of(POD_A).dials.is_on
    assert group.balancers.current.ejected(1.0) == {}


def test_client_specific_failures_eject_none_and_begin_a_streak_only_if_uncertain(group):
    group.failed(
        POD_A, dial_failure(errno.ECONNREFUSED, POD_A.ip), 0.0, may_be_client_specific=True
    )
    group.failed(POD_B, dial_failure(errno.ECONNREFUSED, POD_B.ip), 0.0, is_client_specific=True)
    assert group.balancers.current.ejected(0.0) == {}
    assert group.counters_of(POD_A).dials.is_on
    assert not group.counters_of(POD_B).dials.is_on


@pytest.mark.parametrize("number", [errno.ECONNRESET, errno.EPIPE], ids=errno.errorcode.get)
def test_a_dial_reset_after_accept_counts_as_an_unanswered_connection(group, number):
    group.failed(POD_A, dial_failure(number, POD_A.ip), 1.0, is_client_specific=True)
    counters = group.counters_of(POD_A)
    assert counters.failures_by_cause() == {CauseCode.ENDPOINT_RESETS: 1}
    assert (counters.dials.is_on, counters.ends.is_on) == (False, True)


@pytest.mark.parametrize(
    "number",
    [errno.EMFILE, errno.ENFILE, errno.EADDRNOTAVAIL, errno.ENOBUFS, errno.ENOMEM, errno.EAGAIN],
    ids=errno.errorcode.get,
)
def test_a_local_resource_shortage_ejects_no_endpoint(group, number):
    group.failed(POD_A, dial_failure(number, POD_A.ip), 0.0)
    assert group.balancers.current.ejected(0.0) == {}
    assert (group.counters_of(POD_A).failures, group.counters.shortages) == (1, 1)
    assert not group.counters_of(POD_A).dials.is_on


def test_a_hundred_ejections_and_returns_are_logged_in_22_lines_a_minute(caplog):
    caplog.set_level(logging.INFO)
    pods = [SocketAddress(f"10.0.0.{number}", 80) for number in range(1, 101)]
    group = EndpointGroup(port_key("shop/web:http"), Serving(pods))
    for pod in pods:
        group.failed(pod, dial_failure(errno.ECONNREFUSED, pod.ip), 0.0)
    for pod in pods:
        group.answered(pod, 1.0)
    lines = [record.getMessage() for record in caplog.records]
    assert (sum(" ejected: " in line for line in lines), len(lines)) == (10, 22)
    assert [line for line in lines if "more endpoints" in line] == [
        "shop/web:http: more endpoints ejected, further lines omitted for up to a minute",
        "shop/web:http: more endpoints readmitted, further lines omitted for up to a minute",
    ]
    group.failed(pods[0], dial_failure(errno.ECONNREFUSED, pods[0].ip), 60.0)
    assert "endpoint ejected: 10.0.0.1:80 refuses" in caplog.records[-1].getMessage()


def test_has_returned_since_is_true_only_for_dials_begun_before_the_return(group):
    group.failed(POD_A, dial_failure(errno.ETIMEDOUT, POD_A.ip), 0.0)
    assert not group.has_returned_since(POD_A, 0.0)
    group.answered(POD_A, 6.0)
    assert group.has_returned_since(POD_A, 5.9)
    assert not group.has_returned_since(POD_A, 6.1)
    assert not group.has_returned_since(POD_B, 0.0)


def test_has_answered_since_includes_a_success_without_an_ejection(group):
    assert not group.has_answered_since(POD_A, 0.0)
    group.answered(POD_A, 6.0)
    assert not group.has_returned_since(POD_A, 5.9)
    assert group.has_answered_since(POD_A, 5.9)
    assert not group.has_answered_since(POD_A, 6.0)


def test_a_client_whose_dials_are_reset_although_others_succeed_is_named(group):
    ends = group.counters_of(POD_A).ends
    for now in (1.0, 3.0):
        group.failed(POD_A, dial_failure(errno.ECONNRESET, POD_A.ip), now)
        group.failed(POD_A, dial_failure(errno.ECONNRESET, POD_A.ip), now, client=ALICE)
        ends.succeeded_at = 2.0
    exclusions = group.counters_of(POD_A).exclusions
    assert (exclusions.part.failures, exclusions.part.client) == (1, ALICE)


def test_a_shortage_of_descriptors_is_logged_once_a_minute(group, caplog):
    for now in (0.0, 1.0, 59.0, 60.0):
        group.failed(POD_A, dial_failure(errno.EMFILE, POD_A.ip), now)
    assert len(caplog.records) == 2


@pytest.mark.parametrize("number", [errno.EADDRNOTAVAIL, errno.EAGAIN], ids=["tcp", "udp"])
def test_a_shortage_of_this_nodes_source_ports_is_counted(group, number):
    group.failed(POD_A, dial_failure(number, POD_A.ip), 3.0)
    assert (group.counters.out_of_ports, group.out_of_ports_at) == (1, 3.0)


def test_a_shortage_of_client_ports_is_counted_separately_and_logged_with_the_remedy(group, caplog):
    for now in (0.0, 1.0):
        group.left_client_address(POD_A, ALICE, now)
    group.failed(POD_A, dial_failure(errno.EADDRNOTAVAIL, POD_A.ip), 2.0, client=ALICE)
    assert (group.counters.out_of_client_ports, group.out_of_client_ports_at) == (3, 2.0)
    assert (group.counters.out_of_ports, group.counters.shortages) == (0, 1)
    (record,) = caplog.records
    assert (record.client, record.endpoint) == (ALICE, "10.0.0.1:80")
    assert "tcp_timestamps=1" in record.remedy


def test_only_this_workers_observations_are_reported_to_other_workers(group):
    reports = []
    group.news = News(reports)
    group.failed(POD_A, dial_failure(errno.ETIMEDOUT, POD_A.ip), 0.0)
    group.answered(POD_A, 1.0)
    assert reports == [(POD_A, True), POD_A]
    group.failed(POD_A, dial_failure(errno.ECONNREFUSED, POD_A.ip), 2.0)
    group.answered_elsewhere(POD_A, 3.0)
    assert reports[2:] == [(POD_A, False)]


def test_a_missing_route_on_this_node_has_its_own_cause(group, caplog, monkeypatch):
    monkeypatch.setattr(
        endpoint_group, "own_route_failure", lambda *_: DialFailure(Failure.NO_ROUTE)
    )
    group.failed(POD_A, dial_failure(errno.ENETUNREACH, POD_A.ip), 0.0)
    shown, _ = failure_of(POD_A, group.counters_of(POD_A), WallClock(lambda: 0.0))
    assert shown.fact == no_route(POD_A).fact
    assert caplog.records[0].getMessage().endswith(say(shown))


@pytest.fixture
def absent(monkeypatch):
    """Make the host with POD_A's address absent."""
    monkeypatch.setattr(endpoint_group, "absent_hop", lambda ip: ip == POD_A.ip)


@pytest.mark.parametrize("number", [errno.ETIMEDOUT, errno.EHOSTUNREACH], ids=errno.errorcode.get)
@pytest.mark.usefixtures("absent")
def test_a_dial_to_an_absent_host_has_the_same_code_in_all_outputs(group, number, caplog):
    code = group.failed(POD_A, dial_failure(number, POD_A.ip), 0.0)
    counters = group.counters_of(POD_A)
    shown, _ = failure_of(POD_A, counters, WallClock(lambda: 0.0))
    assert [code, shown.code, *counters.failures_by_cause()] == [CauseCode.ENDPOINT_NO_HOST] * 3
    said = caplog.records[0].getMessage()
    assert said.endswith(f": {say(no_host(POD_A))}")


@pytest.mark.usefixtures("absent")
def test_neither_a_refusal_nor_a_timeout_of_a_present_host_counts_as_an_absent_host(group):
    assert (
        group.failed(POD_A, dial_failure(errno.ECONNREFUSED, POD_A.ip), 0.0)
        is CauseCode.ENDPOINT_REFUSES
    )
    assert (
        group.failed(POD_B, dial_failure(errno.ETIMEDOUT, POD_B.ip), 0.0)
        is CauseCode.ENDPOINT_SILENT
    )


@pytest.mark.parametrize("number", [111, 110, 113, 112, 104, 13, 97], ids=errno.errorcode.get)
def test_a_failed_dial_has_the_same_code_in_all_outputs(group, number):
    """The outputs are the counter, the state of the Service port, and the connection's record."""
    code = group.failed(POD_A, dial_failure(number, POD_A.ip), 0.0)
    counters = group.counters_of(POD_A)
    counters.connections = 1
    shown, _ = failure_of(POD_A, counters, WallClock(lambda: 0.0))
    one = ConnectionFacts(event="refused", failed=failed_dials({POD_A: code}))
    assert {*counters.failures_by_cause(), shown.code, one.code} == {code}


def test_failures_of_a_detour_are_logged_as_injected_and_end_with_the_fault(caplog):
    group, returned = EndpointGroup(port_key("shop/web"), Serving([POD_A, POD_B])), []
    group.news = News(returned)
    group.failed(POD_A, dial_failure(errno.ECONNREFUSED, POD_A.ip), 0.0)
    group.update(Serving([POD_A, POD_B], detours=((POD_A, POD_C),)))
    assert (group.balancers.current.ejected(1.0), returned[1:]) == ({}, [POD_A])
    group.failed(POD_A, dial_failure(errno.ECONNREFUSED, POD_A.ip), 1.0)
    assert caplog.messages[-1].endswith("(a fault on purpose)")
    group.update(Serving([POD_A, POD_B]))
    assert (group.balancers.current.ejected(1.0), returned[3:]) == ({}, [POD_A])
    assert not group.counters_of(POD_A).dials.is_on
    group.failed(POD_A, dial_failure(errno.ECONNREFUSED, POD_A.ip), 2.0)
    assert group.counters_of(POD_A).dials.part.failures == 1
    assert not caplog.messages[-1].endswith("(a fault on purpose)")
