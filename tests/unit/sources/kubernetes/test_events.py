from itertools import pairwise

import pytest

from userspace_proxy.model import ServiceKey
from userspace_proxy.sources import Happening
from userspace_proxy.sources.kubernetes.events import (
    NAMESPACE_MAX,
    SERIES_END_S,
    SERIES_MAX,
    Correlator,
    new_event,
    path_of,
    series_patch,
)

REPAIRED = Happening("SteeringRepaired", "Repair", "3 rules put right")
NOT_SERVED = Happening("ServiceNotServed", "Serve", "held", service=ServiceKey("shop", "web"))
NOW = 1_800_000_000.25


def only(correlator, now):
    (series,) = correlator.due(now)
    return series


def test_a_repeated_event_is_sent_at_most_once_a_minute_with_its_count():
    correlator = Correlator()
    correlator.note(REPAIRED, NOW)
    correlator.note(REPAIRED, NOW + 1)
    series = only(correlator, NOW + 1)
    assert series.count == 2
    series.sent, series.not_before = 2, NOW + 60
    assert list(correlator.due(NOW + 90)) == []
    correlator.note(REPAIRED, NOW + 2)
    assert list(correlator.due(NOW + 59)) == []
    assert correlator.next_due_s(NOW + 59) == 1.0
    assert only(correlator, NOW + 60) is series
    correlator.note(NOT_SERVED, NOW + 59)
    assert correlator.next_due_s(NOW + 59) == 0.0


def test_an_occurrence_after_a_long_pause_starts_a_new_event():
    correlator = Correlator()
    correlator.note(REPAIRED, NOW)
    first = only(correlator, NOW)
    first.sent = 1
    correlator.note(REPAIRED, NOW + SERIES_END_S + 1)
    second = only(correlator, NOW + SERIES_END_S + 1)
    assert second is not first
    assert second.count == 1
    correlator.note(REPAIRED, NOW + 2 * (SERIES_END_S + 1))
    assert (second.count, only(correlator, second.last)) == (2, second)


def of(namespace, name):
    return Happening("NeedPods", "Wake", "needed", service=ServiceKey(namespace, name))


def names(correlator, now=NOW):
    return [series.happening.service.name for series in correlator.due(now)]


def test_a_namespace_at_its_limit_drops_the_series_that_was_quiet_the_longest():
    correlator = Correlator()
    for number in (*range(NAMESPACE_MAX), 0, NAMESPACE_MAX):
        correlator.note(of("shop", f"web-{number}"), NOW)
    found = names(correlator)
    assert len(found) == NAMESPACE_MAX
    assert "web-1" not in found


def test_a_namespace_at_its_limit_displaces_no_other_namespaces_series():
    correlator = Correlator()
    for number in range(NAMESPACE_MAX):
        correlator.note(of("shop", f"web-{number}"), NOW)
    for series in correlator.due(NOW):
        series.asked_at = NOW
    correlator.note(of("tenant", "api"), NOW)
    correlator.note(of("shop", "late"), NOW)
    found = names(correlator)
    assert ("api" in found, "late" in found) == (True, False)


def test_the_namespace_with_the_most_series_loses_a_series_to_other_namespaces():
    correlator = Correlator()
    correlator.note(of("tenant", "api"), NOW)
    for number in range(SERIES_MAX - 1):
        correlator.note(of(f"shop-{number // NAMESPACE_MAX}", f"web-{number}"), NOW)
    correlator.note(of("late", "api"), NOW)
    found = names(correlator)
    assert len(found) == SERIES_MAX
    assert found.count("api") == 2
    assert "web-0" not in found


def test_a_displaced_series_causes_no_further_request_within_a_minute():
    """Issue 52: a displaced series counted as new when it recurred, and was sent immediately."""
    correlator, asked = Correlator(), []
    for second in range(180):
        now = NOW + second
        for number in range(4 * NAMESPACE_MAX):
            correlator.note(of("shop", f"web-{number}"), now)
        for series in correlator.due(now):
            series.sent, series.asked_at, series.not_before = series.count, now, now + 60
            asked.append((series.happening.service.name, now))
    times = {}
    for name, now in asked:
        times.setdefault(name, []).append(now)
    assert all(b - a >= 60 for each in times.values() for a, b in pairwise(each))
    assert len(asked) == 3 * NAMESPACE_MAX


def test_a_series_that_restarts_within_a_minute_of_a_request_still_waits():
    correlator, late = Correlator(), NOW + SERIES_END_S + 1
    correlator.note(of("shop", "web-0"), NOW)
    series = only(correlator, NOW)
    # The series began late, because the server was down.
    series.sent, series.asked_at, series.not_before = 1, late - 10, late + 50
    correlator.note(of("shop", "web-0"), late)
    for number in range(1, NAMESPACE_MAX + 1):
        correlator.note(of("shop", f"web-{number}"), late)
    names = {series.happening.service.name for series in correlator.due(late + 50)}
    assert len(names) == NAMESPACE_MAX
    assert "web-0" in names


def test_namespaces_take_turns_to_send_events():
    correlator = Correlator()
    for number in range(3):
        correlator.note(of("shop", f"web-{number}"), NOW)
    correlator.note(of("tenant", "api"), NOW)
    correlator.note(REPAIRED, NOW)
    due = [series.happening.reason for series in correlator.due(NOW)]
    assert due == ["NeedPods", "NeedPods", "SteeringRepaired", "NeedPods", "NeedPods"]


def test_without_events_the_correlator_has_no_due_time():
    assert Correlator().next_due_s(NOW) is None


def test_a_node_event_has_the_required_fields():
    correlator = Correlator()
    correlator.note(REPAIRED, NOW)
    series = only(correlator, NOW)
    assert new_event(series, "node-1", "node-1") == {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": "node-1.18fae276a29ab200", "namespace": "default"},
        "eventTime": "2027-01-15T08:00:00.250000Z",
        "reportingController": "userspace-proxy",
        "reportingInstance": "node-1",
        "action": "Repair",
        "reason": "SteeringRepaired",
        "regarding": {"apiVersion": "v1", "kind": "Node", "name": "node-1", "uid": "node-1"},
        "note": "3 rules put right",
        "type": "Warning",
    }


def test_a_service_event_is_in_the_services_namespace():
    correlator = Correlator()
    correlator.note(NOT_SERVED, NOW)
    correlator.note(NOT_SERVED, NOW + 1)
    series = only(correlator, NOW + 1)
    event = new_event(series, "node-1", "")
    assert event["regarding"] == {
        "apiVersion": "v1",
        "kind": "Service",
        "name": "web",
        "namespace": "shop",
    }
    assert event["series"] == {"count": 2, "lastObservedTime": "2027-01-15T08:00:01.250000Z"}
    assert series_patch(series) == {"series": event["series"]}
    assert path_of(series) == "/apis/events.k8s.io/v1/namespaces/shop/events"


@pytest.mark.parametrize(
    "note", ["x" * 5000, "ä" * 5000, "\udcff" * 2000], ids=["ascii", "umlauts", "surrogates"]
)
def test_a_note_is_truncated_to_the_length_kubernetes_accepts(note):
    correlator = Correlator()
    correlator.note(Happening("A", "B", note), NOW)
    event = new_event(only(correlator, NOW), "node-1", "")
    assert 0 < len(event["note"].encode()) <= 1024


def test_secrets_are_removed_from_a_note():
    correlator = Correlator()
    correlator.note(Happening("A", "B", f"http://me:hunter{'2' * 1024}@proxy"), NOW)
    event = new_event(only(correlator, NOW), "node-1", "")
    assert event["note"] == "http://[removed]@proxy"
