import pytest

from tests.port_keys import port_key
from userspace_proxy.causes.cause import CauseCode
from userspace_proxy.dataplane import EndpointGroup
from userspace_proxy.model import IPFamily, SocketAddress
from userspace_proxy.model.serving import Serving

from .groups import CLUSTER, POD_A, POD_B, POD_C, picked


def test_an_update_reports_only_removed_endpoints(group):
    told = []
    group.on_removed.append(lambda removed, _begun_by: told.append(removed))
    group.update(Serving([POD_B, POD_C]))
    group.update(Serving([POD_B, POD_C, POD_A]))
    assert told == [{POD_A}]


def test_an_endpoint_in_use_keeps_its_counters_after_its_removal(group):
    group.counters_of(POD_A).active = 1
    group.update(Serving([POD_B]))
    assert group.counters_of(POD_A).active == 1
    group.counters_of(POD_A).active -= 1
    assert group.totals().active == 0


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
def test_a_connection_that_succeeds_after_a_slow_dial_failure_counts_as_late(group, failed, late):
    counters = group.counters_of(POD_A)
    group.note_saved(counters, failed)
    assert (group.counters.saved, counters.late) == (1, late)


@pytest.mark.parametrize("side", ["endpoints", "outside"])
def test_added_and_removed_endpoints_leave_no_state_behind(side):
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


def test_a_group_has_the_label_and_prefixes_of_its_service_port():
    group = EndpointGroup(port_key("shop/web:http", IPFamily.IPV6))
    assert (group.label, group.reference) == ("shop/web:http (IPv6)", "shop/web:http")
    assert group.prefixes == ("shop", "shop/web", "shop/web:http")
