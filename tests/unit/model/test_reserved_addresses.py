"""Tests of the first and last address of each reserved range."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from userspace_proxy.model import pack_ip
from userspace_proxy.model.reserved_addresses import (
    behind_nat64,
    no_endpoint_reason,
    reserved_reason,
)

RANGES = [
    ("169.254.169.254/32", "the metadata address of clouds"),
    ("169.254.170.2/32", "the metadata address of clouds"),
    ("168.63.129.16/32", "the metadata address of a cloud"),
    ("192.0.0.192/32", "the metadata address of a cloud"),
    ("100.100.100.200/32", "the metadata address of a cloud"),
    ("fd00:ec2::23/128", "the metadata address of a cloud"),
    ("fd00:ec2::/32", "the metadata address of a cloud"),
    ("fd00:c1::a9fe:a9fe/128", "the metadata address of a cloud"),
    ("fd00:42::42/128", "the metadata address of a cloud"),
    ("fd00:100::100:200/128", "the metadata address of a cloud"),
    ("fd00:a9fe:a9fe::1/128", "the metadata address of a cloud"),
    ("fd20:ce::254/128", "the metadata address of a cloud"),
    ("0.0.0.0/32", "the unspecified address, which is this node"),
    ("0.0.0.1/32", "an address of this network (0.0.0.0/8)"),
    ("0.128.0.0/9", "an address of this network (0.0.0.0/8)"),
    ("127.0.0.0/8", "a loopback address"),
    ("169.254.0.0/24", "a link-local address"),
    ("169.254.255.0/24", "a link-local address"),
    ("192.0.0.0/25", "an address of protocols (192.0.0.0/24)"),
    ("224.0.0.0/4", "a multicast address"),
    ("255.255.255.255/32", "the broadcast address"),
    ("240.0.0.0/5", "a reserved address (240.0.0.0/4)"),
    ("::/128", "the unspecified address, which is this node"),
    ("::1/128", "a loopback address"),
    ("::ffff:0:0/96", "an IPv4 address written as IPv6"),
    ("::2/128", "an IPv4 address written as IPv6"),
    ("::8000:0/97", "an IPv4 address written as IPv6"),
    ("64:ff9b:1::/48", "an IPv4 address behind NAT64 of local use"),
    ("100::/64", "an address that discards packets"),
    ("2001::/32", "an IPv4 address behind Teredo"),
    ("2002::/16", "an IPv4 address behind 6to4"),
    ("fe80::/10", "a link-local address"),
    ("fec0::/10", "a site-local address"),
    ("ff00::/8", "a multicast address"),
]


OF_CLUSTERS = ["240.0.0.0/4", "fec0::/10"]
OTHERS = ["0.0.0.0/8", "169.254.0.0/16", "192.0.0.0/24", "255.255.255.255/32", "::/96"]
NETWORKS = [text for text, _ in RANGES if not text.startswith(("240.", "fec0:"))] + OTHERS


def edges(network):
    """Return the first and last address of a network, and the addresses next to it."""
    addresses = ipaddress.ip_network(network)
    first, last = int(addresses[0]), int(addresses[-1])
    kind = type(addresses[0])
    beside = (n for n in (first - 1, first, last, last + 1) if 0 <= n < 1 << kind(0).max_prefixlen)
    return [str(kind(n)) for n in beside]


@pytest.mark.parametrize(("network", "words"), RANGES)
def test_the_first_and_last_address_of_a_reserved_range_are_rejected(network, words):
    addresses = ipaddress.ip_network(network)
    assert reserved_reason(str(addresses[0])) == words
    assert reserved_reason(str(addresses[-1])) == words


EDGES = [edge for network in (*NETWORKS, *OF_CLUSTERS) for edge in edges(network)]
INSIDE_NAT64 = st.ip_addresses(v=4).map(
    lambda ip: f"64:ff9b::{int(ip) >> 16:x}:{int(ip) & 65535:x}"
)
IPS = st.ip_addresses().map(str) | st.sampled_from(EDGES) | INSIDE_NAT64


def is_in(ip, networks):
    return any(ipaddress.ip_address(ip) in ipaddress.ip_network(text) for text in networks)


@given(IPS)
def test_addresses_in_reserved_networks_are_rejected_as_endpoints(ip):
    inner = behind_nat64(ip) or ip
    assert bool(reserved_reason(ip)) == is_in(ip, [*NETWORKS, *OF_CLUSTERS])
    assert bool(no_endpoint_reason(pack_ip(ip))) == (is_in(ip, NETWORKS) or is_in(inner, NETWORKS))


def test_a_nat64_address_contains_the_ipv4_address_in_its_last_bytes():
    assert behind_nat64("64:ff9b::7f00:1") == "127.0.0.1"
    assert behind_nat64("64:ff9b::a9fe:a9fe") == "169.254.169.254"


@pytest.mark.parametrize("ip", ["127.0.0.1", "64:ff9b:1::7f00:1", "2001:db8::1"])
def test_an_address_outside_the_nat64_prefix_contains_no_ipv4_address(ip):
    assert behind_nat64(ip) == ""
