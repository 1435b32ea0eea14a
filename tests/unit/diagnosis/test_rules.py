"""Tests of which rule decides the state of a Service port, and of the clauses."""

import pytest

from userspace_proxy.causes.cause import CauseCode, When
from userspace_proxy.causes.endpoints import cuts_off, dropped_here, refuses, resets, sends_nothing
from userspace_proxy.diagnosis import clauses as said
from userspace_proxy.diagnosis import rules
from userspace_proxy.diagnosis.clauses import stated, stated_in_short
from userspace_proxy.diagnosis.rules import RULES, Case, decide, other_cause
from userspace_proxy.facts import FrontendFacts, Level, PortState
from userspace_proxy.model import FrontendKind

from ..status.views import make_endpoint, make_frontend, make_port
from . import cases
from .cases import (
    CLUSTER_IP,
    DENIED,
    EJECTED,
    HELD,
    HELD_BY,
    HOLD,
    IN_KERNEL,
    MUTE_PORT,
    NO_NAME,
    OTHER,
    PAST,
    REFUSED,
    REFUSES,
    A,
    closes,
)
from .samples import POD, READY, failing, told_of


def check(expected):
    """Check that a Service port has the case's deciding rule and clauses; return the port."""
    port = make_port(**{"endpoints": (READY,), **expected.changes})
    assert told_of(port) == (expected.rule, expected.clauses)
    _, verdict = decide(port)
    assert (verdict.level, verdict.state) == (expected.level, expected.state)
    assert (port.state.level, port.state.word) == (expected.level, expected.state)
    assert RULES[-1](Case(port)) is not None, "the last rule doesn't decide"
    return port


@pytest.mark.parametrize("expected", [*cases.CASES, *cases.BESIDE_ONE, *cases.LEFT, *cases.FLOWS])
def test_port_facts_yield_the_clauses_and_state_of_the_first_matching_rule(expected):
    check(expected)


@pytest.mark.parametrize("expected", cases.CLOSES)
def test_a_closing_endpoint_is_described_by_its_behaviour(expected):
    port = check(expected)
    assert port.state.code is CauseCode.ENDPOINT_RESETS
    is_tried = not any(endpoint.is_past for endpoint in port.endpoints)
    assert port.state.is_problem == is_tried, "the alert doesn't follow the last dials"


@pytest.mark.parametrize("expected", cases.DENIALS)
def test_a_port_with_a_denying_endpoint_needs_attention(expected):
    denying = check(expected).endpoints[-1]
    assert (denying.level, denying.serves) == (Level.ATTENTION, True)


@pytest.mark.parametrize("expected", cases.STALLED)
def test_many_stalled_open_connections_are_reported_with_a_remedy(expected):
    assert check(expected).state.hint == expected.clauses[0].hint


@pytest.mark.parametrize("expected", cases.MISTAKES)
def test_clients_rejected_for_a_mistake_need_attention(expected):
    state = check(expected).state
    assert (state.is_problem, state.causes) == (True, expected.changes["client_mistakes"])
    # A failing endpoint takes precedence over rejected clients.
    port = make_port(**{**expected.changes, "endpoints": (EJECTED,)})
    assert told_of(port)[0] is rules.all_fail
    assert port.state.causes[1:] == expected.changes["client_mistakes"]


@pytest.mark.parametrize("expected", cases.SILENT_PORTS)
def test_unanswered_connections_have_a_neutral_mark_and_a_remedy(expected):
    port, (clause,) = check(expected), expected.clauses
    assert (port.mark, port.state.hint) == (None, clause.hint)
    assert port.state.hint
    kernel = make_port(**expected.changes, endpoints=(READY,), path=IN_KERNEL)
    assert told_of(kernel)[1] == [said.led_by_kernel(1, 0, "shop/web", port.protocol, "")]


@pytest.mark.parametrize("expected", cases.NEW_PORTS)
def test_few_unanswered_connections_have_no_remedy(expected):
    port = check(expected)
    assert (port.mark, port.state.hint) == (None, "")


def test_each_rule_decides_at_least_one_case():
    groups = (cases.CASES, cases.DENIALS, cases.MISTAKES, cases.LEFT, cases.FLOWS)
    assert {one.values[0].rule for group in groups for one in group} == set(RULES)
    order = [RULES.index(one.values[0].rule) for one in cases.CASES]
    assert order == sorted(order), "cases aren't in the order of the rules"


@pytest.mark.parametrize(
    ("missed", "place"),
    [
        pytest.param([HELD], "node port 30080", id="node-port"),
        pytest.param(["192.0.2.10:80"], "192.0.2.10:80", id="one-address"),
        pytest.param(["192.0.2.10:80", "192.0.2.11:80"], "192.0.2.10:80 and 1 more",
                     id="two-addresses"),
    ],
)  # fmt: skip
def test_addresses_intercepted_by_a_chain_are_named(missed, place):
    made = [
        at if at is HELD else make_frontend(at, "LoadBalancer", "not steered", is_reached=False)
        for at in missed
    ]
    port = make_port(frontends=(CLUSTER_IP, *made), problem="nftables chain evil drops packets")
    port.is_unsteered = True
    (clause,) = told_of(port)[1]
    assert clause.params["place"] == place
    # The text of a listener's problem contains the address.
    port.is_unsteered = False
    (clause,) = told_of(port)[1]
    assert not clause.params["place"]


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"problem": ""}, id="all-addresses-are-reached"),
        pytest.param({"cause": None}, id="an-endpoint-is-usable"),
        pytest.param({"handling": HOLD}, id="clients-would-wait"),
        pytest.param({"is_dropping": True}, id="dropped-on-this-node-by-design"),
    ],
)
def test_a_further_cause_is_stated_only_with_a_problem_and_refused_clients(changes):
    assert other_cause(make_port(**{"problem": HELD_BY, "cause": NO_NAME, **changes})) is None


def test_dropping_all_clients_is_reported_as_a_further_cause():
    dropping = {"is_dropping": True, "admits": (), "cause": NO_NAME}
    assert other_cause(make_port(problem=HELD_BY, **dropping)) is NO_NAME


@pytest.mark.parametrize(
    ("answered", "clause"),
    [
        ([0.0], said.others_untried(1)),
        ([0.0, 0.0], said.others_untried(2)),
        ([0.0, 1.0], said.others_serve(2)),
    ],
)
def test_other_endpoints_count_as_serving_only_after_an_answer(answered, clause):
    others = [make_endpoint(f"192.0.2.{n}:80", answered_at=at) for n, at in enumerate(answered, 2)]
    port = make_port(endpoints=(*others, failing(refuses(POD))))
    assert told_of(port) == (rules.some_fail, [stated(refuses(POD)), clause])


@pytest.mark.parametrize(
    ("figures", "state"),
    [
        ({"sent_bytes": 0}, PortState.UNANSWERED),
        ({"sent_bytes": 0, "is_past": True}, PortState.FAILED_BEFORE),
        ({"sent_bytes": 1}, PortState.PARTLY_ANSWERING),
    ],
)
def test_clients_are_partly_answered_only_after_an_answer(figures, state):
    failed = failing(refuses(POD), is_past=figures.pop("is_past", False))
    other = make_endpoint("192.0.2.2:80", answered_at=0.0)
    assert make_port(endpoints=(other, failed), **figures).state.word is state


def test_other_endpoints_that_answered_earlier_are_in_the_past_tense():
    port = make_port(endpoints=(OTHER, PAST), is_quiet=True)
    assert told_of(port) == (rules.some_fail, [stated(REFUSED), said.others_answered(1)])


@pytest.mark.parametrize("field", ["answered_at", "sent_at"])
@pytest.mark.parametrize(
    ("at", "clause"), [(99.0, said.others_answered(1)), (101.0, said.others_serve(1))]
)
def test_an_answer_before_the_failures_does_not_show_that_other_endpoints_serve(field, at, clause):
    cause = refuses(POD).replace(first_at=100.0, last_at=110.0)
    other = make_endpoint("192.0.2.2:80", **{"answered_at": 1.0, field: at})
    port = make_port(endpoints=(other, failing(cause)))
    assert told_of(port) == (rules.some_fail, [stated(cause), clause])


def test_a_past_denial_gets_a_note_if_another_endpoint_serves():
    denied = failing(DENIED, is_past=True)
    served = make_port(endpoints=(make_endpoint("192.0.2.2:80"), denied), connections=90)
    assert told_of(served) == (rules.served, [said.served_by(2, 0), stated(DENIED)])
    assert (served.state.level, served.state.causes) == (Level.OK, (DENIED,))
    assert told_of(make_port(endpoints=(denied,)))[0] is rules.failed_before
    refused = failing(refuses("192.0.2.3:80").replace(when=When.PAST), is_past=True)
    others = make_port(endpoints=(make_endpoint("192.0.2.2:80"), denied, refused))
    assert told_of(others)[0] is rules.some_fail


@pytest.mark.parametrize(("at", "rule"), [(399.0, rules.some_fail), (400.0, rules.served)])
def test_a_failure_long_before_the_answers_of_others_gets_a_note(at, rule):
    cause = refuses(POD).replace(when=When.PAST, first_at=90.0, last_at=100.0)
    other = make_endpoint("192.0.2.2:80", sent_at=at)
    past = failing(cause, is_past=True)
    port = make_port(endpoints=(other, past))
    assert (told_of(port)[0], port.state.causes) == (rule, (cause,))
    assert port.mark_of(port.endpoints[1]) is (None if rule is rules.served else Level.ATTENTION)


def test_the_most_frequent_failure_is_named_first():
    often = failing(sends_nothing(POD).replace(count=89))
    none = [said.fail(), said.none_answers(2, is_past=False)]
    why = [stated(often.cause), stated_in_short(REFUSES)]
    assert told_of(make_port(endpoints=(EJECTED, often))) == (rules.all_fail, [*none, *why])
    others = (failing(row(POD)) for row in (cuts_off, resets))
    port = make_port(endpoints=(EJECTED, often, EJECTED, *others))
    assert told_of(port)[1][2:] == [*why, said.further_causes(2)]


def test_a_rule_on_this_node_is_named_in_full_even_as_the_second_cause():
    dropped = dropped_here(A, "nftables chain ip f out of another program drops it")
    port = make_port(endpoints=(closes(7), failing(dropped)))
    assert told_of(port)[1][2:] == [stated(closes(7).cause), stated_in_short(dropped)]
    assert told_of(port)[1][-1].text == stated(dropped).text


@pytest.mark.parametrize(
    ("ips", "places"),
    [
        (["127.0.0.1", "192.0.2.1"], ["192.0.2.1:30080"]),
        (["192.0.2.1", "198.51.100.1"], ["192.0.2.1:30080", "198.51.100.1:30080"]),
        (["192.0.2.1", "198.51.100.1", "203.0.113.1"], []),
        (["127.0.0.1"], []),
    ],
    ids=["one", "two", "three", "loopback"],
)
def test_a_service_without_clients_lists_its_node_port_addresses_unless_more_than_two(ips, places):
    ports = [FrontendFacts(f"{ip}:30080", FrontendKind.NODE_PORT) for ip in ips]
    port = make_port(endpoints=(READY,), frontends=(CLUSTER_IP, *ports), **MUTE_PORT)
    end = [said.node_port_at(tuple(places))] if places else []
    assert told_of(port)[1] == [said.ready(1, 0), said.no_client_yet(), *end]


def test_at_most_three_reasons_of_unused_endpoints_are_named():
    reasons = ("not ready", "not on this node", "refused: x", "refused: y")
    unused = [make_endpoint(f"192.0.2.{i}:80", why, False) for i, why in enumerate(reasons, 2)]
    end = said.others_unused(4, tuple((1, why) for why in reasons[:3]), has_more=True)
    assert told_of(make_port(endpoints=(failing(refuses(POD)), *unused)))[1][-1] == end
