import errno
import os

import pytest

from tests.unit.status.views import NOW, make_address, make_endpoint, make_port, replace
from userspace_proxy.causes.cause import When
from userspace_proxy.causes.endpoints import dial_failed, no_route, refuses, sends_nothing
from userspace_proxy.causes.say import remedy, say
from userspace_proxy.causes.services import source_denied
from userspace_proxy.explain import Invocation, explain
from userspace_proxy.explain.dial import DialResult
from userspace_proxy.facts import Level
from userspace_proxy.model import Failure

from .subjects import make_dead_endpoint, make_subject

POD = "10.244.1.7:80"


def steps_of(explanation, topic):
    return [step for part in explanation.parts for step in part.steps if step.topic == topic]


def dials(**results):
    number = errno.ECONNREFUSED
    return {
        address: DialResult(0.0004)
        if answers
        else DialResult(
            0.0001,
            dial_failed(make_address(address), Failure.REFUSED, os.strerror(number)),
            os.strerror(number),
        )
        for address, answers in results.items()
    }


ENDPOINTS = (make_endpoint("10.244.1.7:80"), make_endpoint("10.244.1.8:80", "not ready", False))


@pytest.mark.parametrize(
    ("results", "level"),
    [
        pytest.param(
            {"10.244.1.7:80": True, "10.244.1.8:80": False},
            Level.OK,
            id="used-one-answers",
        ),
        pytest.param(
            {"10.244.1.7:80": False, "10.244.1.8:80": True},
            Level.TROUBLE,
            id="used-one-refuses",
        ),
    ],
)
def test_dials_are_judged_by_the_endpoints_that_are_used(results, level):
    explanation = explain(make_subject(make_port(endpoints=ENDPOINTS)), dials=dials(**results))
    (step,) = steps_of(explanation, "dial")
    assert step.level is level
    unused = Level.OK if results["10.244.1.8:80"] else Level.ATTENTION
    assert [one for one, _ in step.details] == [level, unused]


def test_dials_of_endpoints_that_are_not_used_are_no_success():
    results = dials(**{"10.244.1.8:80": False})
    explanation = explain(make_subject(make_port(endpoints=ENDPOINTS[1:])), dials=results)
    (step,) = steps_of(explanation, "dial")
    assert explanation.level is Level.ATTENTION
    assert [level for level, _ in step.details] == [Level.ATTENTION]


def test_an_address_that_cannot_be_dialled_from_here_is_not_yet_trouble():
    for answers, level in ((True, Level.OK), (False, Level.ATTENTION)):
        subject = make_subject(make_port(connections=0))
        explanation = explain(subject, dials=dials(**{"10.96.7.118:80": answers}))
        assert [step.level for step in steps_of(explanation, "dial")] == [level, Level.OK]


def unrouted(*addresses):
    """Return the results of dials on a machine without a route."""
    failure, error = Failure.NO_ROUTE, "Network is unreachable"
    return {
        at: DialResult(0.0001, dial_failed(make_address(at), failure, error), error, True)
        for at in addresses
    }


def test_an_address_without_a_route_on_this_machine_hides_no_cause():
    denied = source_denied(("198.51.100.0/24",)).replace(count=2, last_at=NOW - 4)
    subject = make_subject(make_port(connections=0, turned_away=(denied,)))
    explanation = explain(subject, dials=unrouted("10.96.7.118:80"))
    step, _ = steps_of(explanation, "dial")
    assert step.level is None
    assert f"; {say(denied)}" in explanation.sentence


def test_a_machine_without_a_route_that_is_no_node_shows_nothing_of_an_endpoint():
    port = make_port(endpoints=ENDPOINTS[:1])
    explanation = explain(make_subject(port, is_live=False), dials=unrouted(POD))
    (step,) = steps_of(explanation, "dial")
    assert step.level is None
    assert [level for level, _ in step.details] == [None]
    assert explanation.sentence == explain(make_subject(port, is_live=False)).sentence
    assert explanation.next == ""


def test_a_node_without_a_route_to_an_endpoint_can_not_serve_it():
    explanation = explain(make_subject(make_port(endpoints=ENDPOINTS)), dials=unrouted(POD))
    assert explanation.sentence.endswith(say(no_route(POD)))


def test_a_failed_dial_decides_the_next_command():
    explanation = explain(
        make_subject(make_port(endpoints=ENDPOINTS)), dials=dials(**{"10.244.1.7:80": False})
    )
    assert explanation.next.endswith("status.podIP=10.244.1.7")


REFUSES = say(refuses(POD))
HANGS = replace(sends_nothing(make_address(POD)), count=3, last_at=NOW - 2)
HANGING = make_endpoint(POD, cause=HANGS, connections=3)


def dialled(*endpoints, **changes):
    """Explain a Service whose first endpoint refuses a dial."""
    subject = make_subject(make_port(endpoints=endpoints, **changes))
    explanation = explain(subject, dials=dials(**{POD: False}))
    (step,) = steps_of(explanation, "dial")
    return explanation, step


def test_a_failed_dial_is_a_further_line_where_clients_are_answered():
    explanation, step = dialled(make_endpoint(POD, answered_at=NOW - 5))
    assert explanation.level is Level.OK
    assert REFUSES not in explanation.sentence
    assert step.level is None
    assert REFUSES in step.what
    assert [level for level, _ in step.details] == [None]
    assert "podIP" not in explanation.next


def test_a_failed_dial_does_not_replace_what_clients_met():
    explanation, step = dialled(HANGING)
    assert explanation.level is Level.ATTENTION
    assert explanation.sentence.startswith("Clients get no answer: ")
    assert step.level is None
    assert step.what.endswith(f"{REFUSES}; clients: {say(HANGS)}")


def test_a_failed_dial_that_met_what_clients_met_adds_nothing():
    explanation, step = dialled(make_dead_endpoint(POD))
    assert explanation.sentence.startswith("Clients fail: ")
    assert (REFUSES in step.what, step.hint) == (False, "")


def test_what_accepts_dials_and_fails_clients_has_no_good_mark():
    port = make_port(endpoints=(HANGING,), connections=9, sent_bytes=0)
    subject = make_subject(port)
    results = dials(**{"10.96.7.118:80": True, POD: True})
    of_address, of_endpoint = steps_of(explain(subject, dials=results), "dial")
    assert (of_address.level, of_endpoint.level) == (None, None)
    assert [level for level, _ in of_endpoint.details] == [None]


@pytest.mark.parametrize(
    ("endpoint", "level"),
    [
        pytest.param(make_endpoint(POD, answered_at=NOW - 600), Level.ATTENTION, id="answered"),
        pytest.param(
            replace(HANGING, cause=HANGS.replace(when=When.PAST), is_past=True),
            Level.TROUBLE,
            id="failed",
        ),
        pytest.param(make_endpoint(POD), Level.TROUBLE, id="never-dialled"),
    ],
)
def test_a_failed_dial_decides_where_no_client_has_dialled_lately(endpoint, level):
    explanation, step = dialled(endpoint)
    assert (explanation.level, step.level) == (level, level)
    assert REFUSES in explanation.sentence


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, id="clients-are-served"),
        pytest.param({"connections": 0, "admits": ("192.0.2.0/24",)}, id="not-all-are-admitted"),
    ],
)
def test_an_address_that_clients_dial_is_not_judged_from_here(changes):
    subject = make_subject(make_port(**changes))
    explanation = explain(subject, dials=dials(**{"10.96.7.118:80": False}))
    assert explanation.level is Level.OK
    assert steps_of(explanation, "dial")[0].level is None


def test_why_clients_are_refused_is_said_before_a_dial_that_is_refused():
    port = make_port(endpoints=(), reason="it has no endpoints", connections=0)
    explanation = explain(make_subject(port), dials=dials(**{"10.96.7.118:80": False}))
    assert explanation.sentence == port.state.sentence


def test_dials_that_are_not_possible_change_no_verdict():
    invocation = Invocation(can_dial=False)
    explanation = explain(make_subject(), dials={}, invocation=invocation)
    assert explanation.level is Level.OK
    assert explanation.sentence == f"{explain(make_subject()).sentence}; nothing was dialled"


def test_the_remedy_for_an_endpoint_by_name_is_about_its_host():
    port = make_port(endpoints=(make_endpoint(POD, host="db.example.com"),))
    explanation = explain(make_subject(port), dials=dials(**{POD: False}))
    (step,) = steps_of(explanation, "dial")
    assert step.hint == remedy(refuses(POD).replace(host="db.example.com"))
