import pytest

from userspace_proxy.causes.cause import When
from userspace_proxy.causes.endpoints import (
    answers_late,
    fails,
    no_host,
    no_route,
    owes_answers,
    refuses,
    silent,
    unreachable,
)
from userspace_proxy.causes.say import say
from userspace_proxy.facts import Level
from userspace_proxy.facts.last_minute import LastMinuteFacts
from userspace_proxy_kubectl.nodes.dashboard.service_page import CellState, nodes_of
from userspace_proxy_kubectl.nodes.endpoints import (
    CLOCKS_DIFFER_S,
    Extent,
    answers_since,
    by_cause,
    endpoints_of,
    extent_of,
    has_tried,
)
from userspace_proxy_kubectl.nodes.text import render_status
from userspace_proxy_kubectl.nodes.words import format_endpoint, format_port

from ..status.views import NOW
from .views import OTHER, POD, answer_of, answering, failing, merged_of, untried, web

SINCE = NOW - 60


def test_the_path_is_blamed_only_if_a_failure_has_a_cause():
    """Users searched healthy nodes because a flapping endpoint was reported as unreachable."""
    assert extent_of((), 1, ("b",)) is Extent.SOME, "the endpoint has no cause"
    dropped = fails(POD, "not-permitted", "Operation not permitted")
    assert extent_of([dropped], 1, ("b",)) is Extent.PATH, "the node's firewall drops packets"


@pytest.mark.parametrize(
    ("cause", "since"),
    [
        (silent(POD).replace(first_at=SINCE, last_at=NOW), SINCE),
        (silent(POD).replace(first_at=SINCE, last_at=NOW, when=When.PAST), SINCE),
        (silent(POD).replace(last_at=NOW, when=When.LAST_MINUTE), NOW - 60),
    ],
)
def test_an_answer_before_the_failures_of_others_is_no_evidence(cause, since):
    """Clients of no node were served, and "the other 2 that tried are answered" was shown."""
    answers = {"b": since, "c": since - CLOCKS_DIFFER_S - 1}
    assert answers_since([cause, silent(POD)], answers) == ("b",)
    assert answers_since([silent(POD)], answers) == ("b", "c"), "the failure has no time"


@pytest.mark.parametrize("name", ["connections", "failures", "answered_at", "sent_at", "cause", ""])
def test_a_node_has_dialled_an_endpoint_only_if_it_has_a_figure_or_cause_of_it(name):
    facts = {name: silent(POD) if name == "cause" else 1} if name else {}
    assert has_tried(untried(**facts)) is bool(name)


def test_an_endpoint_lists_the_nodes_that_dialled_it_with_results():
    members = {
        "a": web(answering(node="n3"), untried(OTHER)),
        "b": web(failing(refuses(POD), failures=2), untried(OTHER)),
        "c": web(failing(silent(POD))),
        "d": web(failing(silent(POD))),
        "e": web(untried(), untried(OTHER, is_usable=False)),
    }
    sick, other = endpoints_of(members)
    assert (sick.address, sick.node, sick.usable, sick.extent) == (POD, "n3", 5, Extent.SOME)
    assert (sick.tried, sick.answered) == (("a", "b", "c", "d"), ("a",))
    refused = refuses(POD).replace(answers_nodes=True)
    assert sick.failing == ((silent(POD), ("c", "d")), (refused, ("b",)))
    assert (sick.sums.connections, sick.sums.failed) == (3, 2)
    assert (other.address, other.tried, other.usable) == (OTHER, (), 2)
    assert other.extent is Extent.NONE


def test_an_endpoint_is_shown_with_the_name_of_its_pod():
    """With only addresses, users on call had to look up the pods with kubectl."""
    members = {"a": web(untried()), "b": web(answering(pod="web-7d9-x2x"))}
    (one,) = endpoints_of(members)
    assert one.pod == "web-7d9-x2x"
    text = render_status(merged_of(answer_of("b", members["b"])), is_wide=True).body.decode()
    assert "endpoint web-7d9-x2x  " in text


def test_an_endpoint_that_no_node_uses_is_not_ok_though_it_answered_before():
    (one,) = endpoints_of({"a": web(answering(state="not ready", is_usable=False))})
    assert (one.level, one.tried, one.answered) == (None, ("a",), ())
    assert format_endpoint(one) == f"{POD} is used by no node that answered"


def test_an_endpoint_that_failed_long_ago_on_each_failing_node_has_a_neutral_mark():
    past = silent(POD).replace(when=When.PAST, count=3, first_at=NOW - 500, last_at=NOW - 480)
    old = answer_of("a", web(failing(past, is_past=True), answering(OTHER)))
    fine = web(answering(), answering(OTHER))
    merged = merged_of(old, answer_of("b", fine))
    (port,) = merged.ports
    one, _ = port.endpoints
    assert (one.address, one.level, port.level) == (POD, None, Level.OK)
    assert one.failing == ((past, ("a",)),), "the remedy is about the path"
    assert f"{say(past)} (3 times, last 8 min ago) on a (1 of 2)" in format_port(port, merged)
    states = [row.states[0] for row in nodes_of(port, merged)]
    assert states == [CellState.UNANSWERED, CellState.SERVED]


@pytest.mark.parametrize(("is_unusual", "level"), [(True, Level.ATTENTION), (False, None)])
def test_an_answering_endpoint_that_failed_clients_in_the_last_minute_is_not_ok(is_unusual, level):
    minute = LastMinuteFacts(
        connections=20, unanswered_requests=9, cause=owes_answers(POD), is_unusual=is_unusual
    )
    port = web(answering(OTHER), answering(POD), last_minute=minute)
    merged = merged_of(answer_of("a", port), answer_of("b", web(answering(OTHER), answering(POD))))
    assert [(e.address, e.level) for e in merged.ports[0].endpoints] == [
        (POD, level),
        (OTHER, Level.OK),
    ]


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        (no_host(POD, "cni0"), no_host(POD, "eth0"), False),
        (unreachable(POD), no_route(POD), False),
        (answers_late(POD, 1.5), answers_late(POD, 2.5), True),
    ],
)
def test_nodes_are_grouped_by_cause_regardless_of_durations(one, other, is_same):
    found = by_cause([("a", one), ("b", other)])
    assert [nodes for _, nodes in found] == ([("a", "b")] if is_same else [("a",), ("b",)])
    assert "b" in by_cause([("a", one.replace(when=When.PAST)), ("b", other)])[0][1]
