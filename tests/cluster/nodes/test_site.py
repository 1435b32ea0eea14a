"""What a node is called and where it stands."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network

import pytest

from .cluster import MAX_NODES
from .families import FAMILIES, IPV4, IPV6, Family, host_port
from .node import Site

UNIQUE_LOCAL = ip_network("fd00::/8")


def test_a_nodes_addresses_follow_from_its_number() -> None:
    site = Site(2, "zone-2", FAMILIES["dual"])
    assert site.name == "node-2"
    assert site.ips == [IPv4Address("172.30.0.12"), IPv6Address("fd00:172:30::c")]
    assert site.pods == [IPv4Network("10.244.2.0/24"), IPv6Network("fd00:10:244:2::/64")]


def test_a_node_object_has_the_range_of_the_primary_family_first() -> None:
    spec = Site(1, "zone-1", (IPV6, IPV4)).document()["spec"]
    assert spec == {
        "podCIDR": "fd00:10:244:1::/64",
        "podCIDRs": ["fd00:10:244:1::/64", "10.244.1.0/24"],
    }


@pytest.mark.parametrize("family", [IPV4, IPV6], ids=lambda family: family.name)
def test_no_two_of_all_nodes_share_anything(family: Family) -> None:
    sites = [Site(number, "zone-1", (family,)) for number in range(1, MAX_NODES + 1)]
    ips = {ip for site in sites for ip in site.ips}
    pods = {network for site in sites for network in site.pods}
    assert len(ips - {family.world}) == len(pods) == MAX_NODES
    assert all(ip in family.lan for ip in ips)
    assert not any(one.overlaps(family.services) or one.overlaps(family.lan) for one in pods)
    assert all(network.network_address in family.pods for network in pods)


def test_every_ipv6_range_of_the_cluster_is_unique_local() -> None:
    assert all(network[0] in UNIQUE_LOCAL for network in (IPV6.lan, IPV6.pods, IPV6.services))


@pytest.mark.parametrize(
    ("family", "flag"),
    [pytest.param(IPV4, "0.0.0.0:1", id="IPv4"), pytest.param(IPV6, "[::]:1", id="IPv6")],
)
def test_a_flag_has_ipv6_addresses_in_brackets(family: Family, flag: str) -> None:
    assert host_port(family.wildcard, 1) == flag
