"""What a node is called and where it stands."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

from .cluster import MAX_NODES
from .node import PODS, Site
from .world import LAN, WORLD_IP


def test_a_nodes_addresses_follow_from_its_number() -> None:
    site = Site(2, "zone-2")
    assert (site.name, site.ip) == ("node-2", IPv4Address("172.30.0.12"))
    assert site.pods == IPv4Network("10.244.2.0/24")


def test_no_two_of_all_nodes_share_anything() -> None:
    sites = [Site(number, "zone-1") for number in range(1, MAX_NODES + 1)]
    assert len({site.ip for site in sites} - {WORLD_IP}) == MAX_NODES
    assert len({site.pods for site in sites}) == MAX_NODES
    assert all(site.ip in LAN and site.pods.subnet_of(PODS) for site in sites)
