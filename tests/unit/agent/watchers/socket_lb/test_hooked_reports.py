"""Reports of the counters of connect() hooks, as differences."""

import pytest

from tests.port_keys import port_key
from userspace_proxy.agent.watchers.socket_lb.hooked_reports import REFUSED, Reports
from userspace_proxy.model import Failure, SocketAddress
from userspace_proxy.model.serving import Serving
from userspace_proxy.plane import Group
from userspace_proxy.steering.socket_lb.socket_maps import DialCounts

POD = SocketAddress("192.0.2.1", 8080)
WEB = port_key("shop/web")
AT = (WEB, POD)


class Rig:
    """Reports about one endpoint, and the group to which they are added, as in the plane."""

    def __init__(self):
        self.now = 100.0
        self.group = Group(1, WEB)
        self.group.change(Serving(endpoints=(POD,)))
        self.reports = Reports(self.now)
        self.ejected = {}

    def look(self, **counts):
        self.now += 5.0
        counted = {AT: DialCounts(**counts)} if counts else {}
        groups = {WEB: self.group}
        changes = self.reports.compare(counted, {})
        found = list(self.reports.look(changes, self.ejected, groups, self.now))
        for one in found:
            self.group.add(-2, one.report, self.now)
        return found

    @property
    def dials(self):
        return self.group.counters_of(POD).dials


@pytest.fixture
def rig():
    return Rig()


def test_unchanged_counters_produce_no_report(rig):
    assert len(rig.look(established=1)) == 1
    assert rig.look(established=1) == []


def test_counts_of_an_unknown_service_port_are_kept_until_its_group_exists(rig):
    changes = rig.reports.compare({AT: DialCounts(established=2)}, {})
    assert list(rig.reports.look(changes, {}, {}, 105.0)) == []
    (new,) = rig.look(established=3)
    assert new.connections == 3


def test_a_vanished_endpoint_causes_no_later_change_even_without_a_service_port(rig):
    rig.look(established=2)
    assert list(rig.reports.look(rig.reports.compare({}, {}), {}, {}, 110.0)) == []
    assert rig.reports.compare({}, {}) == {}


def test_a_success_without_a_previous_ejection_has_the_time_of_the_reading(rig):
    rig.look(established=1)
    assert (rig.dials.succeeded_at, rig.dials.is_on) == (rig.now, False)


def test_a_success_during_an_ejection_does_not_end_the_failure(rig):
    rig.reports.noted(*AT)
    report = rig.reports.failed(rig.group, POD, REFUSED, 1, 103.0, 108.0)
    rig.group.add(-2, report, 103.0)
    rig.ejected = {AT: 3.0}
    rig.look(established=1, refused=1)
    assert (rig.dials.is_on, rig.dials.part.failures, rig.dials.part.last_at) == (True, 1, 103.0)
    assert rig.dials.succeeded_at == 100.0


def test_failures_without_an_event_are_returned_as_unreported(rig):
    rig.reports.noted(*AT)
    (new,) = rig.look(refused=3)
    assert new.unreported == [(POD, Failure.REFUSED, 2)]
    (new,) = rig.look(refused=3, unanswered=1)
    assert new.unreported == [(POD, Failure.SILENT, 1)]
    assert rig.group.counters_of(POD).failures == 4
    assert (rig.dials.is_on, rig.dials.part.failures) == (False, 0)
    rig.reports.noted(*AT)
    rig.look()
    (new,) = rig.look(refused=1)
    assert new.unreported == [(POD, Failure.REFUSED, 1)]


def test_further_failures_of_an_ejected_endpoint_are_dated_at_the_reading(rig):
    rig.ejected = {AT: 3.0}
    (new,) = rig.look(refused=2)
    assert new.unreported == []
    dials = rig.dials.part
    assert (dials.failures, dials.last_at, dials.failure) == (2, rig.now, "silent")


def test_counts_of_a_removed_and_re_added_endpoint_are_added_to_its_earlier_counts(rig):
    rig.look(established=5, ended=2)
    rig.look(established=1)
    counters = rig.group.counters_of(POD)
    assert (counters.connections, counters.active) == (6, 1)
    rig.look()
    assert counters.active == 0


def test_a_groups_ejections_come_from_its_last_report(rig):
    rig.ejected = {AT: 3.0}
    rig.look(refused=1)
    assert rig.reports.is_ejected(WEB, POD)
    assert rig.group.ejected(rig.now) == {POD: 3.0}
    rig.group.add(-2, rig.reports.readmitted(rig.group, POD, rig.now), rig.now)
    assert rig.group.ejected(rig.now) == {}
    rig.group.add(-2, rig.reports.returned(rig.group, POD, rig.now), rig.now)
    assert not rig.dials.is_on


def test_an_ejection_ends_once_the_hooks_no_longer_report_it(rig):
    rig.ejected = {AT: 3.0}
    rig.look(refused=1)
    rig.ejected = {}
    rig.look(refused=1)
    assert not rig.reports.is_ejected(WEB, POD)
    assert rig.group.ejected(rig.now) == {}
