"""Tests of parsing, printing and sorting addresses."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from userspace_proxy.model import (
    Frontend,
    FrontendKind,
    IPFamily,
    Protocol,
    SocketAddress,
    contains,
    intersect,
    ip_of,
    is_loopback,
    of_family,
    own_network,
    pack_ip,
    parse_ip,
    port_of,
)
from userspace_proxy.model.addresses import at_port, is_ip, is_within


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        pytest.param("192.0.2.1", "192.0.2.1", id="ipv4"),
        pytest.param("2001:DB8::0001", "2001:db8::1", id="upper-case-and-zeros"),
        pytest.param("2001:db8:0:0:0:0:0:7", "2001:db8::7", id="written-out"),
        pytest.param("::", "::", id="unspecified"),
    ],
)
def test_an_address_is_canonicalized(text, canonical):
    assert parse_ip(text) == canonical


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        pytest.param("10.96.011.012", "10.96.11.12", id="leading-zeros-are-decimal"),
        pytest.param("010.244.000.0005", "10.244.0.5", id="many-leading-zeros"),
        pytest.param("192.0.2.10", "192.0.2.10", id="trailing-zero"),
        pytest.param("::ffff:10.96.1.2", "10.96.1.2", id="ipv4-as-ipv6"),
        pytest.param("::FFFF:0a60:0102", "10.96.1.2", id="ipv4-as-ipv6-in-hex"),
        pytest.param("::ffff:010.96.1.02", "10.96.1.2", id="both"),
        pytest.param("fd00::0000a0:00f0", "fd00::a0:f0", id="zeros-in-hex"),
        pytest.param("10.96.300.1", None, id="number-too-large"),
        pytest.param("10.96.0x1.1", None, id="hexadecimal"),
        pytest.param("0010.96.1", None, id="three-parts"),
        pytest.param(" 10.96.1.2", None, id="space"),
        pytest.param("fe80::1%eth0", None, id="zone"),
    ],
)
def test_stored_addresses_are_parsed_as_kube_proxy_parses_them(text, canonical):
    if canonical is None:
        with pytest.raises(ValueError, match=r"is not an IP address|has a zone"):
            parse_ip(text, strict=False)
    else:
        assert parse_ip(text, strict=False) == canonical


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "'' is not an IP address"),
        ("cart", "'cart' is not an IP address"),
        ("192.0.2.01", "'192.0.2.01' is not an IP address"),
        ("192.0.2", "'192.0.2' is not an IP address"),
        (" 192.0.2.1", "' 192.0.2.1' is not an IP address"),
        ("192.0.2.0/24", "'192.0.2.0/24' is not an IP address"),
        ("fe80::1%eth0", "'fe80::1%eth0' has a zone; write the address alone"),
        ("::ffff:192.0.2.1", "'::ffff:192.0.2.1' is an IPv4 address; write 192.0.2.1"),
    ],
)
def test_text_other_than_an_address_in_strict_notation_is_rejected(text, problem):
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the text is compared below
        parse_ip(text)
    assert str(caught.value) == problem


@given(st.ip_addresses().filter(lambda ip: ip.version == 4 or ip.ipv4_mapped is None))
def test_an_address_is_packed_to_its_bytes(ip):
    canonical = parse_ip(str(ip))
    assert pack_ip(canonical) == ip.packed
    assert ipaddress.ip_address(canonical) == ip
    assert IPFamily.of(canonical) == ip.version


def test_packed_addresses_are_sorted_numerically():
    ips = ["192.0.2.10", "192.0.2.9", "192.0.2.101"]
    assert sorted(ips, key=pack_ip) == ["192.0.2.9", "192.0.2.10", "192.0.2.101"]


@pytest.mark.parametrize(
    ("address", "text", "family"),
    [
        pytest.param(SocketAddress("192.0.2.1", 80), "192.0.2.1:80", IPFamily.IPV4, id="ipv4"),
        pytest.param(
            SocketAddress("2001:db8::1", 80), "[2001:db8::1]:80", IPFamily.IPV6, id="ipv6"
        ),
    ],
)
def test_a_socket_address_prints_with_brackets_around_ipv6(address, text, family):
    assert str(address) == text
    assert address.family is family


def test_a_family_prints_as_in_the_kubernetes_api():
    assert [str(family) for family in IPFamily] == ["IPv4", "IPv6"]
    assert f"{IPFamily.IPV6}" == "IPv6"


def test_a_frontend_may_be_a_range_of_ports():
    ports = Frontend("2001:db8::7", 10, Protocol.UDP, last=20)
    assert str(ports) == "[2001:db8::7]:10–20/UDP"
    assert SocketAddress.read(ports.dialled) == ports.address
    inside = [ports.has(Frontend("2001:db8::7", n, Protocol.UDP)) for n in (9, 10, 20, 21)]
    assert inside == [False, True, True, False]
    assert not ports.has(Frontend("2001:db8::8", 15, Protocol.UDP))
    assert ports != Frontend("2001:db8::7", 10, Protocol.UDP)
    found = [at_port(ports.dialled, port) for port in ("9", "10", "20", "21", "", "rtp", "²")]
    assert found == ["", "[2001:db8::7]:10", "[2001:db8::7]:20", "", "", "", ""]
    assert at_port("[2001:db8::7]:10", "10") == ""


def test_a_frontend_has_an_address_a_protocol_and_a_kind():
    frontend = Frontend("2001:db8::7", 53, Protocol.UDP)
    assert str(frontend) == "[2001:db8::7]:53/UDP"
    assert frontend.address == SocketAddress("2001:db8::7", 53)
    assert frontend.family is IPFamily.IPV6
    assert frontend.kind is FrontendKind.CLUSTER_IP


@pytest.mark.parametrize(
    ("networks", "ip", "expected"),
    [
        pytest.param(("192.0.2.0/24",), "192.0.2.255", True, id="last-of-a-network"),
        pytest.param(("192.0.2.0/24",), "192.0.3.0", False, id="first-after-it"),
        pytest.param(("198.51.100.0/24", "192.0.2.0/24"), "192.0.2.1", True, id="in-the-second"),
        pytest.param(("192.0.2.7/32",), "192.0.2.7", True, id="network-of-one"),
        pytest.param(("0.0.0.0/0",), "2001:db8::1", False, id="all-of-the-other-family"),
        pytest.param(("::/0",), "2001:db8::1", True, id="all-of-ipv6"),
        pytest.param((), "192.0.2.1", False, id="no-network"),
    ],
)
def test_contains_is_true_if_any_of_the_networks_includes_the_address(networks, ip, expected):
    assert contains(networks, ip) is expected


@pytest.mark.parametrize(
    ("ip", "expected"),
    [
        pytest.param("192.0.2.1", "192.0.2.1/32", id="ipv4"),
        pytest.param("2001:db8::1", "2001:db8::1/128", id="ipv6"),
    ],
)
def test_own_network_returns_a_network_with_only_the_address(ip, expected):
    assert own_network(ip) == expected


def test_of_family_returns_the_networks_of_a_family_in_order():
    mixed = ("198.51.100.0/24", "2001:db8::/32", "192.0.2.0/24")
    assert of_family(mixed, IPFamily.IPV4) == ("198.51.100.0/24", "192.0.2.0/24")
    assert of_family(mixed, IPFamily.IPV6) == ("2001:db8::/32",)


@pytest.mark.parametrize(
    ("some", "others", "expected"),
    [
        pytest.param(("10.0.0.0/8",), ("10.1.0.0/16",), ("10.1.0.0/16",), id="wide-and-narrow"),
        pytest.param(("10.1.0.0/16",), ("10.0.0.0/8",), ("10.1.0.0/16",), id="narrow-and-wide"),
        pytest.param(("10.0.0.0/8",), ("10.0.0.0/8",), ("10.0.0.0/8",), id="equal"),
        pytest.param(("10.0.0.0/8",), ("192.0.2.0/24",), (), id="apart"),
        pytest.param(("0.0.0.0/0",), ("::/0",), (), id="other-family"),
        pytest.param((), ("10.0.0.0/8",), (), id="nothing"),
    ],
)
def test_the_intersection_contains_the_smaller_of_two_overlapping_networks(some, others, expected):
    assert intersect(some, others) == expected


# All networks are in one /24, so that many of them overlap.
IPS = st.integers(0, 255).map(lambda n: ipaddress.ip_address(0x0A000000 + n))
NETWORKS = st.lists(
    st.builds(
        lambda ip, bits: str(ipaddress.ip_network((ip, bits), strict=False)),
        IPS,
        st.integers(24, 32),
    ),
    max_size=3,
)


@given(NETWORKS, NETWORKS, IPS.map(str))
def test_an_intersection_contains_exactly_the_shared_addresses(some, others, ip):
    both = contains(some, ip) and contains(others, ip)
    assert contains(intersect(some, others), ip) is both


@pytest.mark.parametrize(
    ("inner", "expected"),
    [
        pytest.param("10.1.0.0/16", True, id="smaller"),
        pytest.param("10.0.0.0/8", True, id="the-same"),
        pytest.param("0.0.0.0/0", False, id="wider"),
        pytest.param("::/0", False, id="other-family"),
    ],
)
def test_is_within_is_true_if_a_network_contains_the_other(inner, expected):
    assert is_within(inner, ("192.0.2.0/24", "10.0.0.0/8")) is expected


@pytest.mark.parametrize(
    ("ip", "expected"),
    [("127.0.0.9", True), ("::1", True), ("10.127.0.1", False), ("::12", False)],
)
def test_is_loopback_is_true_only_for_loopback_addresses(ip, expected):
    assert is_loopback(ip) is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("192.0.2.1", True),
        ("2001:db8::7", True),
        ("192.0.2.1.example.com", False),
        ("192.0.2.1:80", False),
        ("", False),
    ],
)
def test_is_ip_is_true_only_for_a_plain_address(text, expected):
    assert is_ip(text) is expected


@pytest.mark.parametrize("text", ["10.96.7.1:80", "[fd00::1]:80"])
def test_a_socket_address_round_trips(text):
    assert str(SocketAddress.read(text)) == text
    assert SocketAddress.read(text).ip == ip_of(text)
    assert port_of(text) == str(SocketAddress.read(text).port)


def test_text_without_a_port_is_not_a_socket_address():
    assert ip_of("shop/web") == ""
    with pytest.raises(ValueError, match="shop"):
        SocketAddress.read("shop/web")


@pytest.mark.parametrize(
    ("protocol", "last", "is_udp_range"),
    [(Protocol.UDP, 90, True), (Protocol.UDP, 0, False), (Protocol.TCP, 90, False)],
)
def test_only_a_range_of_udp_ports_counts_as_a_udp_range(protocol, last, is_udp_range):
    assert Frontend("10.96.0.10", 80, protocol, last=last).is_udp_range is is_udp_range
