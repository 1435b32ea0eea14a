import pytest

from userspace_proxy.causes.endpoints import no_route, refuses, silent
from userspace_proxy.facts import Level, SyncFacts, TotalsFacts
from userspace_proxy.facts.node import PlanFacts
from userspace_proxy.facts.processes import ProcessFacts
from userspace_proxy_kubectl.nodes.agent_answer import AgentAnswer
from userspace_proxy_kubectl.nodes.merged import merge
from userspace_proxy_kubectl.nodes.sums import Sums

from .views import (
    NOW,
    OTHER,
    POD,
    all_of,
    answer_of,
    answering,
    failing,
    merged_of,
    web,
    without_answer,
)


def row_of(answer, before=None, **changes):
    earlier = None if before is None else all_of(before)
    (row,) = merge(all_of(answer, **changes), earlier).rows
    return row


def test_a_row_contains_the_agents_facts():
    row = row_of(
        answer_of(
            "a",
            web(answering()),
            web(failing(refuses(OTHER)), name="pay"),
            commit="0123456789ab",
            totals=TotalsFacts(active=3, connections=9, refused=2),
            process=ProcessFacts(50.0, 70_000_000),
            settings={"path": "auto"},
            sync=SyncFacts(last_done=NOW - 7),
        )
    )
    assert (row.version, row.commit, row.steering, row.path) == (
        "0.1.0", "0123456789ab", "nftables", "auto",
    )  # fmt: skip
    assert (row.plan_age_s, row.revision, row.ports, row.unhealthy) == (7.0, 4711, 2, 1)
    assert row.sums == Sums(3, 9, failed=2, refused=2)
    assert (row.behind, row.cpu, row.memory_bytes) == (None, 0.05, 70_000_000)


def test_a_row_omits_values_the_agent_did_not_report():
    row = row_of(answer_of("a", plan=PlanFacts(), sync=SyncFacts()), digests={})
    assert (row.path, row.plan_age_s, row.behind, row.cpu) == ("userspace", None, None, None)


@pytest.mark.parametrize(
    ("answer", "digests", "behind"),
    [
        ({}, None, None),
        ({}, {}, ()),
        ({"behind": ("shop/web",)}, {}, ("shop/web",)),
        ({"plan": PlanFacts(1)}, {}, None),
    ],
)
def test_lag_is_known_only_if_both_sides_have_digests(answer, digests, behind):
    assert row_of(answer_of("a", **answer), digests=digests).behind == behind


def test_cpu_use_is_computed_since_the_agents_last_response():
    now = answer_of("a", process=ProcessFacts(50.0))
    before = answer_of("a", process=ProcessFacts(49.5), now=NOW - 5)
    assert row_of(now, before).cpu == pytest.approx(0.1)
    other = answer_of("a", process=ProcessFacts(900.0), now=NOW - 5, started=NOW - 9000)
    assert row_of(now, other).cpu == pytest.approx(0.05)
    assert row_of(answer_of("a", process=ProcessFacts(-1.0))).cpu is None
    assert row_of(answer_of("a", process=ProcessFacts(5.0), started=NOW + 5)).cpu is None


def test_a_summarys_row_counts_omitted_ports():
    ports = web(failing(refuses(POD))), web(answering(), name="asked")
    row = row_of(answer_of("a", *ports, is_summary=True, served=199))
    assert (row.ports, row.unhealthy) == (200, 1)


def test_an_endpoint_unreachable_from_most_nodes_changes_the_level_of_no_node():
    sick, fine = web(failing(silent(POD))), web(answering())
    merged = merged_of(answer_of("a", sick), answer_of("b", sick), answer_of("c", fine))
    assert {row.level for row in merged.rows} == {Level.OK}
    merged = merged_of(answer_of("a", sick), answer_of("c", fine))
    assert [row.level for row in merged.rows] == [Level.TROUBLE, Level.OK]


def test_a_node_whose_endpoint_only_it_reaches_is_not_marked_ok():
    sick, fine = web(failing(silent(POD), node="c")), web(answering(node="c"))
    of_route, bad = web(failing(no_route(POD), node="c")), Level.TROUBLE
    ways = [(sick, "ab", {"c": bad}), (sick, "a", {"a": None, "c": None})]
    for port, nodes, marks in (*ways, (of_route, "ab", {"a": bad, "b": bad})):
        rows = merged_of(*(answer_of(node, port) for node in nodes), answer_of("c", fine)).rows
        assert marks.items() <= {row.node: row.mark for row in rows}.items()
    rejected = web(failing(refuses(POD), node="c"))
    rows = merged_of(*(answer_of(node, rejected) for node in "ab"), answer_of("c", fine)).rows
    assert {row.mark for row in rows} == {None}


def test_a_cause_without_endpoints_is_attributed_to_the_few_affected_nodes():
    ports = web(name="x", problem="in use"), web(answering(), name="x")
    rare = answer_of("a", ports[0], kube_proxy=("chain KUBE-SERVICES of table nat",))
    merged = merged_of(rare, answer_of("b", ports[1]), without_answer("c"))
    levels = [("c", Level.TROUBLE), ("a", Level.TROUBLE), ("b", Level.OK)]
    assert [(row.node, row.level) for row in merged.rows] == levels
    merged = merged_of(*(answer_of(node, ports[0]) for node in "ab"), answer_of("c", ports[1]))
    assert {row.level for row in merged.rows} == {Level.OK}


def test_a_node_is_marked_ok_only_if_no_service_needs_attention():
    (row,) = merged_of(AgentAnswer("a")).rows
    assert (row.level, row.mark) == (Level.OK, None)
    sick = web(failing(refuses(OTHER)))
    for port, mark in ((web(answering()), Level.OK), (sick, None)):
        rows = merged_of(answer_of("a", port), answer_of("b", port)).rows
        assert {(row.level, row.mark) for row in rows} == {(Level.OK, mark)}
