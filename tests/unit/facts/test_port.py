import pickle

import pytest

from userspace_proxy.causes.cause import CauseCode, When
from userspace_proxy.causes.endpoints import fault_on_purpose, refuses, resets
from userspace_proxy.causes.slices import none_ready
from userspace_proxy.facts import (
    EndpointFacts,
    FrontendFacts,
    Level,
    PortFacts,
    PortState,
    StateFacts,
    worst,
)
from userspace_proxy.facts.last_minute import LastMinuteFacts
from userspace_proxy.facts.port import ClauseFacts
from userspace_proxy.model import DataPath

CAUSE = none_ready(2, 0, ())


def test_a_title_distinguishes_ports_with_equal_numbers():
    assert PortFacts("shop", "dns", "udp", shared_number="53/UDP").title == "shop/dns:udp 53/UDP"
    assert PortFacts("shop", "web", "http").title == "shop/web:http"


def test_a_node_port_is_formatted_as_a_port_of_any_node():
    assert (
        FrontendFacts("192.0.2.1:30080", "NodePort").of_any_node == "any node's address, port 30080"
    )
    assert FrontendFacts("[fd00::1]:80", "ClusterIP").of_any_node == "[fd00::1]:80"


def test_a_port_matches_its_service_its_name_and_its_number():
    port = PortFacts("shop", "web", "http", frontends=(FrontendFacts("[fd00::1]:80"),))
    assert port.names == ("shop/web", "shop/web:http", "shop/web:80")
    assert PortFacts("shop", "web").names == ("shop/web", "shop/web")


@pytest.mark.parametrize(
    ("name", "has"),
    [
        ("shop/sip:10000", True),
        ("shop/sip:20000", True),
        ("shop/sip:9999", False),
        ("shop/sip:20001", False),
        ("shop/sip:rtp", False),
        ("shop/web:10000", False),
        ("shop/sip", False),
    ],
)
def test_a_port_matches_the_numbers_within_its_range(name, has):
    frontends = FrontendFacts("[fd00::1]:1–99"), FrontendFacts("[fd00::1]:10000–20000")
    port = PortFacts("shop", "sip", "rtp", frontends=frontends)
    assert port.has_number(name) is has
    single = PortFacts("shop", "sip", "rtp", frontends=(FrontendFacts("[fd00::1]:10000"),))
    assert not single.has_number(name)


@pytest.mark.parametrize(
    ("code", "is_left_out"),
    [
        pytest.param(CauseCode.NOT_LOCAL, True, id="elsewhere"),
        pytest.param(CauseCode.NOT_FOR_THIS_NODE, True, id="by-hints"),
        pytest.param(None, False, id="used"),
        pytest.param(CauseCode.NOT_READY, False, id="not-ready"),
        pytest.param(CauseCode.ENDPOINT_NOT_ALLOWED, False, id="refused"),
    ],
)
def test_an_endpoint_counts_as_omitted_only_if_it_could_serve(code, is_left_out):
    assert EndpointFacts(code=code).is_left_out is is_left_out


def test_only_an_endpoint_that_is_not_allowed_counts_as_rejected():
    assert EndpointFacts(code=CauseCode.ENDPOINT_NOT_ALLOWED).is_refused
    assert not EndpointFacts(code=CauseCode.NOT_READY).is_refused


@pytest.mark.parametrize(
    ("state", "is_problem"),
    [
        (StateFacts(Level.OK, PortState.HOLDING), False),
        (StateFacts(Level.ATTENTION, PortState.REFUSED), True),
        (StateFacts(Level.ATTENTION, PortState.PARTLY_ANSWERING), False),
    ],
)
def test_a_state_counts_as_a_problem_only_if_clients_are_not_served(state, is_problem):
    assert state.is_problem is is_problem


def test_clients_wait_if_the_port_has_hold_and_no_usable_endpoint_unless_dropped():
    assert PortFacts(cause=CAUSE, hold_s=3.0).is_holding
    assert not PortFacts(cause=CAUSE).is_holding
    assert not PortFacts(hold_s=3.0).is_holding
    assert not PortFacts(cause=CAUSE, hold_s=3.0, is_dropping=True).is_holding


def test_usable_counts_the_usable_endpoints_of_a_port():
    assert PortFacts(endpoints=[EndpointFacts(is_usable=True), EndpointFacts()]).usable == 1


AT = "10.0.0.1:80"
RESETS, REFUSES = resets(AT), refuses(AT)
LATELY = REFUSES.replace(when=When.LAST_MINUTE)
ON_PURPOSE = fault_on_purpose("10.0.0.1:80", ("a delay of 1 s",))


def test_a_sentence_states_the_known_causes_of_its_clauses():
    clauses = ClauseFacts("clients fail", (1,)), ClauseFacts("of 2"), ClauseFacts("more", (0, 7))
    state = StateFacts(causes=(RESETS, ON_PURPOSE, CAUSE), clauses=clauses)
    assert state.stated == [ON_PURPOSE, RESETS]


@pytest.mark.parametrize(
    ("facts", "serves", "level"),
    [
        pytest.param({"state": "ready"}, True, Level.OK, id="ready"),
        pytest.param({"state": "not ready, but published"}, True, Level.OK, id="published"),
        pytest.param({"state": "terminating"}, True, Level.ATTENTION, id="soon-gone"),
        pytest.param({"state": "ready", "ejected_for_s": 0.0}, False, Level.TROUBLE, id="ejected"),
        pytest.param({"state": "ready", "cause": RESETS}, False, Level.TROUBLE, id="resets"),
        pytest.param({"state": "ready", "cause": ON_PURPOSE}, True, Level.ATTENTION, id="fault"),
        pytest.param({"state": "ready", "cause": LATELY}, False, Level.ATTENTION, id="at-times"),
        pytest.param({"is_usable": False, "state": "ready"}, False, None, id="policy"),
        pytest.param(
            {"is_usable": False, "state": "not on this node", "code": CauseCode.NOT_LOCAL},
            False,
            None,
            id="elsewhere",
        ),
        pytest.param(
            {"is_usable": False, "state": "terminating, not serving", "code": CauseCode.NOT_READY},
            False,
            Level.ATTENTION,
            id="terminating",
        ),
    ],
)
def test_the_level_of_an_endpoint_and_whether_it_serves_follow_from_its_state(facts, serves, level):
    endpoint = EndpointFacts(**{"is_usable": True, **facts})
    assert (endpoint.serves, endpoint.level) == (serves, level)
    assert PortFacts(endpoints=[endpoint]).serving == serves


def test_without_cause_removes_the_cause_and_keeps_the_counters_of_an_endpoint():
    failing = EndpointFacts("10.0.0.1:80", connections=3, cause=RESETS, is_past=True)
    assert failing.without_cause() == EndpointFacts("10.0.0.1:80", connections=3)


def test_a_standby_endpoint_counts_as_serving_once_all_other_endpoints_fail():
    standby = EndpointFacts(is_usable=True, state="ready", is_standby=True)
    first = EndpointFacts(is_usable=True, state="ready")
    failing = EndpointFacts(is_usable=True, state="ready", cause=RESETS)
    assert PortFacts(endpoints=[first, standby, standby]).serving == 1
    assert PortFacts(endpoints=[first, standby, standby]).standby == 2
    assert PortFacts(endpoints=[failing, standby]).serving == 1


def test_has_default_path_is_false_on_another_path_or_with_a_reason_or_kernel_connections():
    assert PortFacts(kernel_connections=0).has_default_path
    assert not PortFacts(path=DataPath.KERNEL).has_default_path
    assert not PortFacts(path_reason="its annotation").has_default_path
    assert not PortFacts(kernel_connections=1).has_default_path


@pytest.mark.parametrize(
    ("facts", "mark", "why"),
    [
        ({}, Level.OK, ""),
        ((Level.OK, PortState.SERVED), Level.OK, ""),
        ((Level.OK, PortState.DROPPED), None, "dropped by design"),
        ((Level.OK, PortState.UNKNOWN), None, PortState.UNKNOWN.neutral),
        ((Level.OK, PortState.HOLDING), None, "without an endpoint: clients would wait"),
        ((Level.ATTENTION, PortState.DROPPED), Level.ATTENTION, ""),
    ],
)
def test_a_port_with_a_neutral_mark_has_a_reason(facts, mark, why):
    port = PortFacts(state=StateFacts(*facts))
    assert (port.mark, port.neutral_reason) == (mark, why)


@pytest.mark.parametrize(
    ("port", "mark"),
    [
        pytest.param({}, Level.OK, id="served"),
        pytest.param({"path": DataPath.KERNEL}, None, id="kernel path"),
        pytest.param(
            {"state": StateFacts(Level.ATTENTION, causes=[REFUSES])},
            Level.ATTENTION,
            id="it failed clients",
        ),
        pytest.param(
            {"state": StateFacts(word=PortState.UNKNOWN, causes=[REFUSES])},
            None,
            id="its clients may send last",
        ),
    ],
)
def test_an_endpoint_has_an_ok_mark_only_if_it_answers_all_clients(port, mark):
    ready, other = (
        EndpointFacts(address=one, is_usable=True, state="ready", sent_at=1.0)
        for one in (AT, "10.0.0.2:80")
    )
    of_others = None if "path" in port else Level.OK
    port = PortFacts(endpoints=[ready, other], **port)
    assert [port.mark_of(one) for one in (ready, other)] == [mark, of_others]
    assert port.mark_of(EndpointFacts(is_usable=True, cause=REFUSES)) is Level.TROUBLE


@pytest.mark.parametrize(
    ("facts", "is_unserved"),
    [
        ({}, False),
        ({"refused": 1}, True),
        ({"turned_away": [REFUSES]}, True),
        ({"other_ports": REFUSES}, True),
        ({"last_minute": LastMinuteFacts(cause=REFUSES)}, True),
        ({"refused": 1, "state": StateFacts()}, False),
    ],
)
def test_a_port_with_a_neutral_mark_and_failed_clients_is_unserved(facts, is_unserved):
    state = StateFacts(word=PortState.UNKNOWN)
    assert PortFacts(**{"state": state, **facts}).is_unserved is is_unserved


@pytest.mark.parametrize(
    ("figures", "mark"),
    [({"connections": 3}, None), ({"connections": 3, "sent_bytes": 1}, Level.OK), ({}, Level.OK)],
)
def test_an_endpoint_whose_connections_brought_nothing_back_has_a_neutral_mark(figures, mark):
    one = EndpointFacts(is_usable=True, state="ready", **figures)
    assert PortFacts(endpoints=[one], sent_bytes=9).mark_of(one) is mark
    for state in (StateFacts(word=PortState.UNKNOWN), StateFacts(Level.ATTENTION)):
        unproved = PortFacts(endpoints=[one], state=state)
        assert unproved.mark_of(one) is (mark if one.has_sent else None)


@pytest.mark.parametrize(
    ("facts", "is_without"),
    [
        pytest.param({}, True, id="no-client"),
        pytest.param({"connections": 7, "received_bytes": 1}, True, id="requests"),
        pytest.param({"connections": 7, "sent_bytes": 1}, False, id="an-answer"),
        pytest.param(
            {"endpoints": (EndpointFacts(), EndpointFacts(sent_at=1.0))}, False, id="empty"
        ),
        pytest.param({"path": DataPath.KERNEL}, False, id="not-seen"),
    ],
)
def test_a_byte_or_an_empty_datagram_from_an_endpoint_counts_as_a_response(facts, is_without):
    assert PortFacts(**facts).is_without_answer is is_without


def test_an_endpoint_has_sent_bytes_if_a_count_or_time_proves_it():
    endpoints = EndpointFacts(), EndpointFacts(sent_bytes=1), EndpointFacts(sent_at=1.0)
    assert [endpoint.has_sent for endpoint in endpoints] == [False, True, True]


def test_a_kernel_path_port_counts_as_observed_once_the_hooks_clients_got_responses():
    followed = {"path": DataPath.KERNEL, "socket_connections": 5}
    assert PortFacts(**followed).is_unseen
    assert not PortFacts(**followed, sent_bytes=500).is_unseen
    assert PortFacts(path=DataPath.KERNEL, socket_connections=0, sent_bytes=500).is_unseen


@pytest.mark.parametrize(
    ("by_rules", "at_connect", "count"), [(None, None, None), (3, None, 3), (None, 0, 0), (3, 2, 5)]
)
def test_past_workers_is_the_sum_of_connections_by_rules_and_by_hooks(by_rules, at_connect, count):
    port = PortFacts(kernel_connections=by_rules, socket_connections=at_connect)
    assert port.past_workers == count


def test_pickling_keeps_facts_that_the_json_omits():
    facts = PortFacts("shop", "web", "http", refused=3)
    facts.plan = "of the port"
    copied = pickle.loads(pickle.dumps(facts))
    assert (copied, copied.plan) == (facts, "of the port")


def test_worst_returns_the_most_severe_level_or_ok_for_none():
    assert worst([]) is Level.OK
    assert worst([Level.OK, Level.ATTENTION]) is Level.ATTENTION
