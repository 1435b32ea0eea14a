import errno
import os

import pytest

from tests.unit.status.views import NOW, make_address, make_endpoint, make_port, replace
from userspace_proxy.causes.cause import When
from userspace_proxy.causes.endpoints import dial_failed, refuses, sends_nothing
from userspace_proxy.causes.say import say
from userspace_proxy.causes.services import source_denied
from userspace_proxy.explain import explain
from userspace_proxy.explain.dial import DialResult
from userspace_proxy.facts import Level
from userspace_proxy.model import Failure

from .subjects import make_subject
from .words import is_on_the_page

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


REFUSES = say(refuses(POD))
HANGS = replace(sends_nothing(make_address(POD)), count=3, last_at=NOW - 2)
HANGING = make_endpoint(POD, cause=HANGS, connections=3)


def dialled(*endpoints, **changes):
    """Explain a Service whose first endpoint refuses a dial."""
    subject = make_subject(make_port(endpoints=endpoints, **changes))
    explanation = explain(subject, dials=dials(**{POD: False}))
    (step,) = steps_of(explanation, "dial")
    return explanation, step


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


def test_what_is_said_of_dials_is_on_the_page():
    assert is_on_the_page("dials")
