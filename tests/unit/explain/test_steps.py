from dataclasses import replace as replace_subject

import pytest

from tests.unit.causes.samples import a_note
from tests.unit.status.views import (
    NOW,
    make_address,
    make_endpoint,
    make_frontend,
    make_health_check,
    make_ignored,
    make_port,
    make_standby,
    make_troubled_view,
    make_two_sides,
    replace,
)
from userspace_proxy.causes.cause import as_read
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
from userspace_proxy.causes.say import remedy, say
from userspace_proxy.causes.services import (
    balanced_elsewhere,
    external_ip_off,
    no_proxy_header,
    source_denied,
)
from userspace_proxy.causes.slices import none_local
from userspace_proxy.diagnosis.clauses import get_no_answer, no_datagram_in, planned_of
from userspace_proxy.diagnosis.dated import sentence_at
from userspace_proxy.diagnosis.rules import decide
from userspace_proxy.explain import PathStep, explain
from userspace_proxy.explain.steps import before_it_failed, mistakes, node_notes, say_client
from userspace_proxy.facts import (
    FirewallFacts,
    LastStateFacts,
    Level,
    PortState,
    RejectedFacts,
    SourceFacts,
    SteeringState,
    Waits,
)
from userspace_proxy.model import CauseCode, Failure, Handling, Hold, Protocol
from userspace_proxy.plan import Side

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
    assert step.details == (
        (
            Level.ATTENTION,
            "10.244.1.8:80: answers this node, but not 10.244.0.123 (5 times, last 3 s ago)",
        ),
    )
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


def test_an_endpoint_has_its_cause_how_often_and_when_and_what_it_served():
    dead = make_dead_endpoint("10.244.1.8:80", connections=20, sent_bytes=9, node="node-b")
    subject = make_subject(make_port(endpoints=(make_endpoint("10.244.1.7:80"), dead)))
    (step,) = steps_of(explain(subject), "endpoints")
    assert step.level is Level.ATTENTION
    assert step.details == (
        (
            Level.TROUBLE,
            "10.244.1.8:80 on node-b: refuses connections (2 times, last 3 s ago); it answered "
            "clients, and accepted 20 connections before",
        ),
        (Level.OK, "10.244.1.7:80: ready"),
    )


def test_connections_that_are_reset_or_suffer_a_fault_on_purpose_are_not_called_served():
    at, ended = make_address("10.244.1.8:80"), make_endpoint("10.244.1.8:80", connections=315)
    endpoint = replace(ended, cause=replace(resets(at), count=3))
    faulty = replace(ended, cause=fault_on_purpose(at, ["silent"]))
    (step,) = steps_of(explain(make_subject(make_port(endpoints=(endpoint, faulty)))), "endpoints")
    assert step.details[0][1].endswith("(3 times)")
    assert step.details[1] == (Level.ATTENTION, "10.244.1.8:80: has a fault on purpose")


def test_causes_of_endpoints_are_not_repeated_as_notes():
    dead = tuple(make_dead_endpoint(f"10.244.1.{n}:80") for n in (8, 9))
    explanation = explain(make_subject(make_port(endpoints=dead)))
    assert steps_of(explanation, "note") == []


def test_other_causes_are_notes():
    notes = (a_note("this field has no effect"), a_note("nor has this"))
    explanation = explain(make_subject(make_port(notes=notes)))
    (note,) = steps_of(explanation, "note")
    assert (note.level, note.what) == (Level.ATTENTION, "nor has this")
    assert explanation.sentence.endswith("; this field has no effect; 1 further note")


def test_a_note_about_an_address_that_is_not_served_is_no_success():
    notes = (external_ip_off("192.0.2.1", "not allowed"),)
    port = make_port(endpoints=(), reason="no pod is ready", notes=notes)
    (note,) = steps_of(explain(make_subject(port)), "note")
    assert note.level is Level.ATTENTION


def test_endpoints_that_are_not_used_have_the_reason():
    endpoints = (
        make_endpoint("10.244.1.7:80", connections=1),
        make_endpoint("10.244.1.8:80", "not ready", False),
        make_endpoint("10.244.1.9:80", "not on this node", False, "node-b"),
        make_endpoint("10.244.1.10:80", ejected_for_s=5.0),
    )
    (step,) = steps_of(explain(make_subject(make_port(endpoints=endpoints))), "endpoints")
    assert list(step.details) == [
        (Level.ATTENTION, "10.244.1.8:80: not ready"),
        (None, "10.244.1.9:80 on node-b: not on this node"),
        (Level.TROUBLE, "10.244.1.10:80: ejected for 5 s"),
        (Level.OK, "10.244.1.7:80: ready, 1 connection"),
    ]


def test_of_many_endpoints_the_rest_is_counted():
    endpoints = tuple(make_endpoint(f"10.244.1.{n}:80") for n in range(1, 31))
    (step,) = steps_of(explain(make_subject(make_port(endpoints=endpoints))), "endpoints")
    assert step.what == "30 of 30 used"
    assert (len(step.details), step.details[-1]) == (21, (Level.OK, "and 10 more"))


@pytest.mark.parametrize(
    ("changes", "topic", "level", "text"),
    [
        pytest.param(
            {"steering": SteeringState("nftables", repairs=2, repaired_last_minute=2)},
            "rules",
            Level.OK,
            "nftables: the kernel is as planned, compared every second, 2 repairs so far",
            id="repaired",
        ),
        pytest.param(
            {"steering": SteeringState("nftables", repairs=9, repaired_last_minute=9)},
            "rules",
            Level.ATTENTION,
            "Another program keeps changing the proxy's rules: put back 9 times in the last minute",
            id="repaired-again-and-again",
        ),
        pytest.param(
            {"steering": SteeringState("nftables", problem="table vanished")},
            "rules",
            Level.TROUBLE,
            "The kernel isn't as planned: table vanished",
            id="drift",
        ),
        pytest.param(
            {"steering": SteeringState("none")},
            "rules",
            Level.OK,
            "None: clients dial the proxy's own listeners",
            id="without-rules",
        ),
        pytest.param(
            {"firewalls": (FirewallFacts("ip filter INPUT", "its policy is drop", "nft x"),)},
            "firewall",
            Level.TROUBLE,
            "Chain ip filter INPUT of another program may drop packets to Services: "
            "its policy is drop",
            id="firewall",
        ),
        pytest.param(
            {"source": make_troubled_view().source},
            "source",
            Level.TROUBLE,
            "cannot watch Services at https://10.0.0.1:6443: Connection refused",
            id="source",
        ),
        pytest.param(
            {"last_state": LastStateFacts("f", served_at=1_763_600_000.0 - 90)},
            "source",
            Level.TROUBLE,
            "Services haven't been read yet from https://10.0.0.1:6443: the last state is 1 min "
            "old",
            id="last-state",
        ),
        pytest.param(
            {"sync": make_troubled_view().sync},
            "rules",
            Level.TROUBLE,
            "The kernel isn't as planned: cannot steer 10.96.7.1:80/TCP: Operation not permitted",
            id="pending",
        ),
    ],
)
def test_the_node_is_part_of_the_path(changes, topic, level, text):
    (step,) = steps_of(explain(make_subject(**changes)), topic)
    assert (step.level, step.what) == (level, text)


TYPO = RejectedFacts(
    "/m/z.yaml:5: spec.ports[0].tragetPort: unknown field",
    "Service shop/cart",
    services=("shop/cart",),
)
WITH_TYPO = SourceFacts("manifests", "/m", is_synced=True, problems=(TYPO.line,), rejected=(TYPO,))


def test_a_mistake_in_another_service_is_a_further_line_without_a_level():
    explanation = explain(make_subject(source=WITH_TYPO))
    assert (explanation.level, explanation.sentence) == (
        Level.OK,
        "Clients are served by 2 endpoints",
    )
    rejected, current = steps_of(explanation, "source")
    assert (rejected.level, rejected.what) == (
        None,
        f"Rejected, of no concern here: {TYPO.line}",
    )
    assert current.level is Level.OK


def test_a_mistake_in_its_own_manifest_is_the_first_line_and_the_sentence():
    explanation = explain(make_subject(service="shop/cart", source=WITH_TYPO))
    first = explanation.parts[0].steps[0]
    assert (first.level, first.what) == (
        Level.TROUBLE,
        f"Service shop/cart is rejected: {TYPO.line}",
    )
    assert (explanation.level, explanation.sentence) == (Level.TROUBLE, first.what)


HELD_BY = "node port 30080/TCP is held by nginx"


def test_an_address_that_is_not_reached_is_trouble():
    lost = make_frontend("192.0.2.1:30080", "NodePort", "held by another program", is_reached=False)
    (step,) = steps_of(
        explain(make_subject(make_port(frontends=(lost,), problem=HELD_BY))), "address"
    )
    assert step.level is Level.TROUBLE
    assert step.what == (
        "192.0.2.1:30080/TCP, NodePort, is not served: node port 30080/TCP is held by nginx"
    )


def test_an_address_that_is_not_reached_is_not_the_only_cause():
    lost = make_frontend("10.96.7.1:80", "ClusterIP", "proxy port 20001", is_reached=False)
    named = as_read(CauseCode.PORT_NAME_MISSING, 'they have no port named "http"; they have "web"')
    dropped = {"frontends": (lost,), "endpoints": (), "problem": "a chain drops its packets"}
    explanation = explain(make_subject(make_port(cause=named, **dropped)))
    assert explanation.sentence == (
        "10.96.7.1:80/TCP, ClusterIP, is not served: a chain drops its packets; besides, they have "
        'no port named "http"; they have "web"'
    )
    (note,) = steps_of(explanation, "note")
    assert (note.level, note.what) == (Level.ATTENTION, say(named))


def test_a_service_that_is_ignored_has_the_reason():
    ignored = (make_ignored("shop/db", "", "it is headless"),)
    explanation = explain(make_subject(service="shop/db", ignored=ignored))
    assert explanation.sentence == "It is not served: it is headless"
    assert explanation.level is Level.ATTENTION


FAILING = SourceFacts("manifests", "m", is_synced=True, problems=("m/other.yaml:1: not YAML",))


def test_a_service_that_is_ignored_wins_over_all_problems_of_the_node():
    ignored = (make_ignored("shop/db", "", "it is headless"),)
    sync = make_troubled_view().sync
    subject = make_subject(service="shop/db", ignored=ignored, source=FAILING, sync=sync)
    explanation = explain(subject)
    assert explanation.sentence == "It is not served: it is headless"
    assert explanation.level is Level.TROUBLE


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
            {"notes": ("this field has no effect",)},
            {"steering": SteeringState("nftables", problem="table vanished")},
            "The kernel isn't as planned: table vanished; also: this field has no effect",
            id="its-clients-need-the-rules",
        ),
    ],
)
def test_problems_of_the_source_may_be_about_other_objects(changes, node, sentence):
    assert explain(make_subject(make_port(**changes), **node)).sentence == sentence


def test_a_port_whose_address_is_taken_is_trouble():
    ignored = (make_ignored("shop/web", "http", "held by shop/a", is_conflict=True),)
    explanation = explain(make_subject(ignored=ignored))
    assert explanation.sentence == "Port http is not served: held by shop/a"


def test_a_client_selects_its_family():
    assert explain(make_subject(), client="fd00::1").sentence == "shop/web has no IPv6 address"


def test_a_client_that_is_dropped_is_the_sentence():
    subject = make_subject(*make_two_sides(), service="shop/front")
    explanation = explain(subject, client="198.51.100.1")
    dropped = "External: Packets from 198.51.100.1 are dropped: Clients from"
    assert explanation.sentence.startswith(dropped)
    assert explain(subject).level is Level.OK


def test_what_was_found_out_about_pods_comes_first():
    step = PathStep(Level.TROUBLE, "pods", "no pod has these labels")
    explanation = explain(make_subject(), pods=[step])
    assert explanation.parts[0].steps == (step,)
    assert explanation.sentence == "no pod has these labels"


def test_clients_that_are_turned_away_are_a_note_of_a_service_that_is_served():
    denied = source_denied(("198.51.100.0/24",)).replace(count=2)
    explanation = explain(make_subject(make_port(turned_away=(denied,))))
    (note,) = steps_of(explanation, "note")
    assert (note.level, note.hint) == (Level.OK, remedy(denied))
    assert note.what == "clients outside 198.51.100.0/24 are dropped (2 times)"


def test_the_step_about_endpoints_counts_clients_that_a_policy_drops():
    inside, outside = make_two_sides()
    policy = none_local(1, 0, "node-b", "externalTrafficPolicy")
    outside = replace(outside, cause=policy)
    for turned_away, end in (((replace(policy, count=3),), "Local (3 times)"), ((), "Local")):
        dropping = replace(outside, turned_away=turned_away)
        explanation = explain(make_subject(inside, dropping, service="shop/front"))
        assert steps_of(explanation, "endpoints")[1].what.endswith(f" is {end}")


def test_saved_connections_and_policies_are_mentioned():
    subject = make_subject(*make_two_sides(), service="shop/front")
    explanation = explain(subject)
    inside, outside = steps_of(explanation, "endpoints")
    assert inside.what == "2 of 2 used"
    assert outside.what.startswith("Clients from outside are dropped here")
    assert (inside.level, outside.level) == (Level.OK, None)
    assert "; clients from outside are dropped: " in explanation.sentence


def test_connections_that_wait_are_a_step_and_the_sentence():
    waits, hold = Waits(3, 12.0), Handling(hold=Hold(60))
    port = make_port(endpoints=(), reason="it has no endpoints", handling=hold, waits=waits)
    explanation = explain(make_subject(port))
    assert (explanation.level, explanation.sentence) == (Level.ATTENTION, port.state.sentence)
    assert port.state.word.waits
    (step,) = steps_of(explain(make_subject(make_port(waits=waits))), "waiting")
    assert step.what == "Waiting for an endpoint: 3 connections, the longest for 12 s"


def test_a_service_that_would_hold_clients_is_explained():
    port = make_port(endpoints=(), reason="it has no endpoints", handling=Handling(hold=Hold(60)))
    (step,) = steps_of(explain(make_subject(port)), "endpoints")
    assert step.level is None
    assert step.what == "Clients would wait for an endpoint for 1 min: it has no endpoints"


def test_an_endpoint_on_standby_is_called_so():
    port = make_port(endpoints=(make_endpoint("10.244.1.7:8080"), make_standby("10.244.2.7:8080")))
    explanation = explain(make_subject(port))
    assert explanation.sentence == "Clients are served by 1 endpoint, 1 on standby"
    (endpoints,) = steps_of(explanation, "endpoints")
    assert endpoints.details == (
        (Level.OK, "10.244.1.7:8080: ready"),
        (Level.OK, "10.244.2.7:8080: ready, on standby (priority 1)"),
    )


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
    assert said == f"{sentence}Service shop/web is rejected: {UNLABELLED}"
    assert [*mistakes(subject)] == []


def test_a_health_check_that_is_not_served_has_what_follows_from_it():
    taken = "cannot serve the health check on 0.0.0.0:30201: in use by nginx (pid 7)"
    explanation = explain(
        make_subject(health_checks=[make_health_check("shop/web", 30201, 1, taken)])
    )
    assert explanation.sentence == f"Served by 2 endpoints; {taken}"
    hints = [step.hint for part in explanation.parts for step in part.steps if step.hint]
    assert hints[0].startswith("Load balancers may treat this node as one without endpoints")


def test_a_service_without_a_port_has_its_mistakes_as_steps():
    rejected = RejectedFacts(UNLABELLED, "Service shop/cart", services=("shop/cart",))
    (step,) = mistakes(made_of(rejected, service="shop/cart"))
    said = f"Service shop/cart is rejected: {UNLABELLED}"
    assert (step.level, step.what) == (Level.TROUBLE, said)
    assert explain(made_of(rejected, service="shop/cart")).sentence == said


@pytest.mark.parametrize(("is_conflict", "mark"), [(False, None), (True, Level.TROUBLE)])
def test_a_service_that_is_ignored_by_design_has_a_neutral_mark(is_conflict, mark):
    ignored = (make_ignored("shop/db", "", "it is headless", is_conflict=is_conflict),)
    explanation = explain(make_subject(service="shop/db", ignored=ignored))
    assert explanation.parts[0].steps[0].mark is mark
    assert explanation.sentence == "It is not served: it is headless"


WITHOUT_SLICE = replace(make_port(endpoints=()), cause=as_read(CauseCode.NO_SLICE, "no slice"))


def test_a_rejected_slice_that_names_no_service_is_the_first_line_of_the_one_it_is_named_after():
    subject = made_of(
        RejectedFacts(UNLABELLED, "EndpointSlice shop/web-1", "EndpointSlice", "shop", "web-1"),
        port=WITHOUT_SLICE,
    )
    said = f"EndpointSlice shop/web-1, by its name a slice of it, is rejected: {UNLABELLED}"
    assert explain(subject).sentence == f"Clients are refused: {said}"
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
    ("endpoints", "on_node", "changes", "would"),
    [
        pytest.param(
            (),
            (REFUSED,),
            {"reason": "its only endpoint is not ready"},
            "refused: its only endpoint is not ready",
            id="refused",
        ),
        pytest.param((OTHER,), (OTHER, REFUSED), {}, "served by 1 endpoint", id="some"),
    ],
)
def test_what_a_node_would_refuse_is_a_note_and_ends_the_sentence(
    endpoints, on_node, changes, would
):
    subject = planned(make_endpoint(LOOPBACK), *endpoints, on_node=on_node, **changes)
    (note,) = node_notes(subject.ports[0], subject)
    would = f"on a node (--steering other than none) clients would be {would}"
    assert (note.level, note.what) == (None, would)
    assert note.details == ((None, f"{LOOPBACK}: {REFUSED.state}"),)
    assert explain(subject).sentence.endswith(f"; {would}")


def test_a_service_that_is_the_same_on_a_node_has_no_note():
    subject = planned(OTHER, on_node=(OTHER,))
    assert [*node_notes(subject.ports[0], subject)] == []
    assert explain(subject).sentence == "Clients would be served by 1 endpoint"


def test_only_the_family_of_the_client_is_said():
    subject = planned(make_endpoint(LOOPBACK), on_node=(REFUSED,), reason="no")
    assert "on a node" not in explain(subject, client="fd00::1").sentence


EVERYONE = make_subject().ports[0]
RANGES = make_subject(make_port(admits=("192.0.2.0/24",))).ports[0]
INSIDE, OUTSIDE = make_subject(*make_two_sides(), service="shop/front").ports


@pytest.mark.parametrize(
    ("port", "client", "level", "said"),
    [
        pytest.param(
            EVERYONE, "10.0.0.1", Level.OK, "10.0.0.1 is admitted: every client is", id="all"
        ),
        pytest.param(
            RANGES, "192.0.2.9", Level.OK, "192.0.2.9 is admitted: its network is", id="in-range"
        ),
        pytest.param(
            RANGES,
            "10.0.0.1",
            Level.ATTENTION,
            "Packets from 10.0.0.1 are dropped: only 192.0.2.0/24 is admitted",
            id="out-of-range",
        ),
        pytest.param(
            OUTSIDE,
            "10.244.0.9",
            Level.OK,
            "10.244.0.9 is admitted: its network is; from outside: only this node's endpoints",
            id="inside",
        ),
    ],
)
def test_a_client_is_admitted_by_its_network(port, client, level, said):
    assert say_client(port, client) == (level, said)


def test_a_client_that_a_policy_drops_gets_the_reason():
    level, said = say_client(OUTSIDE, "198.51.100.1")
    assert level is Level.ATTENTION
    assert said.startswith(
        "Packets from 198.51.100.1 are dropped: Clients from outside are dropped"
    )
