import errno
import logging

import pytest

from userspace_proxy.dataplane import EndpointGroup
from userspace_proxy.model import SocketAddress

POD_A, POD_B, POD_C = (SocketAddress(f"10.0.0.{number}", 80) for number in (1, 2, 3))


@pytest.fixture
def group():
    return EndpointGroup("shop/web:http", [POD_A, POD_B])


def test_a_failed_dial_ejects_the_endpoint_and_is_counted(group):
    group.dial_failed(POD_A, errno.ECONNREFUSED, 0.0)
    assert group.balancer.ejected(0.0) == {POD_A: 5.0}
    assert group.counters_of(POD_A).failures == 1


@pytest.mark.parametrize(
    "number",
    [errno.EMFILE, errno.ENFILE, errno.EADDRNOTAVAIL, errno.ENOBUFS, errno.ENOMEM, errno.EAGAIN],
    ids=errno.errorcode.get,
)
def test_our_own_shortage_ejects_nobody(group, number):
    group.dial_failed(POD_A, number, 0.0)
    assert group.balancer.ejected(0.0) == {}
    assert (group.counters_of(POD_A).failures, group.counters.shortages) == (1, 1)


def test_an_ejection_is_logged_when_it_begins_and_when_it_ends(group, caplog):
    caplog.set_level(logging.INFO)
    for now in (0.0, 1.0):
        group.dial_failed(POD_A, errno.ECONNREFUSED, now)
    group.answered(POD_A)
    group.answered(POD_A)
    assert [record.getMessage() for record in caplog.records] == [
        "endpoint ejected",
        "endpoint is back",
    ]
    assert caplog.records[0].cause == "Connection refused"
    assert caplog.records[0].endpoint == "10.0.0.1:80"


def test_a_shortage_is_logged_once_a_minute(group, caplog):
    for now in (0.0, 1.0, 59.0, 60.0):
        group.dial_failed(POD_A, errno.EMFILE, now)
    assert len(caplog.records) == 2


def test_an_update_tells_which_endpoints_are_gone_and_only_then(group):
    told = []
    group.on_removed.append(told.append)
    group.update([POD_B, POD_C], affinity_timeout_s=None)
    group.update([POD_B, POD_C, POD_A], affinity_timeout_s=None)
    assert told == [{POD_A}]


def test_what_a_gone_endpoint_has_counted_stays_in_the_sums(group):
    group.counters_of(POD_A).connections = 3
    group.counters_of(POD_B).connections = 4
    group.update([POD_B], affinity_timeout_s=None)
    assert group.totals().connections == 7
    assert group.counters_of(POD_A).connections == 0


def test_an_endpoint_in_use_keeps_its_counters_after_it_has_gone(group):
    group.counters_of(POD_A).active = 1
    group.update([POD_B], affinity_timeout_s=None)
    assert group.counters_of(POD_A).active == 1
    group.counters_of(POD_A).active -= 1
    assert group.totals().active == 0


def test_endpoints_that_come_and_go_leave_nothing_behind():
    group = EndpointGroup("shop/web")
    for number in range(1000):
        pod = SocketAddress("10.0.0.1", number)
        group.update([pod], affinity_timeout_s=None)
        group.counters_of(pod).connections += 1
    assert len(group._per_endpoint) <= 2
    assert group.totals().connections == 1000
