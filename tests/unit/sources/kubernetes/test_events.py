import pytest

from userspace_proxy.model import ServiceKey
from userspace_proxy.sources import Happening
from userspace_proxy.sources.kubernetes.events import (
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


def test_what_happens_again_is_owed_once_and_counted():
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


def test_after_a_long_silence_it_is_an_event_of_its_own():
    correlator = Correlator()
    correlator.note(REPAIRED, NOW)
    first = only(correlator, NOW)
    first.sent = 1
    correlator.note(REPAIRED, NOW + SERIES_END_S + 1)
    second = only(correlator, NOW + SERIES_END_S + 1)
    assert second is not first
    assert second.count == 1


def test_other_objects_and_reasons_are_other_series():
    correlator = Correlator()
    correlator.note(REPAIRED, NOW)
    correlator.note(NOT_SERVED, NOW)
    assert len(list(correlator.due(NOW))) == 2


def test_what_queues_has_a_bound_and_the_oldest_makes_room():
    correlator = Correlator()
    for number in range(SERIES_MAX + 1):
        key = ServiceKey("shop", f"web-{number}")
        correlator.note(Happening("ServiceNotServed", "Serve", "held", service=key), NOW)
    names = [series.happening.service.name for series in correlator.due(NOW)]
    assert len(names) == SERIES_MAX
    assert "web-0" not in names


def test_nothing_owed_is_never_due():
    assert Correlator().next_due_s(NOW) is None


def test_an_event_of_the_node_has_the_required_fields():
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


def test_an_event_of_a_service_is_in_its_namespace():
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


@pytest.mark.parametrize("note", ["x" * 5000, "ä" * 5000, "\udcff" * 2000])
def test_a_note_is_no_longer_than_kubernetes_takes(note):
    correlator = Correlator()
    correlator.note(Happening("A", "B", note), NOW)
    event = new_event(only(correlator, NOW), "node-1", "")
    assert 0 < len(event["note"].encode()) <= 1024
