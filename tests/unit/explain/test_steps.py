import pytest

from tests.unit.causes.samples import a_note
from tests.unit.status.views import (
    NOW,
    make_address,
    make_endpoint,
    make_frontend,
    make_ignored,
    make_port,
    make_standby,
    make_troubled_view,
    make_two_sides,
    replace,
)
from userspace_proxy.causes.cause import as_read
from userspace_proxy.causes.endpoints import denies, fault_on_purpose, resets
from userspace_proxy.causes.say import remedy, say
from userspace_proxy.causes.services import external_ip_off, source_denied
from userspace_proxy.causes.slices import none_local
from userspace_proxy.explain import PathStep, explain
from userspace_proxy.facts import (
    FirewallFacts,
    LastStateFacts,
    Level,
    RejectedFacts,
    SourceFacts,
    SteeringState,
    Waits,
)
from userspace_proxy.model import CauseCode, Handling, Hold, Protocol
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
    explanation = explain(make_subject(make_port(endpoints=(dead,))))
    assert explanation.level is Level.TROUBLE
    assert explanation.sentence == (
        "Clients fail: 10.244.1.8:80 refuses connections: nothing listens on port 80 there, or a "
        "firewall rejects them"
    )
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
    assert alone.sentence.startswith("Clients fail: ")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        pytest.param({"endpoints": (), "reason": "none is ready"}, "Clients are refused", id="all"),
        pytest.param({"endpoints": (DENYING,)}, "Some clients get no answer", id="some"),
    ],
)
def test_clients_that_fail_win_over_a_note_at_another_port_of_equal_level(changes, sentence):
    served = make_port(notes=("its mode isn't followed",))
    failing = replace(make_port(**changes), family="IPv6")
    explanation = explain(make_subject(served, failing))
    assert explanation.sentence == (
        f"IPv6: {failing.state.sentence}; also: its mode isn't followed"
    )
    assert failing.state.sentence.startswith(sentence)


def test_an_endpoint_has_its_cause_how_often_and_when_and_what_it_served():
    dead = make_dead_endpoint("10.244.1.8:80", connections=20, sent_bytes=9, node="node-b")
    subject = make_subject(make_port(endpoints=(make_endpoint("10.244.1.7:80"), dead)))
    (step,) = steps_of(explain(subject), "endpoints")
    assert step.level is Level.ATTENTION
    assert step.details == (
        (
            Level.TROUBLE,
            "10.244.1.8:80 on node-b: refuses connections: nothing listens on port 80 there, or a "
            "firewall rejects them (2 times, last 3 s ago); it answered clients, and accepted 20 "
            "connections before",
        ),
        (Level.OK, "10.244.1.7:80: ready"),
    )


def test_connections_that_are_reset_or_suffer_a_fault_on_purpose_are_not_called_served():
    at, ended = make_address("10.244.1.8:80"), make_endpoint("10.244.1.8:80", connections=315)
    endpoint = replace(ended, cause=replace(resets(at), count=3))
    faulty = replace(ended, cause=fault_on_purpose(at, ["silent"]))
    (step,) = steps_of(explain(make_subject(make_port(endpoints=(endpoint, faulty)))), "endpoints")
    assert step.details[0][1].endswith("(3 times)")
    assert step.details[1] == (Level.ATTENTION, "10.244.1.8:80: has a fault on purpose: silent")


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
            {"steering": SteeringState("nftables", repairs=2, repaired_lately=2)},
            "rules",
            Level.OK,
            "nftables: the kernel is as planned, compared every second, 2 repairs so far",
            id="repaired",
        ),
        pytest.param(
            {"steering": SteeringState("nftables", repairs=9, repaired_lately=9)},
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
    held = "Holding 3 connections, the longest for 12 s: it has no endpoints"
    assert (explanation.level, explanation.sentence) == (Level.ATTENTION, held)
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
