import pytest

from userspace_proxy.facts import Level, SourceFacts, SteeringState, WorkerFacts
from userspace_proxy.status.timeline import Event, compare_views, joined

from .views import NOW, make_port, make_view, replace

CALM = make_view(workers=(WorkerFacts(0, 11, 0, 3, 0), WorkerFacts(1, 12, 0, 3, 0, hung=1)))


def events(before, after):
    return list(compare_views(before, after, NOW))


def source(*problems):
    return SourceFacts("kubernetes", "https://k", is_synced=True, problems=problems)


def test_two_equal_views_yield_no_events():
    assert events(CALM, CALM) == []


def test_a_problem_has_a_start_and_an_end_event():
    away = replace(CALM, source=source("cannot watch: refused"))
    what = "Source: cannot watch: refused"
    assert events(CALM, away) == [Event(NOW, Level.TROUBLE, what)]
    assert events(away, CALM) == [Event(NOW, Level.OK, f"Resolved: {what}")]


def test_completed_startup_is_reported_as_an_event():
    starting = replace(CALM, is_ready=False, source=replace(CALM.source, is_synced=False))
    assert events(starting, CALM) == [Event(NOW, Level.OK, "Started")]


def test_a_problem_whose_figures_change_is_no_new_event():
    assert events(replace(CALM, descriptors=19_000), replace(CALM, descriptors=19_999)) == []


def test_the_timeline_omits_problems_of_service_ports():
    refused = make_port("cart", endpoints=(), reason="it has no endpoints")
    assert events(make_view(), make_view(refused)) == []


@pytest.mark.parametrize(
    ("worker", "how"),
    [
        pytest.param(WorkerFacts(1, 99, 1, 0, 0, hung=1), "died", id="died"),
        pytest.param(WorkerFacts(1, 99, 1, 0, 0, hung=2), "hung", id="hung"),
    ],
)
def test_a_replaced_worker_is_reported_as_an_event(worker, how):
    (event,) = events(CALM, replace(CALM, workers=(CALM.workers[0], worker)))
    assert event.level is Level.TROUBLE
    assert event.what.startswith(f"Worker 1 {how} and was replaced: ")


def test_repaired_rules_are_reported_as_an_event():
    (event,) = events(CALM, replace(CALM, steering=SteeringState("nftables", repairs=3)))
    assert event.what == (
        "3 rules and frontends of nftables steering had been changed by another program, and "
        "repaired"
    )


def test_the_text_of_an_event_includes_saved_connections():
    assert Event(NOW, Level.OK, "a").text == "a"
    assert Event(NOW, Level.OK, "a", saved=1).text == "a; 1 connection saved"
    assert Event(NOW, Level.OK, "a", saved=12).text == "a; 12 connections saved"


DEAD, BACK = ("endpoint-refuses", "10.244.0.9:80"), ("10.244.0.9:80", "returned")


def refused(at, port, *, saved=0, lasts=False, cause=DEAD):
    return Event(NOW + at, Level.TROUBLE, "it refuses", port, saved, lasts, cause)


def test_events_with_the_same_cause_on_several_service_ports_are_joined():
    events = [refused(900 * n, f"web-{n}", saved=2, lasts=True) for n in range(35)]
    whole = Event(NOW, Level.TROUBLE, "it refuses: 35 Service ports", "", 70, True, DEAD)
    assert joined(events) == [whole]


@pytest.mark.parametrize(
    "events",
    [
        pytest.param([refused(0, "a"), refused(61, "b")], id="at-another-time"),
        pytest.param([refused(0, "a"), refused(1, "a")], id="of-one-service-port"),
        pytest.param([refused(0, "a"), refused(1, "b", cause=BACK)], id="another-cause"),
        pytest.param([refused(0, "a"), refused(1, "b", lasts=True)], id="one-has-ended"),
        pytest.param(
            [refused(0, "a", cause=None), refused(1, "b", cause=None)], id="without-a-cause"
        ),
    ],
)
def test_events_that_do_not_qualify_for_joining_are_shown_individually_newest_first(events):
    assert joined(events) == events[::-1]


def test_a_joined_event_does_not_absorb_a_later_event():
    events = [refused(0, "a"), refused(59, "b"), refused(130, "c"), refused(140, "d")]
    assert [(one.at - NOW, one.what) for one in joined(events)] == [
        (130, "it refuses: 2 Service ports"),
        (0, "it refuses: 2 Service ports"),
    ]
