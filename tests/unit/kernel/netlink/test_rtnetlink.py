"""Links, addresses, routes and rules that iproute2 added, as listed by kernel 6.18."""

from __future__ import annotations

import socket

import pytest

from userspace_proxy.kernel.netlink.messages import CREATE, Message, attribute
from userspace_proxy.kernel.netlink.rtnetlink import (
    DEL_ROUTE,
    DO_NOTHING,
    GO_TO,
    LOCAL,
    LOOK_UP,
    NEW_NEIGHBOUR,
    NEW_ROUTE,
    NEW_RULE,
    UNICAST,
    UP,
    ListedAddress,
    ListedLink,
    LocalRoute,
    RouteDetails,
    RoutingRule,
    find_neighbour,
    find_route,
    is_absent,
    list_routes,
    read_address,
    read_link,
    read_route,
    read_rule,
    write_bridge_entry,
    write_local_route,
    write_rule,
)
from userspace_proxy.model.node_network import NodeLink

V4, V6 = socket.AF_INET, socket.AF_INET6
RTA_CACHEINFO = "24000c00" + "00" * 32


def message(text: str) -> Message:
    return Message(0, 0, 0, bytes.fromhex(text.replace(" ", "")))


def body(request: bytes) -> str:
    return request[16:].hex()


def test_the_kind_and_master_of_a_bridge_port_are_parsed():
    info = attribute(1, b"veth\0") + attribute(4, b"bridge\0")
    found = attribute(3, b"v0\0") + attribute(10, b"\3\0\0\0") + attribute(18, info)
    link = message("00000100 05000000 03100000 00000000" + found.hex())
    assert read_link(link) == ListedLink(NodeLink(5, "v0", "veth", 3), UP | 0x1002, "bridge")


def test_the_options_of_a_bridge_are_parsed():
    options = attribute(7, b"\1") + attribute(36, b"\1") + attribute(37, b"\0")
    info = attribute(1, b"bridge\0") + attribute(2, options)
    found = attribute(3, b"br0\0") + attribute(18, info)
    link = read_link(message("00000100 05000000 03100000 00000000" + found.hex())).link
    assert (link.calls_iptables, link.calls_ip6tables, link.filters_vlans) == (True, False, True)


def test_an_isolated_bridge_port_is_recognized():
    info = attribute(1, b"veth\0") + attribute(4, b"bridge\0") + attribute(5, attribute(33, b"\1"))
    found = attribute(3, b"v0\0") + attribute(18, info)
    assert read_link(message("00000100 05000000 03100000 00000000" + found.hex())).link.is_isolated


def test_a_bridge_entry_is_encoded_as_by_iproute2():
    """The command: ``bridge fdb add 06:75:70:72:6f:78 dev br0 self local``."""
    written = write_bridge_entry(NEW_NEIGHBOUR, CREATE, 5, bytes.fromhex("067570726f78"))
    assert body(written) == "0700000005000000800002000a000200067570726f780000"


def test_a_hardware_interface_is_parsed_without_a_kind():
    link = message("00000100 02000000 02100000 00000000" + attribute(3, b"eth0\0").hex())
    assert read_link(link) == ListedLink(NodeLink(2, "eth0", ""), 0x1002, "")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "02208000 03000000 08000100 0a010002 08000200 0a010001 0800080080000000",
            ListedAddress("10.1.0.1", 3, 0, 0x80),
        ),
        (
            "0a408200 02000000 14000100 fd000001 00000000 00000000 00000001 0800080082020000",
            ListedAddress("fd00:1::1", 2, 0, 0x282),
        ),
        ("02088000 01000000 08000100 7f000001", ListedAddress("127.0.0.1", 1, 0, 0x80)),
        ("02180000 01000000", ListedAddress("", 1, 0, 0)),
    ],
    ids=["peer", "ipv6", "loopback", "no-address"],
)
def test_an_address_is_read_as_the_interfaces_local_address(text, expected):
    assert read_address(message(text)) == expected


@pytest.mark.parametrize(
    ("text", "kind", "expected"),
    [
        (
            "02180000fc030001 10000000 08000f00581b0000 080001000a090000 0800060005000000"
            "080007000a010001 080005000a010002 0800040003000000",
            UNICAST,
            RouteDetails("10.9.0.0/24", 7000, 3, 5, "10.1.0.1", True, "10.1.0.2"),
        ),
        (
            "0a400000fe030001 10000000 08000f00fe000000 14000100fd000009000000000000000000000000"
            f"0800060000040000 0800040003000000 {RTA_CACHEINFO} 0500140000000000",
            UNICAST,
            RouteDetails("fd00:9::/64", 254, 3, 0, "", False, ""),
        ),
        (
            "02000000ff75fe02 00000000 0800040001000000",
            LOCAL,
            RouteDetails("0.0.0.0/0", 255, 1, 0, "", False, ""),
        ),
    ],
    ids=["gateway", "ipv6-network", "local"],
)
def test_the_details_of_a_route_are_parsed(text, kind, expected):
    route = read_route(message(text))
    assert route.kind == kind
    assert route.open() == expected


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        (
            "02200000fc000001 00000000 08000f00581b0000 08000e00ffffffff 0500150075000000"
            "0800060005000000 0800180050005000 06001d00ffff0000 0500160006000000 080001000a600701",
            RoutingRule(V4, LOOK_UP, 5, 7000, 117),
        ),
        (
            "0200000000000002 00000000 08000f0000000000 08000e00ffffffff 0500150076000000"
            "070003006c6f0000 0800060076000000 08000a0000100000 0800100000100000 0800040078000000",
            RoutingRule(V4, GO_TO, 118, 0, 118, mark=0x1000, in_interface="lo", target=120),
        ),
        (
            "02000000ff000001 00000000 08000f00ff000000 08000e00ffffffff 0500150002000000",
            RoutingRule(V4, LOOK_UP, 0, 255, 2),
        ),
    ],
    ids=["mark-and-ports", "goto", "default"],
)
def test_the_conditions_and_table_of_a_routing_rule_are_parsed(text, rule):
    assert read_rule(message(text)) == rule


@pytest.mark.parametrize(
    "rule",
    [
        RoutingRule(V6, LOOK_UP, 6, 7000, 117, mark=0x1000),
        RoutingRule(V4, GO_TO, 118, protocol=118, mark=0x1000, in_interface="lo", target=120),
        RoutingRule(V4, DO_NOTHING, 120, protocol=118),
    ],
    ids=["look-up", "goto", "nop"],
)
def test_a_routing_rule_round_trips(rule):
    written = write_rule(NEW_RULE, CREATE, rule)
    assert read_rule(Message(NEW_RULE, 0, 0, written[16:])) == rule


@pytest.mark.parametrize(
    ("network", "source", "text"),
    [
        (
            "10.96.7.1/32",
            "10.1.0.1",
            "022000000075fe0200000000 080001000a600701 0800040001000000 08000f00ff000000"
            "0800060007000000 080007000a010001",
        ),
        ("::/0", "", "0a0000000075000200000000 0800040001000000 08000f00ff000000 0800060007000000"),
    ],
    ids=["address-with-source", "all-of-ipv6"],
)
@pytest.mark.parametrize("kind", [NEW_ROUTE, DEL_ROUTE], ids=["new", "gone"])
def test_a_local_route_is_encoded_as_by_iproute2(kind, network, source, text):
    request = write_local_route(kind, 0, LocalRoute(network, source, metric=7), protocol=117)
    assert (request[4], body(request)) == (kind, text.replace(" ", ""))
    assert read_route(Message(kind, 0, 0, request[16:])).open().network == network


def test_a_listing_can_be_limited_to_a_table_and_a_route_type():
    assert body(list_routes(V4)) == "02" + "00" * 11
    assert body(list_routes(V4, table=7000, kind=LOCAL)) == "0200000000000002" + (
        "00000000" + "08000f00581b0000"
    )


def test_a_route_request_contains_the_looked_up_address():
    assert body(find_route("10.1.0.2")) == "0220" + "00" * 10 + "080001000a010002"


def test_a_neighbour_request_contains_the_address_and_its_link():
    wanted = "02" + "00" * 3 + "07000000" + "00" * 4 + "080001000a010002"
    assert body(find_neighbour("10.1.0.2", 7)) == wanted


@pytest.mark.parametrize("read", [is_absent, read_link, read_address, read_route, read_rule])
def test_a_truncated_message_is_an_error(read):
    with pytest.raises(OSError, match="malformed message"):
        read(message("00"))


@pytest.mark.parametrize(
    ("read", "body"),
    [
        pytest.param(read_link, bytes(16) + attribute(10, b"\1"), id="number"),
        pytest.param(read_address, bytes(8) + attribute(2, b"12345"), id="address"),
        pytest.param(read_rule, bytes(12) + attribute(21, b""), id="protocol"),
    ],
)
def test_a_value_of_the_wrong_length_is_an_error(read, body):
    with pytest.raises(OSError, match="malformed message"):
        read(Message(0, 0, 0, body))


@pytest.mark.parametrize(
    ("length", "value"),
    [
        pytest.param(33, bytes(4), id="prefix-too-long"),
        pytest.param(24, bytes(16), id="other-family"),
    ],
)
def test_a_route_with_an_invalid_network_is_an_error(length, value):
    route = read_route(Message(0, 0, 0, bytes([V4, length, *bytes(10)]) + attribute(1, value)))
    with pytest.raises(OSError, match="malformed message"):
        route.open()
