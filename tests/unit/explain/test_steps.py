"""Tests of the steps of an explanation: their levels, and facts that aren't repeated."""

import errno
import os
from dataclasses import replace as replace_subject

import pytest

from tests.unit.status.views import (
    NOW,
    make_address,
    make_endpoint,
    make_port,
    make_two_sides,
    make_view,
    replace,
)
from userspace_proxy.causes.cause import CauseCode
from userspace_proxy.causes.endpoints import (
    dial_failed,
    dropped_here,
    owes_answers,
    refuses,
)
from userspace_proxy.causes.say import command, say
from userspace_proxy.diagnosis.incidents import Incidents
from userspace_proxy.diagnosis.paths import PathView
from userspace_proxy.explain import explain
from userspace_proxy.explain.dial import DialResult
from userspace_proxy.explain.next_command import Invocation
from userspace_proxy.explain.steps import before_it_failed, node_notes, say_client
from userspace_proxy.facts import (
    LAST_MINUTE_S,
    FirewallFacts,
    Level,
    PodRuleFacts,
    RejectedFacts,
    SteeringState,
)
from userspace_proxy.facts.last_minute import LastMinuteFacts
from userspace_proxy.model import DataPath, Failure, IPFamily, Protocol, Side, Taken

from .subjects import make_dead_endpoint, make_subject
from .words import NOT_READY, is_on_the_page, on_node


def steps_of(explanation, topic):
    return [step for part in explanation.parts for step in part.steps if step.topic == topic]


POD, V6 = "10.244.1.7:80", IPFamily.IPV6
AT = make_address(POD)
REFUSES = dial_failed(AT, Failure.REFUSED, "")


def failing(cause, **figures):
    return replace(make_endpoint(POD), **{"connections": 20, **figures}, cause=cause)


@pytest.mark.parametrize(
    ("endpoint", "protocol", "said"),
    [
        pytest.param(failing(REFUSES, sent_bytes=0), "UDP", []),
        pytest.param(failing(REFUSES, sent_at=1.0, sent_bytes=0), "UDP", ["answered"]),
        pytest.param(failing(None, sent_bytes=1), "TCP", []),
    ],
)
def test_earlier_answers_are_stated_only_if_a_failing_endpoint_sent_them(endpoint, protocol, said):
    words = before_it_failed(endpoint, protocol)
    assert [one for one in ("answered", "accepted 20") if one in words] == said
    assert bool(words) is bool(said)


@pytest.mark.parametrize(
    ("is_unusual", "level"),
    [(True, Level.ATTENTION), (False, None)],
    ids=["hangs", "may send last"],
)
def test_an_endpoint_that_failed_clients_in_the_last_minute_has_no_ok_mark(is_unusual, level):
    at = "10.244.1.118:8080"
    minute = LastMinuteFacts(
        connections=20, unanswered_requests=9, cause=owes_answers(at), is_unusual=is_unusual
    )
    explanation = explain(make_subject(make_port(last_minute=minute)))
    (step,) = steps_of(explanation, "endpoints")
    levels = {says.partition(" ")[0]: level for level, says in step.details}
    assert levels == {at: level, "10.244.2.118:8080": Level.OK}


def test_invalid_objects_of_other_services_are_one_step_with_their_number():
    items = [RejectedFacts(f"m/a.yaml:{n}: wrong", "") for n in range(3)]
    subject = replace_subject(make_subject(make_port()), others_rejected=items)
    (step,) = [one for one in steps_of(explain(subject), "source") if "m/a.yaml" in one.what]
    assert step.what.endswith(": m/a.yaml:0: wrong (and 2 more)")


def test_kernel_connection_counts_are_shown_only_for_a_running_proxy():
    port = replace(make_port(), path=PathView(DataPath.KERNEL))
    for is_live, count in ((True, 1), (False, 0)):
        (path,) = steps_of(explain(make_subject(port, is_live=is_live)), "path")
        assert len(path.details) == count


def test_a_service_planned_identically_on_another_node_has_no_note():
    subject = on_node(make_endpoint(POD), there=make_port(endpoints=(make_endpoint(POD),)))
    others = [make_port(endpoints=(), **of) for of in ({"family": V6}, {"side": Side.EXTERNAL})]
    subject = replace_subject(subject, on_node=[*others, *subject.on_node])
    assert [*node_notes(subject.ports[0], subject)] == []


def test_the_side_for_outside_clients_admits_clients_inside_the_cluster():
    _, outside = make_subject(*make_two_sides(), service="shop/front").ports
    found, said = say_client(outside, "10.244.0.9")
    assert (found, said.endswith(outside.policy)) == (Level.OK, True)


@pytest.mark.parametrize("title", ["steps", "dials"])
def test_the_recorded_page_contains_each_section_of_explanations(title):
    assert is_on_the_page(title)


def test_a_suggested_command_queries_the_same_cluster():
    port = replace(make_port(endpoints=()), cause=NOT_READY)
    api = Invocation(source=("--kubeconfig=my dir/k", "--master=https://a:1"))
    (step,) = steps_of(explain(make_subject(port), invocation=api), "endpoints")
    assert step.hint == api.kubectl(command(NOT_READY))
    assert step.hint.endswith(" '--kubeconfig=my dir/k' --server=https://a:1")


def answered(seconds_ago, **changes):
    endpoint = make_endpoint("10.244.1.7:80", sent_at=NOW - seconds_ago)
    return make_port(endpoints=(endpoint,), **changes)


def taken():
    """Return a Service port whose clients another program's chain drops."""
    port = make_port(problem="nftables chain inet ours pre takes all packets")
    port.taken_by = "inet ours pre"
    return port


def dropping():
    """Return a Service port with an endpoint to which a chain drops packets."""
    cause = dropped_here("10.244.1.7:80", "a chain drops it")
    return make_port(endpoints=(make_endpoint("10.244.1.7:80", cause=cause),))


@pytest.mark.parametrize(
    ("seconds_ago", "family", "client", "level"),
    [
        pytest.param(LAST_MINUTE_S - 1, "IPv4", "", None, id="lately"),
        pytest.param(LAST_MINUTE_S, "IPv4", "", Level.TROUBLE, id="a-while-ago"),
        pytest.param(NOW, "IPv4", "", Level.TROUBLE, id="never"),
        pytest.param(1, "", "", None, id="both-families"),
        pytest.param(1, "IPv6", "", Level.OK, id="other-family"),
        pytest.param(1, "IPv4", "10.0.0.9", Level.TROUBLE, id="client"),
    ],
)
def test_a_chain_is_not_a_problem_for_clients_that_passed_it(seconds_ago, family, client, level):
    chain = FirewallFacts("x", "its policy is drop", family=family)
    subject = make_subject(answered(seconds_ago), firewalls=(chain,))
    (step,) = steps_of(explain(subject, client=client), "firewall")
    assert step.level is level


@pytest.mark.parametrize(
    ("seconds_ago", "problem", "level"),
    [(59.0, "", Level.OK), (61.0, "", None), (59.0, "some clients fail", None)],
)
def test_only_recent_answers_prove_that_no_chain_drops_packets(seconds_ago, problem, level):
    (step,) = steps_of(explain(make_subject(answered(seconds_ago, problem=problem))), "firewall")
    assert step.level is level


@pytest.mark.parametrize(
    ("steering", "make", "shown"),
    [
        pytest.param("nftables", make_port, 1, id="none-known"),
        pytest.param("none", make_port, 0, id="no-steering"),
        pytest.param("nftables", taken, 0, id="blamed-by-the-address"),
        pytest.param("nftables", dropping, 0, id="blamed-by-an-endpoint"),
    ],
)
def test_no_firewall_step_exists_if_a_chain_is_blamed_or_steering_is_none(steering, make, shown):
    subject = make_subject(make(), steering=SteeringState(steering))
    steps = steps_of(explain(subject), "firewall")
    assert [step.level for step in steps] == [None] * shown


def test_a_rule_that_names_an_endpoint_of_the_service_has_a_neutral_step():
    rules = [PodRuleFacts(ip, f"x may drop {ip}", "look") for ip in ("10.244.1.7", "10.244.1.9")]
    (step,) = steps_of(explain(make_subject(answered(1), pod_rules=rules)), "firewall")
    assert (step.level, step.what, step.hint) == (None, "x may drop 10.244.1.7", "look")


def test_a_chain_that_may_drop_packets_has_a_neutral_step_and_is_in_the_sentence():
    doubt = Taken("x may take packets", "look", "ip x pre", is_certain=False)
    ports = answered(1, perhaps_taken=doubt), make_port("cart", perhaps_taken=doubt)
    explanation = explain(make_subject(*ports))
    (step,) = steps_of(explanation, "firewall")
    assert (step.level, step.what, step.hint) == (None, doubt.what, doubt.hint)
    assert steps_of(explanation, "note") == steps_of(explanation, "cause") == []
    assert explanation.sentence.endswith(f"; but {doubt.what}")
    assert explanation.next == "nft list chain ip x pre"
    known = [FirewallFacts("ip x pre", "its policy is drop", "insert a rule")]
    again = explain(make_subject(answered(1, perhaps_taken=doubt), firewalls=known))
    assert [step.hint for step in steps_of(again, "firewall")] == ["insert a rule"]


def test_a_chain_that_may_drop_packets_has_a_step_beside_a_failing_endpoint():
    doubt = Taken("x may take packets", "look", "ip x pre", is_certain=False)
    dead = make_port("web", endpoints=(make_dead_endpoint("10.244.1.7:80"),), perhaps_taken=doubt)
    explanation = explain(make_subject(dead))
    assert [step.what for step in steps_of(explanation, "note")] == [doubt.what]
    assert steps_of(explanation, "firewall") == [], "no chain is known to drop packets"
    assert {step.level for step in steps_of(explanation, "address")} == {None}


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


def dialled(*endpoints, **changes):
    """Explain a Service whose first endpoint refuses a dial; return also the step of the dial."""
    subject = make_subject(make_port(endpoints=endpoints, **changes))
    explanation = explain(subject, dials=dials(**{POD: False}))
    (step,) = steps_of(explanation, "dial")
    return explanation, step


def test_a_failed_dial_determines_the_verdict_without_recent_clients():
    explanation, step = dialled(make_endpoint(POD, answered_at=NOW - 600))
    assert (explanation.level, step.level) == (Level.ATTENTION, Level.ATTENTION)
    assert say(refuses(POD)) in explanation.sentence


def test_the_worst_of_several_failed_dials_determines_the_verdict():
    answered, never = "10.244.1.6:80", POD
    endpoints = make_endpoint(answered, answered_at=NOW - 600), make_endpoint(never)
    results = dials(**{answered: False, never: False})
    (step,) = steps_of(explain(make_subject(make_port(endpoints=endpoints)), dials=results), "dial")
    assert step.level is Level.TROUBLE
    assert step.what == f"2 of 2 used endpoints failed: {say(refuses(never))}"


def test_only_allowed_endpoints_of_a_tcp_port_are_counted_as_not_dialled():
    refused = make_endpoint("127.0.0.1:80", is_usable=False)
    endpoints = make_endpoint(POD), replace(refused, code=CauseCode.ENDPOINT_NOT_ALLOWED)
    for protocol, levels in ((Protocol.TCP, [None, Level.OK]), (Protocol.UDP, [None])):
        subject = make_subject(make_port(endpoints=endpoints, protocol=protocol))
        steps = steps_of(explain(subject, dials=dials(**{POD: True})), "dial")
        assert [step.level for step in steps] == levels


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, id="clients-are-served"),
        pytest.param({"connections": 0, "admits": ("192.0.2.0/24",)}, id="not-all-are-admitted"),
    ],
)
def test_a_failed_local_dial_of_an_address_that_serves_or_restricts_clients_is_no_problem(changes):
    subject = make_subject(make_port(**changes))
    explanation = explain(subject, dials=dials(**{"10.96.7.118:80": False}))
    assert explanation.level is Level.OK
    assert steps_of(explanation, "dial")[0].level is None


def test_the_reason_why_clients_are_refused_precedes_a_refused_dial():
    port = make_port(endpoints=(), reason="it has no endpoints", connections=0)
    explanation = explain(make_subject(port), dials=dials(**{"10.96.7.118:80": False}))
    assert explanation.sentence == port.state.sentence


@pytest.mark.parametrize(("address", "shown"), [("10.96.0.1", 1), ("fd00:96::1", 0)])
def test_a_missing_route_is_a_step_for_services_of_its_family(address, shown):
    subject = make_subject(make_port())
    subject.node.unrouted = {address: "Network is unreachable"}
    steps = steps_of(explain(subject), "routes")
    assert [step.level for step in steps] == [Level.ATTENTION] * shown


@pytest.mark.parametrize(("names", "shown"), [(("a", "web"), 1), (("web",), 0), (("a", "b"), 0)])
def test_a_cause_of_several_services_is_a_step_that_names_them(names, shown):
    subject = make_subject(make_port("web"))
    dead = [make_port(name, endpoints=(make_dead_endpoint("10.244.9.9:8080"),)) for name in names]
    subject.node.incidents = Incidents(make_view(*dead)).all()
    steps = steps_of(explain(subject), "cause")
    assert [step.level for step in steps if "shop/a, shop/web" in step.what] == [None] * shown
