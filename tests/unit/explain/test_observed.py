import pytest

from tests.unit.status.views import NOW, make_address, make_endpoint, make_port, replace
from userspace_proxy.causes.endpoints import (
    answers_late,
    dial_failed,
    fault_on_purpose,
    loses,
    no_datagram,
    resets,
    sends_nothing,
)
from userspace_proxy.causes.say import say
from userspace_proxy.causes.services import balanced_elsewhere, no_proxy_header
from userspace_proxy.explain import explain
from userspace_proxy.explain.observed import before_it_failed
from userspace_proxy.facts import Level
from userspace_proxy.model import Failure, Handling, Protocol

from .subjects import make_subject

POD = make_address("10.244.1.8:80")
REFUSES = dial_failed(POD, Failure.REFUSED, "")


def failing(cause, **figures):
    return replace(make_endpoint(str(POD)), **{"connections": 20, **figures}, cause=cause)


@pytest.mark.parametrize(
    ("endpoint", "protocol", "said"),
    [
        pytest.param(
            failing(REFUSES, sent_bytes=1),
            "TCP",
            "; it answered clients, and accepted 20 connections before",
        ),
        pytest.param(failing(REFUSES, sent_bytes=0), "TCP", "; it accepted 20 connections before"),
        pytest.param(failing(REFUSES, connections=0), "TCP", ""),
        pytest.param(failing(REFUSES, sent_bytes=0), "UDP", ""),
        pytest.param(failing(REFUSES, sent_bytes=1), "UDP", "; it answered before"),
        pytest.param(failing(REFUSES, sent_at=1.0, sent_bytes=0), "UDP", "; it answered before"),
        pytest.param(failing(resets(POD), sent_bytes=1), "TCP", ""),
        pytest.param(failing(sends_nothing(POD), sent_bytes=1), "TCP", ""),
        pytest.param(failing(answers_late(POD, 2.5), sent_bytes=1), "TCP", ""),
        pytest.param(failing(fault_on_purpose(POD, ["silent"]), sent_bytes=1), "TCP", ""),
        pytest.param(failing(loses(POD, Failure.FROM_ENDPOINT), sent_bytes=1), "TCP", ""),
        pytest.param(failing(None, sent_bytes=1), "TCP", ""),
    ],
)
def test_what_an_endpoint_did_before_is_what_came_back_from_it(endpoint, protocol, said):
    assert before_it_failed(endpoint, protocol) == said


def udp(*others, **figures):
    stalled = failing(replace(no_datagram(POD), count=3), **figures)
    return make_port(protocol=Protocol.UDP, endpoints=(stalled, *others), sent_bytes=9)


@pytest.mark.parametrize(("flows", "which"), [(3, "3 of 3 flows"), (20, "the last 3 flows")])
def test_flows_without_an_answer_are_the_sentence_also_after_answers(flows, which):
    explanation = explain(make_subject(udp(connections=flows, sent_bytes=9)))
    assert explanation.level is Level.ATTENTION
    assert explanation.sentence == f"Clients get no answer: no datagram has come back in {which}"
    (step,) = (s for part in explanation.parts for s in part.steps if s.topic == "endpoints")
    assert "network policy" in step.hint
    assert "no datagram" in step.what
    assert {level for level, _ in step.details} == {Level.ATTENTION}


def test_one_mute_endpoint_of_two_is_the_sentence():
    explanation = explain(make_subject(udp(make_endpoint("10.244.1.9:80", answered_at=1.0))))
    assert explanation.sentence == f"{POD} sends no datagram back; the other one serves"
    (step,) = (s for part in explanation.parts for s in part.steps if s.topic == "endpoints")
    assert step.details[0] == (Level.ATTENTION, f"{POD}: sends no datagram back (3 times)")


def test_a_service_that_keeps_each_client_to_an_endpoint_says_so():
    said = "; each client keeps to one, until it is away for 3 h (sessionAffinity)"
    assert explain(make_subject(make_port(affinity_timeout_s=10800))).sentence.endswith(said)
    planned = explain(make_subject(make_port(affinity_timeout_s=10800), is_live=False))
    assert planned.sentence.endswith(said)
    alone = make_port(endpoints=(make_endpoint(str(POD)),), affinity_timeout_s=10800)
    assert "sessionAffinity" not in explain(make_subject(alone)).sentence


def test_clients_that_sent_no_proxy_header_are_counted_in_the_sentence():
    cause = replace(no_proxy_header("203.0.113.11"), count=20, last_at=NOW - 4)
    explanation = explain(make_subject(make_port(client_mistakes=(cause,), connections=0)))
    assert explanation.sentence == (
        "No client has been served: connections without a PROXY header were reset, the last one of "
        "203.0.113.11 (20 times, last 4 s ago)"
    )
    assert not [step for part in explanation.parts for step in part.steps if step.topic == "note"]
    checked = make_port(bad_headers=3, connections=0, sent_bytes=0)
    sentence = explain(make_subject(checked)).sentence
    assert sentence == "Ready: 2 endpoints; no client has been served yet"


def test_an_address_that_its_load_balancer_answers_for_is_said_and_no_problem():
    note = balanced_elsewhere("203.0.113.9")
    port = make_port(notes=(note,))
    assert (port.state.level, port.state.is_problem) == (Level.OK, False)
    explanation = explain(make_subject(port))
    assert explanation.level is Level.OK
    assert explanation.sentence == f"Clients are served by 2 endpoints; {say(note)}"


def test_a_limit_of_connections_is_a_part_of_the_step():
    port = make_port(handling=Handling(max_connections=3))
    (step,) = (
        step
        for part in explain(make_subject(port)).parts
        for step in part.steps
        if step.topic == "endpoints"
    )
    assert step.what == "2 of 2 used; at most 3 connections per endpoint"
