"""The differences that a worker reports add up to its own counters, whatever changes."""

import errno
from functools import partial
from types import SimpleNamespace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from tests.port_keys import port_key
from userspace_proxy.dataplane import EndpointGroup
from userspace_proxy.dataplane.waiting_room import Waiting
from userspace_proxy.facts import (
    STREAKS,
    ClientMistake,
    EndpointCounters,
    GroupCounters,
    StreakPart,
)
from userspace_proxy.model import Failure, SocketAddress
from userspace_proxy.model.failures import dial_failure
from userspace_proxy.model.serving import Serving
from userspace_proxy.plane.differences import Differences
from userspace_proxy.plane.group import Group
from userspace_proxy.plane.messages import EndpointReport, WaitingReport

from .reports import endpoint_report, group_report

PODS = [SocketAddress(f"10.0.0.{number}", 80) for number in range(3)]
A, B, C = PODS
pods = st.sampled_from(PODS)


def values(counters):
    return dict(zip(counters.names, counters.figures(), strict=True))


def streaks(group, endpoints):
    """Return the streaks of failures of endpoints whose last attempt failed."""
    found = {
        (endpoint, name): getattr(group.counters_of(endpoint), name)
        for endpoint in endpoints
        for name in STREAKS
    }
    return {key: streak.whole() for key, streak in found.items() if streak.is_on}


@pytest.fixture
def group():
    return EndpointGroup(port_key("shop/web:http"), Serving(PODS))


@pytest.fixture
def differences(group):
    return Differences(group)


def update(group, differences, *endpoints):
    """Update a group like a worker."""
    differences.begin_update()
    group.update(Serving(endpoints))
    differences.end_update()


def report(differences):
    differences.take()
    return differences.give(7, 0.0)


def test_a_report_contains_only_changes_since_the_last_report(group, differences):
    group.counters_of(A).connections = 3
    assert report(differences) == group_report(endpoint_report(A, connections=3))
    assert report(differences) is None
    group.counters_of(A).connections += 2
    group.counters.refused = 1
    assert report(differences) == group_report(endpoint_report(A, connections=2), refused=1)


def test_ejections_and_waits_are_reported_and_their_end_is_reported_once(group, differences):
    group.balancers.current.failed(A, 0.0)
    assert report(differences).ejected == report(differences).ejected == [(A, 5.0)]
    group.balancers.current.answered(A)
    assert report(differences).ejected == []
    assert report(differences) is None
    group.waiting_room = SimpleNamespace(waiting=lambda _now: Waiting(1, 2.0))
    assert report(differences).waiting == WaitingReport(1, 2.0)
    group.waiting_room = None
    assert report(differences).waiting is None
    assert report(differences) is None


def test_connections_ended_by_their_endpoints_removal_are_reported(group, differences):
    """The end of a UDP flow is counted just before the group drops the endpoint's counters."""

    def end_flows(removed, _begun_by):
        for endpoint in removed:
            group.counters_of(endpoint).active -= 1
            group.counters_of(endpoint).sent_bytes += 9

    group.counters_of(A).active = group.counters_of(A).connections = 1
    assert report(differences).endpoints == [endpoint_report(A, active=1, connections=1)]
    group.on_removed.append(end_flows)
    update(group, differences, B, C)
    assert report(differences).endpoints == [endpoint_report(A, active=-1, sent_bytes=9)]


def test_a_group_counts_as_at_rest_only_without_open_connections(group, differences):
    counters = group.counters_of(A)
    counters.active = 1
    assert report(differences).endpoints == [endpoint_report(A, active=1)]
    assert report(differences) is None
    assert not differences.is_at_rest
    counters.active, counters.sent_bytes = 0, 9
    assert report(differences).endpoints == [endpoint_report(A, active=-1, sent_bytes=9)]
    assert (report(differences), differences.is_at_rest) == (None, True)


def test_reported_counters_of_removed_endpoints_are_dropped(differences, group):
    for number in range(100):
        pod = SocketAddress("10.0.0.1", number)
        update(group, differences, pod)
        group.counters_of(pod).connections += 1
        report(differences)
    assert [e for e, _ in group.each_counters()] == [pod]
    assert (report(differences), differences.is_at_rest) == (None, True)


class Sums(RuleBasedStateMachine):
    """A worker's group whose endpoints change while it is in use, and the control process's sums.

    Everything is counted twice, because a worker resets the counters that it reports.
    """

    def __init__(self):
        super().__init__()
        self.group = EndpointGroup(port_key("shop/web:http"), Serving(PODS))
        self.counted = EndpointGroup(port_key("shop/web:http"), Serving(PODS))
        self.groups = self.group, self.counted
        for group in self.groups:
            group.on_removed.append(partial(self.end_flows, group))
        self.differences = None
        self.shared = Group(7, port_key("shop/web:http"))
        self.shared.change(Serving(tuple(PODS)))
        self.flows = {(group, pod): 0 for group in self.groups for pod in PODS}
        self.stayed = set(PODS)
        """Endpoints that were never removed; a process may have forgotten the other endpoints."""
        self.now = 0.0

    def followed(self):
        """Return the differences, which a worker creates once the group has news; else None."""
        if self.differences is None and self.group.has_news:
            self.differences = Differences(self.group)
        return self.differences

    def end_flows(self, group, removed, _begun_by):
        for endpoint in removed:
            counters = group.counters_of(endpoint)
            counters.active -= self.flows[group, endpoint]
            counters.received_bytes += self.flows[group, endpoint]
            self.flows[group, endpoint] = 0

    @rule(endpoint=pods)
    def a_flow_begins(self, endpoint):
        if endpoint in self.group.balancers.current.endpoints:
            for group in self.groups:
                self.flows[group, endpoint] += 1
            self.a_connection_begins(endpoint)

    @rule(endpoint=pods)
    def a_connection_begins(self, endpoint):
        for group in self.groups:
            group.counters_of(endpoint).active += 1
            group.counters_of(endpoint).connections += 1

    @rule(endpoint=pods)
    def a_connection_ends(self, endpoint):
        for group in self.groups:
            # The counters of a removed endpoint may have been dropped.
            counters = group.find_counters(endpoint)
            if counters is not None and counters.active > self.flows[group, endpoint]:
                counters.active -= 1
                counters.sent_bytes += 100

    @rule(endpoint=pods)
    def a_dial_fails(self, endpoint):
        if endpoint in self.group.balancers.current.endpoints:
            self.now += 1.0
            failed = dial_failure(errno.ECONNREFUSED, endpoint.ip)
            for group in self.groups:
                group.failed(endpoint, failed, self.now)

    @rule(endpoint=pods)
    def an_endpoint_answers(self, endpoint):
        self.now += 1.0
        for group in self.groups:
            group.answered(endpoint, self.now)

    @rule(name=st.sampled_from(GroupCounters.names))
    def the_group_counts(self, name):
        for group in self.groups:
            group.counters.add(int(name == each) for each in GroupCounters.names)

    @rule(endpoint=pods)
    def an_endpoint_ends_a_connection(self, endpoint):
        self.now += 1.0
        for group in self.groups:
            group.counters_of(endpoint).ends.failed(self.now)

    @rule(seconds=st.sampled_from((0.0, 0.5, 99.0)))
    def a_client_waited(self, seconds):
        for group in self.groups:
            group.connect_times.add(seconds)
            group.first_byte_times.add(2 * seconds)

    @rule(endpoints=st.lists(pods, unique=True))
    def endpoints_change(self, endpoints):
        self.stayed &= set(endpoints)
        self.shared.change(Serving(tuple(endpoints)))
        if self.followed() is None:
            self.group.update(Serving(endpoints))
        else:
            update(self.group, self.differences, *endpoints)
        self.counted.update(Serving(endpoints))

    @rule()
    def a_report_is_asked_for(self):
        if self.followed() is None:
            return
        if (answer := report(self.differences)) is not None:
            self.shared.add(0, answer, self.now)
        elif self.differences.is_at_rest:
            self.differences = None

    @invariant()
    def the_sums_are_what_was_counted(self):
        self.a_report_is_asked_for()
        assert values(self.shared.totals()) == values(self.counted.totals())
        assert values(self.shared.counters) == values(self.counted.counters)
        for name in ("connect_times", "first_byte_times"):
            shared, own = getattr(self.shared, name), getattr(self.counted, name)
            assert (shared.counts(), shared.seconds) == (own.counts(), own.seconds)

    @invariant()
    def failures_in_a_row_are_those_of_the_worker(self):
        self.a_report_is_asked_for()
        assert streaks(self.shared, self.stayed) == streaks(self.counted, self.stayed)

    def teardown(self):
        self.shared.worker_ended(0)
        assert self.shared.totals().active == 0


class SeldomReported(Sums):
    """The same state machine, but it reports only at the end."""

    the_sums_are_what_was_counted = failures_in_a_row_are_those_of_the_worker = None

    def teardown(self):
        Sums.the_sums_are_what_was_counted(self)
        super().teardown()


TestSums = Sums.TestCase
TestSeldomReported = SeldomReported.TestCase
TestSums.settings = TestSeldomReported.settings = settings(
    max_examples=60, stateful_step_count=25, deadline=None
)


def test_every_counter_is_reported(group, differences):
    figures = tuple(range(1, len(EndpointCounters.names) + 1))
    group.counters_of(A).add(figures)
    assert report(differences).endpoints == [EndpointReport(A, figures)]


def test_clients_denied_by_an_endpoint_are_reported_to_the_control_process(group, differences):
    group.counters_of(A).denials.failed(2.0, Failure.SILENT, "2001:db8::7")
    (told,) = report(differences).endpoints
    assert told.dials is None
    control = Group(1, port_key("shop/web"))
    control.change(Serving((A,)))
    control.add(0, group_report(told), 3.0)
    assert control.counters_of(A).denials.whole() == StreakPart(
        -1.0, 1, 2.0, 2.0, Failure.SILENT, 0, "2001:db8::7"
    )


def test_client_mistakes_of_all_workers_are_added_up_in_the_control_process(group, differences):
    header = ClientMistake.NO_PROXY_HEADER
    control = Group(1, port_key("shop/web"))
    for number, now in enumerate((2.0, 4.0)):
        group.note_mistake(header, f"192.0.2.{number}", now)
        control.add(0, report(differences), 5.0)
    assert report(differences) is None
    mistakes = {header: StreakPart(-1.0, 1, 3.0, 3.0, Failure.OTHER, 0, "192.0.2.9")}
    control.add(1, group_report(mistakes=mistakes), 5.0)
    assert control.client_mistakes[header].whole() == StreakPart(
        -1.0, 3, 2.0, 4.0, Failure.OTHER, 0, "192.0.2.1"
    )
