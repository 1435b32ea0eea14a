from dataclasses import replace as replace_subject

import pytest

from tests.unit.status.views import (
    NOW,
    make_address,
    make_endpoint,
    make_port,
    make_two_sides,
    replace,
)
from userspace_proxy.causes.endpoints import (
    answers_late,
    denies,
    dial_failed,
    fault_on_purpose,
    loses,
    resets,
    sends_nothing,
)
from userspace_proxy.causes.say import command, say
from userspace_proxy.diagnosis.clauses import planned_of
from userspace_proxy.diagnosis.judge import cause_of
from userspace_proxy.diagnosis.rules import decide
from userspace_proxy.explain import explain
from userspace_proxy.explain.next_command import Invocation
from userspace_proxy.explain.steps import before_it_failed, mistakes, node_notes, say_client
from userspace_proxy.facts import (
    Level,
    PortState,
    RejectedFacts,
    SourceFacts,
    SteeringState,
)
from userspace_proxy.model import Failure, Protocol

from .subjects import make_dead_endpoint, make_subject
from .words import NOT_READY, is_on_the_page

DENIES = denies(make_address("10.244.1.8:80"), "10.244.0.123")
DENYING = make_endpoint(
    "10.244.1.8:80", connections=20, sent_bytes=9, cause=replace(DENIES, count=5, last_at=NOW - 3)
)


def steps_of(explanation, topic):
    return [step for part in explanation.parts for step in part.steps if step.topic == topic]


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


FAILING = SourceFacts("manifests", "m", is_synced=True, problems=("m/other.yaml:1: not YAML",))


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


def test_ports_of_one_number_are_told_apart_by_the_protocol():
    udp = make_port("dns", port="dns", protocol=Protocol.UDP, shared_number=53)
    tcp = make_port("dns", port="dns-tcp", shared_number=53, problem="its port is taken")
    explanation = explain(make_subject(udp, tcp, service="shop/dns"))
    titles = sorted(part.title for part in explanation.parts[1:])
    assert titles == ["shop/dns:dns 53/UDP (IPv4)", "shop/dns:dns-tcp 53/TCP (IPv4)"]
    assert explanation.sentence.startswith("Port dns-tcp, 53/TCP: ")


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


def test_a_service_that_keeps_each_client_to_an_endpoint_says_so():
    for is_live in (True, False):
        subject = make_subject(make_port(affinity_timeout_s=10800), is_live=is_live)
        assert explain(subject).sentence.endswith(" for 3 h (sessionAffinity)")
    alone = make_port(endpoints=(make_endpoint(str(POD)),), affinity_timeout_s=10800)
    assert "sessionAffinity" not in explain(make_subject(alone)).sentence


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


def test_what_is_said_of_steps_is_on_the_page():
    assert is_on_the_page("steps")


def test_a_remedy_that_is_a_command_asks_the_same_cluster():
    port = replace(make_port(endpoints=()), cause=NOT_READY)
    api = Invocation(source=("--kubeconfig=my dir/k", "--master=https://a:1"))
    (step,) = (
        step
        for part in explain(make_subject(port), invocation=api).parts
        for step in part.steps
        if step.topic == "endpoints"
    )
    assert step.hint == api.kubectl(command(NOT_READY))
    assert step.hint.endswith(" '--kubeconfig=my dir/k' --server=https://a:1")
