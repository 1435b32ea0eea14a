"""Tests of which endpoints are usable, and of the reason in each verdict."""

from itertools import permutations

import pytest

from userspace_proxy.causes.cause import CauseCode
from userspace_proxy.model import Endpoint, IPFamily, Protocol, SlicePort, SocketAddress
from userspace_proxy.policy import EndpointVerdict, NodeFacts, Scope, count_local_ready
from userspace_proxy.policy.usable import NODE_ENDPOINT, Refusals, judge_alone

from ..model.samples import (
    GONE,
    NOT_READY,
    POD_A,
    POD_B,
    POD_C,
    READY,
    TERMINATING,
    WEB,
    slice_of,
)
from .judging import judge, reasons, usable_ips

A, B, C = POD_A.ip, POD_B.ip, POD_C.ip
LOOPBACK, METADATA = "refused: a loopback address", "the metadata address of clouds"


@pytest.mark.parametrize(
    ("conditions", "usable", "words"),
    [
        ([READY, READY], [POD_A, POD_B], ["ready", "ready"]),
        ([READY, NOT_READY], [POD_A], ["ready", "not ready"]),
        ([TERMINATING, READY], [POD_B], ["terminating", "ready"]),
        (
            [TERMINATING, TERMINATING, NOT_READY],
            [POD_A, POD_B],
            ["terminating", "terminating", "not ready"],
        ),
        ([TERMINATING, GONE], [POD_A], ["terminating", "terminating, not serving"]),
        ([{"ready": False, "serving": True}], [], ["not ready"]),
        (
            [{"ready": True, "serving": True, "terminating": True}, TERMINATING],
            [POD_A],
            ["ready", "terminating"],
        ),
    ],
)
def test_serving_terminating_endpoints_are_usable_if_none_is_ready(conditions, usable, words):
    endpoints = [Endpoint(ip, **c) for ip, c in zip((A, B, C), conditions, strict=False)]
    judged = judge(slice_of(*endpoints))
    assert list(judged.serving.endpoints) == usable
    assert reasons(judged) == words


def test_endpoints_are_sorted_numerically():
    ips = ["192.0.2.10", "192.0.2.9", "192.0.2.101"]
    ports = (SlicePort("http", 9000, "TCP"), SlicePort("http", 8000, "TCP"))
    assert [str(address) for address in judge(slice_of(*ips, ports=ports)).serving.endpoints] == [
        "192.0.2.9:8000",
        "192.0.2.9:9000",
        "192.0.2.10:8000",
        "192.0.2.10:9000",
        "192.0.2.101:8000",
        "192.0.2.101:9000",
    ]


def test_an_endpoint_in_two_slices_is_listed_once():
    judged = judge(slice_of(A, B), slice_of(B, C, key="cart-2"))
    assert judged.serving.endpoints == (POD_A, POD_B, POD_C)


@pytest.mark.parametrize(
    ("conditions", "word", "is_usable"),
    [
        ([READY, NOT_READY], "ready", True),
        ([READY, TERMINATING], "ready", True),
        ([READY, NOT_READY | {"node": "here"}], "ready", True),
        ([TERMINATING, GONE], "terminating", True),
        ([GONE, READY, TERMINATING], "ready", True),
        ([TERMINATING, {"ready": False, "serving": True}], "not ready", False),
        ([{"ready": True, "terminating": True}, READY], "ready", True),
    ],
)
def test_the_better_condition_is_used_if_slices_disagree(conditions, word, is_usable):
    for order in permutations(conditions):
        slices = [slice_of(Endpoint(A, **c), key=f"cart-{i}") for i, c in enumerate(order)]
        (verdict,) = judge(*slices, node_name="here").verdicts
        assert (verdict.reason, verdict.is_usable) == (word, is_usable)


@pytest.mark.parametrize(
    ("ip", "reason"),
    [
        pytest.param("127.0.0.1", LOOPBACK, id="loopback"),
        pytest.param("169.254.169.254", f"refused: {METADATA}", id="metadata-server"),
        pytest.param("2002:a9fe:a9fe::1", "refused: an IPv4 address behind 6to4", id="6to4"),
        pytest.param("fe80::1", "refused: a link-local address", id="link-local-v6"),
        pytest.param("ff02::1", "refused: a multicast address", id="multicast-v6"),
        pytest.param(
            "0.0.0.0", "refused: the unspecified address, which is this node", id="unspecified"
        ),
    ],
)
def test_an_endpoint_with_a_special_purpose_address_is_rejected(ip, reason):
    judged = judge(slice_of(ip, family=IPFamily.of(ip)), family=IPFamily.of(ip))
    assert judged.serving.endpoints == ()
    assert reasons(judged) == [reason]


@pytest.mark.parametrize(
    "ip", ["240.0.0.1", "fec0::1", "64:ff9b::808:808", "192.168.0.1", "fd12::1"]
)
def test_an_address_that_a_cluster_may_use_is_allowed_as_an_endpoint(ip):
    judged = judge(slice_of(ip, family=IPFamily.of(ip)), family=IPFamily.of(ip))
    assert [address.ip for address in judged.serving.endpoints] == [ip]


@pytest.mark.parametrize(
    ("ip", "expected"),
    [
        pytest.param("127.0.0.1", "ready", id="loopback"),
        pytest.param("::1", "ready", id="loopback-v6"),
        pytest.param("169.254.0.1", "refused: a link-local address", id="link-local"),
    ],
)
def test_an_option_for_embedded_proxies_allows_loopback_endpoints(ip, expected):
    family = IPFamily.of(ip)
    item = slice_of(ip, family=family)
    assert reasons(judge(item, family=family, allow_loopback_endpoints=True)) == [expected]


def test_an_address_served_by_the_proxy_is_not_an_endpoint():
    judged = judge(slice_of(A, B), frontends={POD_A})
    assert judged.serving.endpoints == (POD_B,)
    assert reasons(judged) == ["refused: it is an address that this proxy serves", "ready"]


def test_another_port_of_a_served_address_may_be_an_endpoint():
    assert judge(slice_of(A), frontends={POD_A._replace(port=80)}).serving.endpoints == (POD_A,)


def test_a_cluster_ip_is_not_an_endpoint_even_on_an_unserved_port():
    judged = judge(slice_of(A, B), cluster_ips={A: WEB})
    assert judged.serving.endpoints == (POD_B,)
    (lacking, _) = judged.verdicts
    assert lacking.code is CauseCode.ENDPOINT_NOT_ALLOWED
    assert lacking.reason == (
        "refused: it is the ClusterIP of Service shop/web, which has no port 8080/TCP"
    )
    assert reasons(judge(slice_of(A), cluster_ips={A: WEB}, frontends={POD_A})) == [
        "refused: it is an address that this proxy serves"
    ]


def test_a_node_port_of_any_node_is_not_an_endpoint():
    node_ports = {POD_A.port}
    judged = judge(slice_of(A, B), node_ports=node_ports, all_node_addresses={A})
    assert judged.serving.endpoints == (POD_B,)
    assert reasons(judged) == ["refused: it is a node port of a node", "ready"]
    other = judge(slice_of(A), node_ports={30000}, all_node_addresses={A})
    assert other.serving.endpoints == (POD_A,)


@pytest.mark.parametrize(
    ("endpoint", "is_used"),
    [
        pytest.param(Endpoint(A), False, id="no-node-and-no-pod"),
        pytest.param(Endpoint(A, node="node-1"), False, id="no-pod"),
        pytest.param(Endpoint(A, node="node-2", pod="web-1"), False, id="a-pod-of-another-node"),
        pytest.param(Endpoint(A, pod="web-1"), False, id="a-pod-of-no-node"),
        pytest.param(Endpoint(A, node="node-1", pod="web-1"), True, id="a-pod-of-this-node"),
        pytest.param(Endpoint(B), True, id="another-nodes-address"),
    ],
)
def test_an_endpoint_with_this_nodes_address_must_be_a_pod_of_this_node(endpoint, is_used):
    known = {"node_name": "node-1", "addresses": (A,), "all_node_addresses": {A, B}}
    judged = judge(slice_of(endpoint), may_be_node=False, **known)
    assert reasons(judged) == ["ready" if is_used else NODE_ENDPOINT]
    assert reasons(judge(slice_of(endpoint), **known)) == ["ready"]


@pytest.mark.parametrize("conditions", [READY, NOT_READY, TERMINATING, GONE])
@pytest.mark.parametrize("ip", [A, "127.0.0.1"])
def test_an_endpoint_gets_the_same_verdict_alone_and_beside_a_ready_endpoint(ip, conditions):
    endpoint = Endpoint(ip, **conditions)
    alone = judge_alone(SocketAddress(ip, 8080), endpoint, Refusals(NodeFacts()), Protocol.TCP)
    judged = judge(slice_of(endpoint, B))
    assert [v for v in judged.verdicts if v.address.ip == ip] == [alone]


def test_a_node_without_a_name_has_no_pods_of_its_own():
    known = {"addresses": (A,), "all_node_addresses": {A}}
    judged = judge(slice_of(Endpoint(A, pod="web-1")), may_be_node=False, **known)
    assert reasons(judged) == [NODE_ENDPOINT]


def test_if_slices_disagree_about_an_endpoints_node_this_node_is_used():
    copies = [slice_of(Endpoint(A, node=node), key=node) for node in ("node-1", "node-2")]
    for order in permutations(copies):
        judged = judge(*order, scope=Scope.LOCAL, node_name="node-1")
        assert [v.node for v in judged.verdicts] == ["node-1"]


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        pytest.param({}, "ready", id="no-condition"),
        pytest.param({"serving": True}, "ready", id="serving-alone"),
        pytest.param({"terminating": True}, "ready", id="ready-missing-and-terminating"),
        pytest.param({"ready": False}, "not ready", id="not-ready-and-serving-missing"),
        # With publishNotReadyAddresses, the controller writes such conditions.
        pytest.param({"serving": False}, "not ready, but published", id="published"),
    ],
)
def test_missing_endpoint_conditions_count_as_true_for_ready_and_serving(conditions, expected):
    assert reasons(judge(slice_of(Endpoint(A, **conditions)))) == [expected]


def on(node, ip, **conditions):
    return Endpoint(ip, node=node, **conditions)


HERE, THERE = "node-1", "node-2"


@pytest.mark.parametrize(
    ("endpoints", "local", "cluster", "is_dropping"),
    [
        pytest.param([on(HERE, A), on(THERE, B)], [A], [A, B], False, id="one-here"),
        pytest.param([on(THERE, A), on(THERE, B)], [], [A, B], True, id="only-elsewhere"),
        pytest.param([], [], [], False, id="no-endpoint"),
        pytest.param(
            [on(HERE, A, **NOT_READY), on(THERE, B, **GONE)], [], [], False, id="none-is-ready"
        ),
        pytest.param([on(HERE, A, **NOT_READY), on(THERE, B)], [], [B], True, id="here-not-ready"),
        pytest.param(
            [on(HERE, A, **TERMINATING), on(THERE, B)], [A], [B], False, id="here-terminating"
        ),
        pytest.param(
            [on(HERE, A), on(THERE, B, **TERMINATING)], [A], [A], False, id="there-terminating"
        ),
        pytest.param([on(THERE, A, **TERMINATING)], [], [A], True, id="only-terminating-there"),
        pytest.param([on("", A)], [], [A], True, id="on-no-node-as-outside-the-cluster"),
        pytest.param(
            [on(HERE, "127.0.0.1"), on(THERE, B)], [], [B], True, id="refused-ones-are-not-here"
        ),
        pytest.param([on(THERE, "127.0.0.1")], [], [], False, id="refused-ones-are-not-there"),
    ],
)
class TestLocalScopes:
    def test_local_scope_drops_clients_if_only_other_nodes_have_endpoints(
        self, endpoints, local, cluster, is_dropping
    ):
        judged = judge(slice_of(*endpoints), scope=Scope.LOCAL, node_name=HERE)
        assert (usable_ips(judged), judged.serving.outside) == (local, None)
        assert judged.is_dropping is is_dropping

    def test_with_external_local_each_side_has_its_own_endpoints_and_fallback(
        self, endpoints, local, cluster, is_dropping
    ):
        judged = judge(slice_of(*endpoints), scope=Scope.LOCAL_FROM_OUTSIDE, node_name=HERE)
        assert usable_ips(judged) == cluster
        assert [address.ip for address in judged.serving.outside] == local
        assert judged.is_dropping is is_dropping


def test_a_node_without_a_name_has_no_local_endpoints():
    assert judge(slice_of(on("", A), on(HERE, B)), scope=Scope.LOCAL).is_dropping


@pytest.mark.parametrize(
    ("endpoints", "expected"),
    [
        pytest.param([on(HERE, A), on(HERE, B), on(THERE, C)], 2, id="local-endpoints"),
        pytest.param([on(HERE, A, **NOT_READY), on(HERE, B, **TERMINATING)], 0, id="ready-alone"),
        pytest.param([on(HERE, A), on(HERE, A)], 1, id="each-address-once"),
        pytest.param([on(HERE, A, weight=0)], 0, id="drained"),
        pytest.param([on("", A)], 0, id="no-node"),
        pytest.param([], 0, id="none"),
    ],
)
def test_health_checks_count_this_nodes_ready_endpoints(endpoints, expected):
    ports = (SlicePort("http", 8080, "TCP"), SlicePort("dns", 53, "UDP"))
    item = slice_of(*endpoints, ports=ports)
    assert count_local_ready([item], NodeFacts(node_name=HERE)) == expected


def test_health_checks_do_not_count_endpoints_without_a_port():
    slices = [slice_of(on(HERE, A)), slice_of(on(HERE, B), key="cart-2", ports=())]
    assert count_local_ready(slices, NodeFacts(node_name=HERE)) == 1


def test_health_checks_count_an_endpoint_in_several_slices_once():
    v6 = slice_of(on(HERE, "2001:db8::1"), key="cart-6", family=IPFamily.IPV6)
    slices = [slice_of(on(HERE, A)), slice_of(on(HERE, A), on(HERE, B), key="cart-2"), v6]
    assert count_local_ready(slices, NodeFacts(node_name=HERE)) == 2


@pytest.mark.parametrize(
    ("conditions", "leaving"),
    [
        pytest.param([READY, TERMINATING, GONE], [False, True, False], id="beside-a-ready-one"),
        pytest.param([TERMINATING, GONE], [False, False], id="none-ready"),
    ],
)
def test_a_serving_terminating_endpoint_is_leaving_while_another_is_ready(conditions, leaving):
    endpoints = [Endpoint(ip, **c) for ip, c in zip((A, B, C), conditions, strict=False)]
    usable = judge(slice_of(*endpoints))
    assert [v.is_leaving for v in usable.verdicts] == leaving
    assert usable.verdicts[0].is_last is not any(leaving)
    assert [at.ip for at in usable.leaving] == [B] * any(leaving)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, ""),
        ({"weight": 0}, ""),
        ({"weight": 10}, "weight 10"),
        ({"priority": 1}, "priority 1"),
        ({"priority": 1, "is_standby": True, "weight": 10}, "on standby (priority 1), weight 10"),
    ],
)
def test_a_verdict_describes_preferences_in_words(fields, expected):
    assert EndpointVerdict(POD_A, True, "ready", **fields).preference == expected


@pytest.mark.parametrize(
    ("scope", "expected"),
    [
        pytest.param(Scope.CLUSTER, ["10.0.0.3", "10.0.0.4"], id="ready-ones-first"),
        pytest.param(Scope.LOCAL, ["10.0.0.9"], id="this-nodes-address-with-Local"),
    ],
)
def test_at_the_endpoint_limit_ready_and_local_endpoints_are_kept(monkeypatch, scope, expected):
    monkeypatch.setattr("userspace_proxy.policy.usable.ENDPOINTS_MAX", 2)
    endpoints = (
        Endpoint("10.0.0.1", ready=False),
        Endpoint("10.0.0.2", weight=0),
        Endpoint("10.0.0.3"),
        Endpoint("10.0.0.4"),
        Endpoint("10.0.0.9", node="here"),
    )
    standby = Endpoint("10.0.0.0", priority=1)
    usable = judge(slice_of(standby, *endpoints), scope=scope, node_name="here")
    assert (usable_ips(usable), len(usable.verdicts)) == (expected, 2)
    assert not usable.are_all
    assert judge(slice_of(*endpoints[:2]), scope=scope).are_all


def test_the_verdict_of_an_endpoint_by_name_has_its_host_name():
    named = Endpoint(A, host="db.example.com")
    assert [v.host for v in judge(slice_of(named, B)).verdicts] == ["db.example.com", ""]
