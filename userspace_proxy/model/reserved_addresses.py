"""Addresses to which a name must never lead, whatever the cluster and the node.

Names are resolved by servers that others control. So a name that a user may write could lead this
node's dials to itself, to the metadata of its cloud, or around the checks of IPv4 addresses by one
of their forms in IPv6.

Source: RFC 6890 and its registries; RFC 6052 (NAT64); RFC 4291; RFC 5737.
"""

from __future__ import annotations

import ipaddress

from .addresses import Network

# Of networks that contain each other, the first one's words are used.
_RESERVED: tuple[tuple[str, str], ...] = (
    # Source: the manuals of AWS, Azure, GCP, Oracle, Alibaba Cloud, Scaleway and Linode.
    ("169.254.169.254/32", "the metadata address of clouds"),
    ("169.254.170.2/32", "the metadata address of clouds"),
    ("168.63.129.16/32", "the metadata address of a cloud"),
    ("192.0.0.192/32", "the metadata address of a cloud"),
    ("100.100.100.200/32", "the metadata address of a cloud"),
    # With EKS Pod Identity, DNS and time. Source: the manual of Amazon VPC.
    ("fd00:ec2::/32", "the metadata address of a cloud"),
    ("fd00:c1::a9fe:a9fe/128", "the metadata address of a cloud"),
    ("fd00:42::42/128", "the metadata address of a cloud"),
    ("fd00:100::100:200/128", "the metadata address of a cloud"),
    ("fd00:a9fe:a9fe::1/128", "the metadata address of a cloud"),
    ("fd20:ce::254/128", "the metadata address of a cloud"),
    ("0.0.0.0/32", "the unspecified address, which is this node"),
    ("0.0.0.0/8", "an address of this network (0.0.0.0/8)"),
    ("127.0.0.0/8", "a loopback address"),
    ("169.254.0.0/16", "a link-local address"),
    ("192.0.0.0/24", "an address of protocols (192.0.0.0/24)"),
    ("224.0.0.0/4", "a multicast address"),
    ("255.255.255.255/32", "the broadcast address"),
    ("240.0.0.0/4", "a reserved address (240.0.0.0/4)"),
    ("::/128", "the unspecified address, which is this node"),
    ("::1/128", "a loopback address"),
    ("::ffff:0:0/96", "an IPv4 address written as IPv6"),
    ("::/96", "an IPv4 address written as IPv6"),
    ("64:ff9b:1::/48", "an IPv4 address behind NAT64 of local use"),
    ("100::/64", "an address that discards packets"),
    ("2001::/32", "an IPv4 address behind Teredo"),
    ("2002::/16", "an IPv4 address behind 6to4"),
    ("fe80::/10", "a link-local address"),
    ("fec0::/10", "a site-local address"),
    ("ff00::/8", "a multicast address"),
)
_NETWORKS: tuple[tuple[Network, str], ...] = tuple(
    (ipaddress.ip_network(text), words) for text, words in _RESERVED
)
# Public DNS64 servers, and those of IPv6-only clusters, answer with it for hosts without IPv6.
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


def why_reserved(ip: str) -> str:
    """Return what a reserved address is, as ``a loopback address``; empty if it isn't reserved."""
    address = ipaddress.ip_address(ip)
    for network, words in _NETWORKS:
        if address.version == network.version and address in network:
            return words
    return ""


def behind_nat64(ip: str) -> str:
    """Return the IPv4 address to which NAT64 translates an address; empty if it does not."""
    address = ipaddress.ip_address(ip)
    if address.version == 6 and address in _NAT64:
        return str(ipaddress.IPv4Address(address.packed[-4:]))
    return ""
