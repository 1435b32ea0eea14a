"""Tests of encoding and decoding the notes in Leases; unreadable notes mean unknown."""

import pytest

from userspace_proxy.model import ServiceKey
from userspace_proxy.scaling.lease_notes import (
    DEMAND_BYTES_MAX,
    NodeAnswer,
    NodeReport,
    Vote,
    VoteCounts,
    read_counts,
    read_report,
    whole,
    write_counts,
    write_report,
)
from userspace_proxy.sources.base import Lease

WEB, API = ServiceKey("shop", "web"), ServiceKey("shop", "api")


@pytest.mark.parametrize(
    "report",
    [
        pytest.param(NodeReport(), id="unknown"),
        pytest.param(NodeReport({}), id="no-demand"),
        pytest.param(NodeReport({WEB: 3, API: 1}, NodeAnswer("7", frozenset({WEB}))), id="answer"),
    ],
)
def test_a_node_report_round_trips(report):
    assert read_report(Lease("node.a", notes=write_report(report))) == report


@pytest.mark.parametrize(
    "vote_counts",
    [
        pytest.param(VoteCounts(), id="nothing-yet"),
        pytest.param(VoteCounts({WEB: 3}, "node-7"), id="unknown-node"),
        pytest.param(VoteCounts({}, "", Vote("7", (WEB, API))), id="round"),
        pytest.param(VoteCounts({}, "", Vote("7", (WEB,), is_over=True)), id="round-that-is-over"),
    ],
)
def test_vote_counts_survive_a_round_trip_through_the_lease(vote_counts):
    read = read_counts(Lease("holder", notes=write_counts(vote_counts)))
    services = sorted(vote_counts.round.services) if vote_counts.round else None
    assert read._replace(round=None) == vote_counts._replace(round=None)
    assert read.round == (
        vote_counts.round and vote_counts.round._replace(services=tuple(services))
    )


def test_services_without_demand_are_omitted_from_reports():
    assert read_report(
        Lease("node.a", notes=write_report(NodeReport({WEB: 0, API: 2})))
    ).demand == {API: 2}


@pytest.mark.parametrize(
    "text", ["", "[]", "7", "{", '{"web": 1}', '{"shop/web": "many"}', '{"a/b/c": 1}', "null"]
)
def test_unreadable_demand_is_read_as_unknown(text):
    assert read_report(Lease("node.a", notes={"demand": text})).demand is None
    assert read_counts(Lease("holder", notes={"demand": text})).demand is None


def demand_of(namespace, count, letters):
    return {ServiceKey(namespace, f"{number:0{letters}}"): 1 for number in range(count)}


BOUND = DEMAND_BYTES_MAX // len('"tenant/7777777777": 1, ')
"""The maximum number of Services with ten-letter names that fit."""
FULL = demand_of("tenant", BOUND - 10, 10)
LONG = 63


@pytest.mark.parametrize(
    ("demand", "unknown"),
    [
        pytest.param(FULL, set(), id="all-fit"),
        pytest.param(demand_of("tenant", BOUND + 1, 10), {"tenant"}, id="one-does-not-fit"),
        pytest.param(demand_of("tenant", 2200, LONG), {"tenant"}, id="long-names"),
        pytest.param(FULL | demand_of("a", BOUND // 2, 10), {"tenant"}, id="the-largest"),
        pytest.param(
            {key: 1 for name in "cba" for key in demand_of(name, BOUND // 2 - 10, 10)},
            {"c"},
            id="equally-large",
        ),
        pytest.param(
            {ServiceKey(f"{number:0{LONG}}", "api"): 1 for number in range(1500)},
            set(),
            id="many-namespaces",
        ),
        pytest.param(
            {ServiceKey(f"{number:0{LONG}}", f"{1:0{LONG}}"): 1 for number in range(1000)},
            {f"{number:0{LONG}}" for number in range(953, 1000)},
            id="many-long-namespaces",
        ),
    ],
)
@pytest.mark.parametrize(
    ("kind", "write", "read"),
    [(NodeReport, write_report, read_report), (VoteCounts, write_counts, read_counts)],
    ids=["node", "sums"],
)
def test_demand_of_the_largest_namespaces_is_unknown_if_not_all_demand_fits(
    kind, write, read, demand, unknown
):
    notes = write(kind(demand | {WEB: 3}))
    assert len(notes["demand"]) <= DEMAND_BYTES_MAX
    listed = {key: 1 for key in demand if key.namespace not in unknown}
    found = read(Lease("node.a", notes=notes)).demand
    assert found == listed | {whole(namespace): 1 for namespace in unknown} | {WEB: 3}


def test_demand_is_omitted_if_even_namespace_names_do_not_fit():
    many = {ServiceKey(f"{number:0{LONG}}", "web"): 1 for number in range(DEMAND_BYTES_MAX // 70)}
    assert "demand" not in write_report(NodeReport(many))


@pytest.mark.parametrize("text", ["", "[]", "7", '{"round": "7", "services": 1}', "null", '"a"'])
def test_an_unreadable_vote_counts_as_no_vote(text):
    assert read_report(Lease("node.a", notes={"answer": text})).answer == NodeAnswer()


@pytest.mark.parametrize("text", ["[]", "7", "{}", '{"number": "7", "services": [1]}', "null"])
def test_an_unreadable_round_counts_as_no_round(text):
    assert read_counts(Lease("holder", notes={"round": text})).round is None
