from dataclasses import replace as replace_subject

import pytest

from tests.unit.status.views import (
    NOW,
    make_address,
    make_endpoint,
    make_health_check,
    make_ignored,
    make_port,
    make_troubled_view,
    make_two_sides,
    replace,
)
from userspace_proxy.causes.cause import CauseCode, as_read
from userspace_proxy.causes.endpoints import (
    answers_late,
    denies,
    dial_failed,
    fault_on_purpose,
    loses,
    no_datagram,
    resets,
    sends_nothing,
)
from userspace_proxy.causes.say import Form, say
from userspace_proxy.causes.services import (
    HEALTH_CHECK_FAILS,
    balanced_elsewhere,
    external_ip_off,
    no_proxy_header,
)
from userspace_proxy.causes.slices import none_local, unnamed_slice_rejected
from userspace_proxy.diagnosis.clauses import get_no_answer, no_datagram_in, planned_of
from userspace_proxy.diagnosis.dated import cause_at, sentence_at
from userspace_proxy.diagnosis.judge import cause_of
from userspace_proxy.diagnosis.rules import decide
from userspace_proxy.explain import PathStep, explain
from userspace_proxy.explain.steps import before_it_failed, mistakes, node_notes, say_client
from userspace_proxy.facts import (
    Level,
    PortState,
    RejectedFacts,
    SourceFacts,
    SteeringState,
    Waits,
)
from userspace_proxy.model import Failure, Handling, Hold, Protocol, Side

from .subjects import make_dead_endpoint, make_subject

DENIES = denies(make_address("10.244.1.8:80"), "10.244.0.123")
DENYING = make_endpoint(
    "10.244.1.8:80", connections=20, sent_bytes=9, cause=replace(DENIES, count=5, last_at=NOW - 3)
)


def steps_of(explanation, topic):
    return [step for part in explanation.parts for step in part.steps if step.topic == topic]


def test_the_steps_are_in_the_order_of_a_connections_path():
    explanation = explain(make_subject(), client="10.0.0.1")
    assert [(part.title, [step.topic for step in part.steps]) for part in explanation.parts] == [
        ("node", ["source", "rules", "firewall"]),
        ("shop/web:http (IPv4)", ["address", "client", "endpoints"]),
    ]
    assert explanation.level is Level.OK


def test_an_endpoint_that_denies_clients_is_the_sentence_and_where_to_look():
    explanation = explain(make_subject(make_port(endpoints=(DENYING,))))
    assert explanation.level is Level.ATTENTION
    (step,) = steps_of(explanation, "endpoints")
    assert "NetworkPolicy" in step.hint
    said = cause_at(DENYING.cause, NOW, Form.PREDICATE)
    assert step.details == ((Level.ATTENTION, f"10.244.1.8:80: {said}"),)
    assert "get networkpolicies -n shop" in explanation.next


def test_the_worst_step_is_the_sentence():
    dead = make_dead_endpoint("10.244.1.8:80", connections=20)
    port = make_port(endpoints=(dead,))
    explanation = explain(make_subject(port))
    assert explanation.level is Level.TROUBLE
    assert explanation.sentence == port.state.sentence
    assert port.state.stated == [REFUSES.replace(count=2, last_at=NOW - 3)]
    assert explanation.next.endswith("status.podIP=10.244.1.8")


@pytest.mark.parametrize(
    ("changes", "which"),
    [
        pytest.param({"port": "metrics"}, "Port metrics: ", id="port"),
        pytest.param({"family": "IPv6"}, "IPv6: ", id="family"),
        pytest.param({"port": "metrics", "family": "IPv6"}, "Port metrics, IPv6: ", id="both"),
        pytest.param({"side": "external"}, "External: ", id="side"),
    ],
)
def test_the_sentence_names_the_port_family_or_side_where_another_one_is_served(changes, which):
    dead = replace(make_port(endpoints=(make_dead_endpoint("10.244.1.8:80"),)), **changes)
    alone, beside = explain(make_subject(dead)), explain(make_subject(make_port(), dead))
    assert beside.sentence == f"{which}{alone.sentence}"
    assert alone.sentence == dead.state.sentence


@pytest.mark.parametrize(
    ("changes", "state"),
    [
        pytest.param({"endpoints": (), "reason": "none is ready"}, PortState.REFUSED, id="all"),
        pytest.param({"endpoints": (DENYING,)}, PortState.PARTLY_ANSWERING, id="some"),
    ],
)
def test_clients_that_fail_win_over_a_note_at_another_port_of_equal_level(changes, state):
    served = make_port(notes=("its mode isn't followed",))
    failing = replace(make_port(**changes), family="IPv6")
    explanation = explain(make_subject(served, failing))
    assert explanation.sentence == (
        f"IPv6: {failing.state.sentence}; also: its mode isn't followed"
    )
    assert failing.state.word is state


def test_causes_of_endpoints_are_not_repeated_as_notes():
    dead = tuple(make_dead_endpoint(f"10.244.1.{n}:80") for n in (8, 9))
    explanation = explain(make_subject(make_port(endpoints=dead)))
    assert steps_of(explanation, "note") == []


def test_a_note_about_an_address_that_is_not_served_is_no_success():
    notes = (external_ip_off("192.0.2.1", "not allowed"),)
    port = make_port(endpoints=(), reason="no pod is ready", notes=notes)
    (note,) = steps_of(explain(make_subject(port)), "note")
    assert note.level is Level.ATTENTION


FAILING = SourceFacts("manifests", "m", is_synced=True, problems=("m/other.yaml:1: not YAML",))


def test_a_service_that_is_ignored_wins_over_all_problems_of_the_node():
    ignored = (make_ignored("shop/db", "", "it is headless"),)
    sync = make_troubled_view().sync
    subject = make_subject(service="shop/db", ignored=ignored, source=FAILING, sync=sync)
    explanation, alone = explain(subject), make_subject(service="shop/db", ignored=ignored)
    assert (explanation.level, explanation.sentence) == (Level.TROUBLE, explain(alone).sentence)


@pytest.mark.parametrize(
    ("changes", "node", "sentence"),
    [
        pytest.param(
            {"endpoints": (), "reason": "no pod is ready"},
            {"source": FAILING},
            "Clients are refused: no pod is ready",
            id="refused",
        ),
        pytest.param({}, {"source": FAILING}, "m/other.yaml:1: not YAML", id="served"),
        pytest.param(
            {"notes": ("its mode isn't followed",)},
            {"steering": SteeringState("nftables", problem="table vanished")},
            ": table vanished; also: its mode isn't followed",
            id="its-clients-need-the-rules",
        ),
    ],
)
def test_problems_of_the_source_may_be_about_other_objects(changes, node, sentence):
    assert explain(make_subject(make_port(**changes), **node)).sentence.endswith(sentence)


def test_what_was_found_out_about_pods_comes_first():
    step = PathStep(Level.TROUBLE, "pods", "no pod has these labels")
    explanation = explain(make_subject(), pods=[step])
    assert explanation.parts[0].steps == (step,)
    assert explanation.sentence == "no pod has these labels"


def test_the_step_about_endpoints_counts_clients_that_a_policy_drops():
    inside, outside = make_two_sides()
    policy = none_local(1, 0, "node-b", "externalTrafficPolicy")
    outside = replace(outside, cause=policy)
    for turned_away, end in (((replace(policy, count=3),), "Local (3 times)"), ((), "Local")):
        dropping = replace(outside, turned_away=turned_away)
        explanation = explain(make_subject(inside, dropping, service="shop/front"))
        assert steps_of(explanation, "endpoints")[1].what.endswith(f" is {end}")


def test_connections_that_wait_are_a_step_and_the_sentence():
    waits, hold = Waits(3, 12.0), Handling(hold=Hold(60))
    port = make_port(endpoints=(), reason="it has no endpoints", handling=hold, waits=waits)
    explanation = explain(make_subject(port))
    assert (explanation.level, explanation.sentence) == (Level.ATTENTION, port.state.sentence)
    assert port.state.word.waits
    (step,) = steps_of(explain(make_subject(make_port(waits=waits))), "waiting")
    assert step.level is Level.ATTENTION


def test_a_title_tells_families_and_sides_apart():
    explanation = explain(make_subject(*make_two_sides(), service="shop/front"))
    titles = [part.title for part in explanation.parts[1:]]
    assert titles == ["shop/front:http (IPv4)", f"shop/front:http (IPv4, {Side.EXTERNAL})"]


def test_ports_of_one_number_are_told_apart_by_the_protocol():
    udp = make_port("dns", port="dns", protocol=Protocol.UDP, shared_number=53)
    tcp = make_port("dns", port="dns-tcp", shared_number=53, problem="its port is taken")
    explanation = explain(make_subject(udp, tcp, service="shop/dns"))
    titles = sorted(part.title for part in explanation.parts[1:])
    assert titles == ["shop/dns:dns 53/UDP (IPv4)", "shop/dns:dns-tcp 53/TCP (IPv4)"]
    assert explanation.sentence.startswith("Port dns-tcp, 53/TCP: ")


def test_the_step_about_endpoints_has_the_age_of_the_last_answer_in_its_sentence():
    port = make_port(is_quiet=True, sent_at=NOW - 90, notes=("its mode isn't followed",))
    (step,) = steps_of(explain(make_subject(port)), "endpoints")
    assert "(last answer 1 min ago)" in step.what


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
            ["answered", "accepted 20"],
        ),
        pytest.param(failing(REFUSES, sent_bytes=0), "TCP", ["accepted 20"]),
        pytest.param(failing(REFUSES, connections=0), "TCP", []),
        pytest.param(failing(REFUSES, sent_bytes=0), "UDP", []),
        pytest.param(failing(REFUSES, sent_bytes=1), "UDP", ["answered"]),
        pytest.param(failing(REFUSES, sent_at=1.0, sent_bytes=0), "UDP", ["answered"]),
        pytest.param(failing(resets(POD), sent_bytes=1), "TCP", []),
        pytest.param(failing(sends_nothing(POD), sent_bytes=1), "TCP", []),
        pytest.param(failing(answers_late(POD, 2.5), sent_bytes=1), "TCP", []),
        pytest.param(failing(fault_on_purpose(POD, ["silent"]), sent_bytes=1), "TCP", []),
        pytest.param(failing(loses(POD, Failure.FROM_ENDPOINT), sent_bytes=1), "TCP", []),
        pytest.param(failing(None, sent_bytes=1), "TCP", []),
    ],
)
def test_what_an_endpoint_did_before_is_what_came_back_from_it(endpoint, protocol, said):
    words = before_it_failed(endpoint, protocol)
    assert [one for one in ("answered", "accepted 20") if one in words] == said
    assert bool(words) is bool(said)


def udp(*others, **figures):
    stalled = failing(replace(no_datagram(POD), count=3), **figures)
    return make_port(protocol=Protocol.UDP, endpoints=(stalled, *others), sent_bytes=9)


@pytest.mark.parametrize("flows", [3, 20])
def test_flows_without_an_answer_are_the_sentence_also_after_answers(flows):
    port = udp(connections=flows, sent_bytes=9)
    explanation = explain(make_subject(port))
    assert (explanation.level, port.state.word) == (Level.ATTENTION, PortState.UNANSWERED)
    assert explanation.sentence == port.state.sentence
    (clause,) = port.state.clauses
    assert clause.text == f"{get_no_answer().text}: {no_datagram_in(3, flows).text}"
    (step,) = (s for part in explanation.parts for s in part.steps if s.topic == "endpoints")
    assert "network policy" in step.hint
    assert "no datagram" in step.what
    assert {level for level, _ in step.details} == {Level.ATTENTION}


def test_one_mute_endpoint_of_two_is_the_sentence():
    port = udp(make_endpoint("10.244.1.9:80", answered_at=1.0))
    explanation = explain(make_subject(port))
    assert explanation.sentence == port.state.sentence
    assert port.state.stated == [replace(no_datagram(POD), count=3)]
    (step,) = (s for part in explanation.parts for s in part.steps if s.topic == "endpoints")
    said = cause_at(port.state.causes[0], NOW, Form.PREDICATE)
    assert step.details[0] == (Level.ATTENTION, f"{POD}: {said}")


def test_a_service_that_keeps_each_client_to_an_endpoint_says_so():
    for is_live in (True, False):
        subject = make_subject(make_port(affinity_timeout_s=10800), is_live=is_live)
        assert explain(subject).sentence.endswith(" for 3 h (sessionAffinity)")
    alone = make_port(endpoints=(make_endpoint(str(POD)),), affinity_timeout_s=10800)
    assert "sessionAffinity" not in explain(make_subject(alone)).sentence


def test_clients_that_sent_no_proxy_header_are_counted_in_the_sentence():
    cause = replace(no_proxy_header("203.0.113.11"), count=20, last_at=NOW - 4)
    port = make_port(client_mistakes=(cause,), connections=0)
    explanation = explain(make_subject(port))
    assert port.state.stated == [cause]
    assert explanation.sentence == sentence_at(port, NOW, [cause])
    assert explanation.sentence != port.state.sentence
    assert not [step for part in explanation.parts for step in part.steps if step.topic == "note"]
    checked = make_port(bad_headers=3, connections=0, sent_bytes=0)
    assert checked.state.causes == ()
    assert explain(make_subject(checked)).sentence == checked.state.sentence


def test_an_address_that_its_load_balancer_answers_for_is_said_and_no_problem():
    note = balanced_elsewhere("203.0.113.9")
    port = make_port(notes=(note,))
    assert (port.state.level, port.state.is_problem) == (Level.OK, False)
    explanation = explain(make_subject(port))
    assert explanation.level is Level.OK
    assert explanation.sentence.endswith(f" by 2 endpoints; {say(note)}")


UNLABELLED = "m/shop.yaml:21: metadata.labels: kubernetes.io/service-name is missing"


def made_of(*rejected, port=None, service="shop/web"):
    """Return a Service of a source that has rejected objects."""
    lines = [item.line for item in rejected]
    source = SourceFacts("manifests", "m", is_synced=True, problems=lines, rejected=rejected)
    return make_subject(port or make_port(), service=service, source=source)


@pytest.mark.parametrize(
    ("port", "sentence"),
    [
        (make_port(), "Served by 2 endpoints; "),
        (
            make_port(endpoints=(), reason="no pod is ready"),
            "Clients are refused: no pod is ready; also: ",
        ),
    ],
)
def test_the_sentence_about_a_mistake_in_an_object_is_that_of_its_port(port, sentence):
    rejected = RejectedFacts(UNLABELLED, "Service shop/web", services=("shop/web",))
    subject = made_of(rejected, port=port)
    said = explain(subject).sentence
    assert said == f"{sentence}{say(cause_of(rejected))}"
    assert [*mistakes(subject)] == []


def test_a_health_check_that_is_not_served_has_what_follows_from_it():
    taken = "held by nginx"
    explanation = explain(
        make_subject(health_checks=[make_health_check("shop/web", 30201, 1, taken)])
    )
    assert explanation.sentence == f"Served by 2 endpoints; {taken}"
    hints = [step.hint for part in explanation.parts for step in part.steps if step.hint]
    assert hints[0] == HEALTH_CHECK_FAILS


@pytest.mark.parametrize(("is_conflict", "mark"), [(False, None), (True, Level.TROUBLE)])
def test_a_service_that_is_ignored_by_design_has_a_neutral_mark(is_conflict, mark):
    ignored = (make_ignored("shop/db", "", "it is headless", is_conflict=is_conflict),)
    explanation = explain(make_subject(service="shop/db", ignored=ignored))
    assert explanation.parts[0].steps[0].mark is mark


WITHOUT_SLICE = replace(make_port(endpoints=()), cause=as_read(CauseCode.NO_SLICE, "no slice"))


def test_a_rejected_slice_that_names_no_service_is_the_first_line_of_the_one_it_is_named_after():
    subject = made_of(
        RejectedFacts(UNLABELLED, "EndpointSlice shop/web-1", "EndpointSlice", "shop", "web-1"),
        port=WITHOUT_SLICE,
    )
    (cause,) = subject.ports[0].state.causes
    assert (cause.row, cause.get("line")) == (unnamed_slice_rejected, UNLABELLED)
    assert [*subject.others_rejected] == [*mistakes(subject)] == []


@pytest.mark.parametrize(
    ("rejected", "port"),
    [
        pytest.param("EndpointSlice shop/web-1", make_port(), id="it-has-slices"),
        pytest.param("EndpointSlice shop/webcam-1", WITHOUT_SLICE, id="another-name"),
        pytest.param("EndpointSlice test/web-1", WITHOUT_SLICE, id="another-namespace"),
        pytest.param("Service shop/web-1", WITHOUT_SLICE, id="another-kind"),
    ],
)
def test_other_rejected_objects_are_of_no_concern(rejected, port):
    subject = made_of(RejectedFacts(UNLABELLED, rejected), port=port)
    assert [*mistakes(subject)] == []
    assert len(subject.others_rejected) == 1


def test_a_file_that_can_not_be_read_may_be_about_any_service():
    line = "web.yaml:23: not YAML: found unexpected end of stream"
    subject = made_of(RejectedFacts(line), port=WITHOUT_SLICE)
    said = [step.what for part in explain(subject).parts for step in part.steps]
    assert f"Not read: {line}" in said
    assert not any("of no concern" in one for one in said)


def test_a_problem_has_the_mistake_that_may_be_its_reason_beside_it():
    refused = make_port(endpoints=(), reason="none is ready", notes=("a is unknown", "b"))
    said = explain(make_subject(refused)).sentence
    assert said == "Clients are refused: none is ready; also: a is unknown; 1 further note"


LOOPBACK = "127.0.0.1:80"
REFUSED = make_endpoint(LOOPBACK, "refused: a loopback address", False)
OTHER = make_endpoint("10.244.1.7:80")


def planned(*endpoints, on_node, **changes):
    """Return a planned Service, and how it would be planned on a node."""
    subject = make_subject(make_port(endpoints=endpoints), is_live=False)
    there = make_port(endpoints=on_node, **changes)
    _, verdict = decide(there)
    there.planned = planned_of(verdict.clauses)
    return replace_subject(subject, on_node=[there])


@pytest.mark.parametrize(
    ("endpoints", "on_node", "changes"),
    [
        pytest.param((), (REFUSED,), {"reason": "none"}, id="refused"),
        pytest.param((OTHER,), (OTHER, REFUSED), {}, id="some"),
    ],
)
def test_what_a_node_would_refuse_is_a_note_and_ends_the_sentence(endpoints, on_node, changes):
    subject = planned(make_endpoint(LOOPBACK), *endpoints, on_node=on_node, **changes)
    (note,) = node_notes(subject.ports[0], subject)
    assert note.level is None
    assert note.what.endswith(subject.on_node[0].planned)
    assert note.details == ((None, f"{LOOPBACK}: {REFUSED.state}"),)
    assert explain(subject).sentence.endswith(f"; {note.what}")


def test_a_service_that_is_the_same_on_a_node_has_no_note():
    subject = planned(OTHER, on_node=(OTHER,))
    assert [*node_notes(subject.ports[0], subject)] == []
    assert explain(subject).sentence == explain(replace_subject(subject, on_node=[])).sentence


def test_only_the_family_of_the_client_is_said():
    subject = planned(make_endpoint(LOOPBACK), on_node=(REFUSED,), reason="no")
    assert "on a node" not in explain(subject, client="fd00::1").sentence


EVERYONE = make_subject().ports[0]
RANGES = make_subject(make_port(admits=("192.0.2.0/24",))).ports[0]
INSIDE, OUTSIDE = make_subject(*make_two_sides(), service="shop/front").ports


@pytest.mark.parametrize(
    ("port", "client", "level"),
    [
        pytest.param(EVERYONE, "10.0.0.1", Level.OK, id="all"),
        pytest.param(RANGES, "192.0.2.9", Level.OK, id="in-range"),
        pytest.param(RANGES, "10.0.0.1", Level.ATTENTION, id="out-of-range"),
        pytest.param(OUTSIDE, "10.244.0.9", Level.OK, id="inside"),
    ],
)
def test_a_client_is_admitted_by_its_network(port, client, level):
    found, said = say_client(port, client)
    assert found is level
    assert client in said
    assert found is not Level.OK or said.endswith(port.policy)


def test_a_client_that_a_policy_drops_gets_the_reason():
    level, said = say_client(OUTSIDE, "198.51.100.1")
    assert level is Level.ATTENTION
    assert said.endswith(f": {OUTSIDE.state.sentence}")
