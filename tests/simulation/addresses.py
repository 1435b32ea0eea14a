"""Addresses of the simulated network, in both families.

    10.3.200.4  ──▶  fd0a:3:0:c800::4          10.3.0.0/17  ──▶  fd0a:3::/49

Two hosts whose third octet differs are in different /64s.
"""

from __future__ import annotations

import functools
import ipaddress
from collections import Counter
from collections.abc import Mapping

NODE_IP = "10.1.0.1"
# What a client may have anyway where there is too little for all, and its part of what there is.
_FEW, _PART = 16, 8


@functools.cache
def ipv6_of(text: str) -> str:
    """Return the IPv6 address, or network, that stands for one of IPv4."""
    ip, _, length = text.partition("/")
    if ip == "0.0.0.0":
        return "::"
    first, second, third, fourth = ipaddress.IPv4Address(ip).packed
    number = (0xFD00 | first) << 112 | second << 96 | third << 72 | fourth
    address = str(ipaddress.IPv6Address(number))
    if not length:
        return address
    bits = int(length)
    # By where the last octet is that the length reaches.
    return f"{address}/{bits + (16 if bits <= 16 else 32 if bits <= 24 else 96)}"


NODE_IPS = frozenset({NODE_IP, ipv6_of(NODE_IP)})


def alike(ip: str, other: str) -> str:
    """Return an address or network of IPv4, or what stands for it in the family of another one."""
    return ipv6_of(ip) if ":" in other else ip


def network_of(ip: str) -> str:
    """Return what may be one client: an address of IPv4, the /64 of one of IPv6."""
    return str(ipaddress.ip_network((ip, 64), strict=False)) if ":" in ip else ip


def by_network(clients: Mapping[str, int]) -> Counter[str]:
    """Return how many places networks have, by how many clients have."""
    sizes = Counter[str]()
    for ip, held in clients.items():
        sizes[network_of(ip)] += held
    return sizes


def losers(clients: Mapping[str, int], places: int) -> set[str]:
    """Return the clients of which one loses a place.

    It is the one with the most, if that is above its share; otherwise the one with the most in the
    network with the most.
    """
    most = max(clients.values())
    if most > max(_FEW, places // _PART):
        return {ip for ip, held in clients.items() if held == most}
    sizes = by_network(clients)
    largest = {name for name, size in sizes.items() if size == max(sizes.values())}
    found = set[str]()
    for name in largest:
        own = {ip: held for ip, held in clients.items() if network_of(ip) == name}
        found |= {ip for ip, held in own.items() if held == max(own.values())}
    return found
