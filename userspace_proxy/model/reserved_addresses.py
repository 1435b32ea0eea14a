"""Decides which addresses no endpoint may have in any cluster.

A slice, or a name that a third party's DNS server resolves, could direct this node's dials to the
node itself or to its cloud's metadata service, or bypass the IPv4 checks with an IPv6 form.

Rule 1: one table applies to slices, manifests and names.
Rule 2: networks that some clusters use for pods are reserved only for names.

Source: RFC 6890 and its registries; RFC 6052 (NAT64); RFC 4291; RFC 5737.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from .addresses import pack_ip

# The reserved networks with descriptions; if networks overlap, the first description is used.
_RESERVED: tuple[tuple[str, str], ...] = (
    # Source: the manuals of AWS, Azure, GCP, Oracle, Alibaba Cloud, Scaleway and Linode.
    ("169.254.169.254/32", "the metadata address of clouds"),
    ("169.254.170.2/32", "the metadata address of clouds"),
    ("168.63.129.16/32", "the metadata address of a cloud"),
    ("192.0.0.192/32", "the metadata address of a cloud"),
    ("100.100.100.200/32", "the metadata address of a cloud"),
    # This network also contains EKS Pod Identity, DNS and time. Source: the manual of Amazon VPC.
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
# Reserved networks that clusters use. Source: the manuals of GKE and EKS; RFC 3879.
_OF_CLUSTERS = ("240.0.0.0/4", "fec0::/10")
# The prefix that DNS64 servers use in answers about hosts without IPv6.
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96").network_address.packed[:12]


class _Row(NamedTuple):
    packed: bytes
    """The network's complete bytes."""
    mask: int
    """The mask of the byte after the complete bytes."""
    bits: int
    """The value of the masked bits."""
    words: str
    is_for_names: bool
    """Whether it is reserved only for DNS names; endpoints in slices may have it."""

    def contains(self, packed: bytes) -> bool:
        size = len(self.packed)
        return packed[:size] == self.packed and (
            not self.mask or packed[size] & self.mask == self.bits
        )


def _row(text: str, words: str) -> _Row:
    network = ipaddress.ip_network(text)
    size, more = divmod(network.prefixlen, 8)
    packed = network.network_address.packed
    mask = 0xFF << (8 - more) & 0xFF if more else 0
    bits = packed[size] if more else 0
    return _Row(packed[:size], mask, bits, words, text in _OF_CLUSTERS)


def _by_first_byte(size: int) -> Mapping[int, Sequence[_Row]]:
    """Return the networks of one address size in bytes, by the first byte of their addresses."""
    every = [(ipaddress.ip_network(text), _row(text, words)) for text, words in _RESERVED]
    rows = [row for network, row in every if len(network.network_address.packed) == size]
    found: dict[int, list[_Row]] = {}
    for row in rows:
        for first in range(256):
            is_in = first == row.packed[0] if row.packed else first & row.mask == row.bits
            if is_in:
                found.setdefault(first, []).append(row)
    return found


# Cost: every endpoint of a plan is looked up, and most first bytes have no row.
_ROWS = {size: _by_first_byte(size) for size in (4, 16)}


def reserved_reason(ip: str) -> str:
    """Return why no name may resolve to an address: ``a loopback address``; empty if names may."""
    return next((row.words for row in _rows_of(pack_ip(ip))), "")


def no_endpoint_reason(packed: bytes) -> str:
    """Return why no endpoint may have an address: ``a loopback address``; empty if endpoints may.

    Args:
        packed: As :func:`.pack_ip` returns it. A NAT64 address is judged in both forms.
    """
    why = next((row.words for row in _rows_of(packed) if not row.is_for_names), "")
    if not why and packed[:12] == _NAT64:
        return no_endpoint_reason(packed[12:])
    return why


def _rows_of(packed: bytes) -> Iterator[_Row]:
    rows = _ROWS[len(packed)].get(packed[0])
    return filter(lambda row: row.contains(packed), rows) if rows else iter(())


def behind_nat64(ip: str) -> str:
    """Return the IPv4 address to which NAT64 translates an address; empty if it does not."""
    packed = pack_ip(ip)
    return str(ipaddress.IPv4Address(packed[12:])) if packed[:12] == _NAT64 else ""
