"""Which endpoints may serve, and the words for each and for none."""

import ipaddress
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from userspace_proxy.model import Endpoint, IPFamily, Protocol, SlicePort, SocketAddress
from userspace_proxy.policy import NodeFacts, usable_endpoints

from ..model.samples import (
    GONE,
    NOT_READY,
    POD_A,
    POD_B,
    POD_C,
    READY,
    TERMINATING,
    slice_of,
)

A, B, C = POD_A.ip, POD_B.ip, POD_C.ip
LOOPBACK = "refused: a loopback address is the node itself"


def judge(*slices, port="http", protocol=Protocol.TCP, family=IPFamily.IPV4, ours=(), **facts):
    return usable_endpoints(
        slices, port=port, protocol=protocol, family=family, facts=NodeFacts(**facts), ours=ours
    )


def reasons(usable):
    return [verdict.reason for verdict in usable.verdicts]


@pytest.mark.parametrize(
    ("conditions", "usable", "words"),
    [
        pytest.param([READY, READY], [POD_A, POD_B], ["ready", "ready"], id="ready-ones"),
        pytest.param([READY, NOT_READY], [POD_A], ["ready", "not ready"], id="ready-ones-only"),
        pytest.param(
            [TERMINATING, READY],
            [POD_B],
            ["terminating", "ready"],
            id="no-terminating-one-beside-a-ready-one",
        ),
        pytest.param(
            [TERMINATING, TERMINATING, NOT_READY],
            [POD_A, POD_B],
            ["terminating", "terminating", "not ready"],
            id="else-serving-and-terminating",
        ),
        pytest.param(
            [TERMINATING, GONE],
            [POD_A],
            ["terminating", "terminating, not serving"],
            id="terminating-ones-must-serve",
        ),
        pytest.param(
            [{"ready": False, "serving": True}],
            [],
            ["not ready"],
            id="serving-alone-is-not-enough",
        ),
        pytest.param(
            [{"ready": True, "serving": True, "terminating": True}, TERMINATING],
            [POD_A],
            ["ready", "terminating"],
            id="ready-while-terminating-as-publish-not-ready-addresses-shows-it",
        ),
    ],
)
def test_ready_ones_serve_else_those_serving_and_terminating(conditions, usable, words):
    endpoints = [Endpoint(ip, **c) for ip, c in zip((A, B, C), conditions, strict=False)]
    judged = judge(slice_of(*endpoints))
    assert list(judged.addresses) == usable
    assert reasons(judged) == words


@pytest.mark.parametrize(
    ("slices", "reason"),
    [
        pytest.param([], "it has no endpoints", id="no-slices"),
        pytest.param([slice_of()], "it has no endpoints", id="empty-slice"),
        pytest.param([slice_of(A)], "", id="a-usable-one"),
        pytest.param(
            [slice_of(Endpoint(A, **NOT_READY))], "1 endpoint: 1 not ready", id="one-not-ready"
        ),
        pytest.param(
            [slice_of(Endpoint(A, **NOT_READY), Endpoint(B, **NOT_READY), Endpoint(C, **GONE))],
            "3 endpoints: 2 not ready, 1 terminating, not serving",
            id="counted-by-reason",
        ),
        pytest.param(
            [slice_of("127.0.0.1", Endpoint(A, **NOT_READY))],
            f"2 endpoints: 1 not ready, 1 {LOOPBACK}",
            id="with-what-is-refused",
        ),
    ],
)
def test_the_reason_for_no_usable_endpoint_counts_what_there_is(slices, reason):
    assert judge(*slices).reason == reason


def test_endpoints_come_in_the_order_of_their_numbers():
    ips = ["192.0.2.10", "192.0.2.9", "192.0.2.101"]
    ports = (SlicePort("http", 9000, "TCP"), SlicePort("http", 8000, "TCP"))
    assert [str(address) for address in judge(slice_of(*ips, ports=ports)).addresses] == [
        "192.0.2.9:8000",
        "192.0.2.9:9000",
        "192.0.2.10:8000",
        "192.0.2.10:9000",
        "192.0.2.101:8000",
        "192.0.2.101:9000",
    ]


def test_only_slices_of_the_family_count():
    v4, v6 = slice_of(A), slice_of("2001:db8::1", family=IPFamily.IPV6, key="cart-2")
    assert judge(v4, v6).addresses == (POD_A,)
    assert judge(v4, v6, family=IPFamily.IPV6).addresses == (SocketAddress("2001:db8::1", 8080),)
    assert judge(v4, family=IPFamily.IPV6).reason == "it has no endpoints"


def test_only_the_port_of_that_name_and_protocol_counts():
    ports = (SlicePort("http", 8080, "TCP"), SlicePort("dns", 5353, "UDP"))
    item = slice_of(A, ports=ports)
    assert judge(item).addresses == (POD_A,)
    assert judge(item, port="dns", protocol=Protocol.UDP).addresses == (SocketAddress(A, 5353),)
    assert judge(item, port="dns").reason == "it has no endpoints"


def test_an_endpoint_in_two_slices_counts_once():
    judged = judge(slice_of(A, B), slice_of(B, C, key="cart-2"))
    assert judged.addresses == (POD_A, POD_B, POD_C)


@pytest.mark.parametrize(
    ("conditions", "word", "is_usable"),
    [
        pytest.param([READY, NOT_READY], "ready", True, id="ready-wins"),
        pytest.param([READY, TERMINATING], "ready", True, id="ready-wins-over-terminating"),
        pytest.param([TERMINATING, GONE], "terminating", True, id="serving-wins"),
        pytest.param([GONE, READY, TERMINATING], "ready", True, id="ready-wins-of-three"),
    ],
)
def test_where_slices_disagree_the_better_condition_wins(conditions, word, is_usable):
    for order in permutations(conditions):
        slices = [slice_of(Endpoint(A, **c), key=f"cart-{i}") for i, c in enumerate(order)]
        (verdict,) = judge(*slices).verdicts
        assert (verdict.reason, verdict.is_usable) == (word, is_usable)


def test_a_verdict_names_the_node_of_the_endpoint():
    endpoints = [Endpoint(A, node="node-1"), Endpoint("127.0.0.1", node="node-2")]
    assert [v.node for v in judge(slice_of(*endpoints)).verdicts] == ["node-2", "node-1"]


@pytest.mark.parametrize(
    ("ip", "reason"),
    [
        pytest.param("127.0.0.1", LOOPBACK, id="loopback"),
        pytest.param("127.255.255.255", LOOPBACK, id="loopbacks-end"),
        pytest.param("::1", LOOPBACK, id="loopback-v6"),
        pytest.param("169.254.169.254", "refused: link-local address", id="metadata-server"),
        pytest.param("fe80::1", "refused: link-local address", id="link-local-v6"),
        pytest.param("224.0.0.1", "refused: multicast address", id="multicast"),
        pytest.param("ff02::1", "refused: multicast address", id="multicast-v6"),
        pytest.param("0.0.0.0", "refused: unspecified address", id="unspecified"),
        pytest.param("::", "refused: unspecified address", id="unspecified-v6"),
    ],
)
def test_an_endpoint_that_points_inward_is_refused(ip, reason):
    judged = judge(slice_of(ip, family=IPFamily.of(ip)), family=IPFamily.of(ip))
    assert judged.addresses == ()
    assert reasons(judged) == [reason]
    assert judged.reason == f"1 endpoint: 1 {reason}"


EDGES = "126.255.255.255 128.0.0.0 169.253.255.255 169.255.0.0 223.255.255.255 240.0.0.1 0.0.0.1"
EDGES_V6 = "::2 fe7f:ffff:: fec0:: feff:: 2001:db8:: 1::1"
# An IPv4 address written as IPv6 never gets here: parse_ip refuses it.
IPS = st.ip_addresses().filter(lambda ip: ip.version == 4 or ip.ipv4_mapped is None)


@given(st.one_of(IPS, st.sampled_from(f"{EDGES} {EDGES_V6}".split()).map(ipaddress.ip_address)))
def test_inward_is_what_the_standard_library_says_it_is(ip):
    family = IPFamily(ip.version)
    is_inward = ip.is_loopback or ip.is_link_local or ip.is_multicast or ip.is_unspecified
    judged = judge(slice_of(str(ip), family=family), family=family)
    assert bool(judged.addresses) != is_inward


@pytest.mark.parametrize(
    ("ip", "expected"),
    [
        pytest.param("127.0.0.1", "ready", id="loopback"),
        pytest.param("::1", "ready", id="loopback-v6"),
        pytest.param("169.254.0.1", "refused: link-local address", id="nothing-else"),
    ],
)
def test_a_switch_allows_loopback_endpoints_for_embedding(ip, expected):
    family = IPFamily.of(ip)
    item = slice_of(ip, family=family)
    assert reasons(judge(item, family=family, allow_loopback_endpoints=True)) == [expected]


def test_an_address_that_the_proxy_serves_is_no_endpoint():
    judged = judge(slice_of(A, B), ours={POD_A})
    assert judged.addresses == (POD_B,)
    assert reasons(judged) == ["refused: it is an address that this proxy serves", "ready"]


def test_another_port_of_an_address_that_the_proxy_serves_may_be_an_endpoint():
    assert judge(slice_of(A), ours={POD_A._replace(port=80)}).addresses == (POD_A,)


def test_a_refused_endpoint_does_not_count_as_ready():
    judged = judge(slice_of("127.0.0.1", Endpoint(A, **TERMINATING)))
    assert judged.addresses == (POD_A,)
