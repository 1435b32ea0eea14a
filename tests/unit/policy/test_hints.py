"""Tests of which endpoints hints assign to this node."""

import pytest

from userspace_proxy.model import Endpoint
from userspace_proxy.policy import NodeFacts, Scope
from userspace_proxy.policy.hints import not_meant_reason

from ..model.samples import NOT_READY, POD_A, POD_B, POD_C, TERMINATING, slice_of
from .judging import judge, reasons, usable_ips

A, B, C = POD_A.ip, POD_B.ip, POD_C.ip
HERE = {"node_name": "node-1", "zone": "east"}


def endpoint(ip, *, nodes=(), zones=(), **conditions):
    return Endpoint(ip, hinted_nodes=tuple(nodes), hinted_zones=tuple(zones), **conditions)


OUR_NODE = {"nodes": ["node-1"]}
OTHER_NODE = {"nodes": ["node-2"]}
OUR_ZONE = {"zones": ["east"]}
OTHER_ZONE = {"zones": ["west"]}


@pytest.mark.parametrize(
    ("hints", "expected"),
    [
        pytest.param([{}, {}], [A, B], id="no-hints-all"),
        pytest.param([OUR_ZONE, OTHER_ZONE], [A], id="one-for-this-zone"),
        pytest.param([OUR_ZONE, {"zones": ["west", "east"]}], [A, B], id="one-for-two-zones"),
        pytest.param([OTHER_ZONE, OTHER_ZONE], [A, B], id="none-for-this-zone-all"),
        pytest.param([OUR_ZONE, {}], [A, B], id="one-without-a-hint-switches-off"),
        pytest.param([{}, OUR_ZONE], [A, B], id="first-without-a-hint"),
        pytest.param([OUR_NODE, OTHER_NODE], [A], id="one-for-this-node"),
        pytest.param([OTHER_NODE, OTHER_NODE], [A, B], id="none-for-this-node-all"),
        pytest.param([OUR_NODE, {}], [A, B], id="one-without-a-node-hint-switches-off"),
        pytest.param(
            [OUR_NODE | OTHER_ZONE, OTHER_NODE | OUR_ZONE], [A], id="nodes-go-before-zones"
        ),
        pytest.param(
            [OTHER_NODE | OUR_ZONE, OTHER_NODE | OTHER_ZONE], [A], id="not-this-node-then-zones"
        ),
        pytest.param([OUR_NODE | OUR_ZONE, OTHER_ZONE], [A], id="a-node-hint-missing-then-zones"),
    ],
)
def test_hints_select_the_usable_endpoints(hints, expected):
    endpoints = [endpoint(ip, **hint) for ip, hint in zip((A, B), hints, strict=True)]
    assert usable_ips(judge(slice_of(*endpoints), **HERE)) == expected


@pytest.mark.parametrize(
    ("facts", "hint"),
    [
        pytest.param({"node_name": "node-1"}, OUR_ZONE, id="zone"),
        pytest.param({"zone": "east"}, OUR_NODE, id="node"),
        pytest.param({}, {"zones": [""], "nodes": [""]}, id="hints-without-a-name"),
    ],
)
def test_hints_are_ignored_if_the_nodes_zone_or_name_is_unknown(facts, hint):
    endpoints = [endpoint(A, **hint), endpoint(B, **OTHER_ZONE, **OTHER_NODE)]
    assert usable_ips(judge(slice_of(*endpoints), **facts)) == [A, B]


@pytest.mark.parametrize(
    ("third", "expected"),
    [
        pytest.param(endpoint(C, **NOT_READY), [A], id="not-ready-without-a-hint"),
        pytest.param(endpoint(C, **TERMINATING), [A], id="terminating-without-a-hint"),
        pytest.param(Endpoint("127.0.0.1"), [A], id="refused-without-a-hint"),
        pytest.param(endpoint(C), [A, B, C], id="ready-without-a-hint"),
    ],
)
def test_only_hints_of_ready_endpoints_are_used(third, expected):
    item = slice_of(endpoint(A, **OUR_ZONE), endpoint(B, **OTHER_ZONE), third)
    assert usable_ips(judge(item, **HERE)) == expected


def test_terminating_endpoints_serve_regardless_of_their_hints():
    item = slice_of(
        endpoint(A, **OTHER_ZONE, **TERMINATING), endpoint(B, **OUR_ZONE, **TERMINATING)
    )
    assert usable_ips(judge(item, **HERE)) == [A, B]


@pytest.mark.parametrize(
    ("hints", "words"),
    [
        pytest.param([OUR_ZONE, OTHER_ZONE], ["ready", "meant for zone west"], id="zone"),
        pytest.param(
            [OUR_NODE, {"nodes": ["node-2", "node-3"]}],
            ["ready", "meant for node-2, node-3"],
            id="nodes",
        ),
    ],
)
def test_a_verdict_names_the_zone_or_node_in_an_endpoints_hint(hints, words):
    endpoints = [endpoint(ip, **hint) for ip, hint in zip((A, B), hints, strict=True)]
    judged = judge(slice_of(*endpoints), **HERE)
    assert reasons(judged) == words


def test_local_traffic_policies_ignore_topology_hints():
    item = slice_of(
        Endpoint(A, node="node-1", hinted_zones=("west",)),
        Endpoint(B, node="node-2", hinted_zones=("east",)),
    )
    assert usable_ips(judge(item, scope=Scope.LOCAL, **HERE)) == [A]
    from_outside = judge(item, scope=Scope.LOCAL_FROM_OUTSIDE, **HERE)
    assert ([a.ip for a in from_outside.serving.outside], usable_ips(from_outside)) == ([A], [B])


def test_not_meant_reason_returns_none_without_conclusive_hints():
    assert not_meant_reason([endpoint(A)], NodeFacts(**HERE)) is None
    assert not_meant_reason([], NodeFacts(**HERE)) is None


def test_hints_select_endpoints_within_each_priority():
    ready = [
        endpoint(A, zones=["east"]),
        endpoint(B, zones=["west"]),
        endpoint(C, priority=1),
    ]
    why = not_meant_reason(ready, NodeFacts(**HERE), by_priority=True)
    assert [why(each) for each in ready] == ["", "meant for zone west", ""]
