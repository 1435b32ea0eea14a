"""Addresses in networks, and networks in networks."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from userspace_proxy.model import IPFamily, contains, intersect, is_loopback, of_family, own_network
from userspace_proxy.model.networks import is_within


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
def test_an_address_is_in_the_networks_or_not(networks, ip, expected):
    assert contains(networks, ip) is expected


@pytest.mark.parametrize(
    ("ip", "expected"),
    [
        pytest.param("192.0.2.1", "192.0.2.1/32", id="ipv4"),
        pytest.param("2001:db8::1", "2001:db8::1/128", id="ipv6"),
    ],
)
def test_an_address_has_a_network_of_its_own(ip, expected):
    assert own_network(ip) == expected


def test_networks_of_one_family_keep_their_order():
    mixed = ("198.51.100.0/24", "2001:db8::/32", "192.0.2.0/24")
    assert of_family(mixed, IPFamily.IPV4) == ("198.51.100.0/24", "192.0.2.0/24")
    assert of_family(mixed, IPFamily.IPV6) == ("2001:db8::/32",)


@pytest.mark.parametrize(
    ("some", "others", "expected"),
    [
        pytest.param(("10.0.0.0/8",), ("10.1.0.0/16",), ("10.1.0.0/16",), id="wide-and-narrow"),
        pytest.param(("10.1.0.0/16",), ("10.0.0.0/8",), ("10.1.0.0/16",), id="narrow-and-wide"),
        pytest.param(("10.0.0.0/8",), ("10.0.0.0/8",), ("10.0.0.0/8",), id="equal-ones-once"),
        pytest.param(("10.0.0.0/8",), ("192.0.2.0/24",), (), id="apart"),
        pytest.param(("0.0.0.0/0",), ("::/0",), (), id="other-family"),
        pytest.param((), ("10.0.0.0/8",), (), id="nothing"),
    ],
)
def test_the_intersection_is_the_smaller_of_each_pair(some, others, expected):
    assert intersect(some, others) == expected


# Few bits, so that networks meet.
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
def test_an_address_is_in_the_intersection_when_it_is_in_both(some, others, ip):
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
def test_a_network_is_within_others_or_not(inner, expected):
    assert is_within(inner, ("192.0.2.0/24", "10.0.0.0/8")) is expected


@pytest.mark.parametrize(
    ("ip", "expected"),
    [("127.0.0.9", True), ("::1", True), ("10.127.0.1", False), ("::12", False)],
)
def test_which_addresses_always_belong_to_the_node(ip, expected):
    assert is_loopback(ip) is expected
