"""Tests of the port ranges of a Service, their addresses, and their path."""

from dataclasses import replace

import pytest

from userspace_proxy.causes.notes import (
    all_at_external,
    range_at_node,
    range_not_allowed,
    range_overlaps,
    range_without_node_port,
    range_without_number,
    range_without_port,
)
from userspace_proxy.model import (
    DataPath,
    FrontendKind,
    Handling,
    Hold,
    IPFamily,
    Protocol,
    ServicePort,
    SocketAddress,
)
from userspace_proxy.model.port_ranges import DialledRange, read_port_ranges
from userspace_proxy.model.serving import Serving
from userspace_proxy.policy import DEFAULT_PATH, NodeFacts
from userspace_proxy.policy.port_ranges import (
    WHY_SHARED,
    WHY_UDP,
    choose_range_path,
    impossible_cause,
    overflow_reason,
    ranges_of,
)

from ..model.samples import service

RTP = ServicePort("rtp", 10000, "UDP")
SIP = ServicePort("sip", 5060, "UDP")
DATA = ServicePort("data", 10000, "TCP")
NODE_PORT = ServicePort("rtp", 10000, "UDP", node_port=30000)
IP = "192.0.2.9"


def asking(text, *ports, **fields):
    handling = Handling(port_ranges=read_port_ranges(text), **fields.pop("handling", {}))
    return service(ports=ports or (RTP, SIP, DATA), handling=handling, **fields)


def spans(text, *ports):
    ranges, notes = ranges_of(asking(text, *ports))
    noted = [(port.name if port else "", note) for port, of in notes.items() for note in of]
    return {port.name: one.spans for port, one in ranges.items()}, noted


@pytest.mark.parametrize(
    ("text", "found"),
    [
        pytest.param("rtp=10000-20000", {"rtp": ((10000, 20000),)}, id="by-name"),
        pytest.param("5060=5000-6000", {"sip": ((5000, 6000),)}, id="by-number"),
        pytest.param(
            "10000=9000-11000",
            {"rtp": ((9000, 11000),), "data": ((9000, 11000),)},
            id="of-both-protocols",
        ),
        pytest.param(
            "rtp=10000-20000,data=10000-20000",
            {"rtp": ((10000, 20000),), "data": ((10000, 20000),)},
            id="same-ports-of-each-protocol",
        ),
        pytest.param(
            "rtp=10000-20000,sip=all",
            {"rtp": ((10000, 20000),), "sip": ((1, 9999), (20001, 65535))},
            id="all-but-another-range",
        ),
        pytest.param(
            "sip=all,rtp=1-20000", {"rtp": ((1, 20000),), "sip": ((20001, 65535),)}, id="from-1"
        ),
        pytest.param(
            "sip=all,rtp=9-65535,data=all",
            {"rtp": ((9, 65535),), "sip": ((1, 8),), "data": ((1, 65535),)},
            id="to-the-end",
        ),
    ],
)
def test_a_service_port_has_the_range_that_contains_its_number(text, found):
    assert spans(text) == (found, [])


@pytest.mark.parametrize(
    ("text", "port", "note"),
    [
        pytest.param(
            *("ftp=1-9", "", range_without_port("ftp=1-9", ("rtp", "sip", "data"))),
            id="unknown-port",
        ),
        pytest.param(
            "sip=1-9", "sip", range_without_number("sip=1-9", 5060), id="without-its-number"
        ),
        pytest.param(
            "rtp=1-20000,sip=5000-6000",
            "sip",
            range_overlaps("sip=5000-6000", "rtp=1-20000"),
            id="overlap",
        ),
        pytest.param(
            "rtp=all,sip=all", "sip", range_overlaps("sip=all", "rtp=all"), id="all-twice"
        ),
    ],
)
def test_an_ignored_range_has_a_note_on_its_port(text, port, note):
    assert spans(text)[1] == [(port, note)]


def test_a_node_port_has_no_range_and_gets_a_note():
    found, notes = spans("rtp=10000-20000", NODE_PORT)
    assert found == {"rtp": ((10000, 20000),)}
    assert notes == [("rtp", range_without_node_port("rtp=10000-20000", 30000))]


def test_a_port_of_an_unsupported_protocol_has_no_range():
    found, notes = spans("sctp=1-9", ServicePort("sctp", 5, "SCTP"), SIP)
    assert not found
    assert notes == [("", range_without_port("sctp=1-9", ("sip",)))]


def test_ports_have_no_ranges_without_the_annotation():
    assert ranges_of(service()) == ({}, {})


RANGE = "rtp=10000-20000"


@pytest.mark.parametrize(
    ("allowed", "kind", "text", "why"),
    [
        ("cluster-ip", FrontendKind.CLUSTER_IP, RANGE, None),
        ("all", FrontendKind.CLUSTER_IP, "rtp=all", None),
        ("all", FrontendKind.LOAD_BALANCER, RANGE, None),
        ("all", FrontendKind.EXTERNAL_IP, "rtp=all", all_at_external("rtp=all", IP)),
        (
            "all",
            FrontendKind.LOAD_BALANCER,
            "rtp=1-65535",
            all_at_external("rtp=1-65535", IP),
        ),
        (
            "cluster-ip",
            FrontendKind.LOAD_BALANCER,
            RANGE,
            range_not_allowed(RANGE, IP, "cluster-ip"),
        ),
        ("none", FrontendKind.CLUSTER_IP, RANGE, range_not_allowed(RANGE, IP, "none")),
    ],
)
def test_a_flag_determines_which_kinds_of_addresses_serve_ranges(allowed, kind, text, why):
    one = ranges_of(asking(text))[0][RTP]
    assert one.cause_at(kind, IP, NodeFacts(port_ranges=allowed)) == why


@pytest.mark.parametrize("kind", FrontendKind)
@pytest.mark.parametrize(
    ("facts", "whose"),
    [
        ({"addresses": (IP,), "all_node_addresses": {IP}}, "this node"),
        ({"primary_addresses": (IP,)}, "this node"),
        ({"all_node_addresses": {IP}}, "another node"),
    ],
)
def test_a_range_at_an_address_of_a_node_is_rejected(kind, facts, whose):
    one = ranges_of(asking(RANGE))[0][RTP]
    why = one.cause_at(kind, IP, NodeFacts(port_ranges="all", **facts))
    assert why == range_at_node(RANGE, IP, whose)


@pytest.mark.parametrize(("protocol", "is_possible"), [(Protocol.TCP, True), (Protocol.UDP, False)])
def test_udp_ranges_require_the_kernel_path(protocol, is_possible):
    one = ranges_of(asking("rtp=10000-20000"))[0][RTP]
    facts = NodeFacts(no_kernel_path={IPFamily.IPV4: "it needs --steering=nftables"})
    cause = impossible_cause(one, protocol, IPFamily.IPV4, facts)
    assert (cause is None) is is_possible
    assert impossible_cause(one, protocol, IPFamily.IPV6, facts) is None


@pytest.mark.parametrize(
    ("asked", "protocol", "is_possible"),
    [
        ("9950-10049", Protocol.TCP, True),
        ("9950-10050", Protocol.TCP, False),
        ("all", Protocol.TCP, False),
        ("9950-10049", Protocol.UDP, False),
    ],
)
def test_without_range_rules_only_short_tcp_ranges_are_served(asked, protocol, is_possible):
    (one,) = ranges_of(asking(f"10000={asked}", DATA))[0].values()
    facts = NodeFacts(no_kernel_path={IPFamily.IPV4: "nothing", Protocol.TCP: "nothing"})
    assert (impossible_cause(one, protocol, IPFamily.IPV4, facts) is None) is is_possible


def test_only_loopback_addresses_have_ranges_without_steering():
    one = ranges_of(asking(RANGE, DATA, RTP))[0][RTP]
    facts = NodeFacts(no_kernel_path={Protocol.TCP: "nothing"}, allow_loopback_endpoints=True)
    whys = [one.cause_at(FrontendKind.CLUSTER_IP, ip, facts) for ip in (IP, "127.64.0.1", "::1")]
    assert list(map(bool, whys)) == [True, False, False]


@pytest.mark.parametrize(
    ("default", "protocol", "is_possible"),
    [
        (DataPath.USERSPACE, Protocol.UDP, False),
        (DataPath.USERSPACE, Protocol.TCP, True),
        (DataPath.KERNEL, Protocol.UDP, True),
    ],
)
def test_udp_ranges_use_only_paths_allowed_by_the_operator(default, protocol, is_possible):
    one = ranges_of(asking("rtp=10000-20000"))[0][RTP]
    facts = NodeFacts(default_path=default, allowed_paths=(DataPath.USERSPACE,))
    assert (impossible_cause(one, protocol, IPFamily.IPV4, facts) is None) is is_possible


SHARED = {"handling": {"shares_affinity": True}, "affinity_timeout_s": 60}
HOLDS = {"handling": {"shares_affinity": True, "hold": Hold(9.0)}, "affinity_timeout_s": 60}


@pytest.mark.parametrize(
    ("fields", "is_udp_range", "path", "why"),
    [
        pytest.param({}, True, DataPath.KERNEL, WHY_UDP, id="udp"),
        pytest.param({}, False, DataPath.USERSPACE, "", id="other-port"),
        pytest.param(SHARED, False, DataPath.KERNEL, WHY_SHARED, id="shared"),
        pytest.param(HOLDS, False, DataPath.USERSPACE, "", id="shared-but-holds"),
        pytest.param(HOLDS, True, DataPath.KERNEL, WHY_UDP, id="udp-with-hold"),
    ],
)
def test_udp_ranges_and_shared_affinity_without_hold_put_a_port_on_the_kernel_path(
    fields, is_udp_range, path, why
):
    asked = asking("rtp=10000-20000", **fields)
    chosen = choose_range_path(asked, DEFAULT_PATH, "", is_udp_range=is_udp_range)
    assert (chosen.path, chosen.why) == (path, why)


def test_a_service_on_the_kernel_path_stays_on_it_with_a_udp_range():
    kernel = DEFAULT_PATH._replace(path=DataPath.KERNEL, why="asked")
    assert choose_range_path(service(), kernel, "", is_udp_range=True) is kernel


def test_shared_affinity_without_ranges_does_not_change_the_path():
    alone = replace(asking("rtp=10000-20000", **SHARED), handling=Handling(shares_affinity=True))
    assert choose_range_path(alone, DEFAULT_PATH, "", is_udp_range=False) is DEFAULT_PATH


@pytest.mark.parametrize(
    ("target", "why"),
    [
        (10000, ""),
        (1, ""),
        (55535, ""),
        (55536, "55536–65536"),
    ],
)
def test_a_range_moved_above_port_65535_is_rejected(target, why):
    ranges = [DialledRange(IP, 10000, 20000, 10000)]
    moved_out = overflow_reason(ranges, Serving((SocketAddress("192.0.2.1", target),)))
    assert bool(moved_out) is bool(why)
    assert why in moved_out


def test_a_range_that_overflows_only_for_outside_clients_is_rejected():
    inside, outside = (SocketAddress("192.0.2.1", port) for port in (10000, 55536))
    serving = Serving((inside,), outside=(outside,))
    assert "55536–65536" in overflow_reason([DialledRange(IP, 10000, 20000, 10000)], serving)


def test_a_range_moved_below_port_1_is_rejected():
    ranges = [DialledRange(IP, 10000, 20000, 15000)]
    why = overflow_reason(ranges, Serving((SocketAddress("192.0.2.1", 5000),)))
    assert "0–10000" in why
