"""Addresses of the simulated network, in both families.

    10.3.200.4  ──▶  fd0a:3:0:c800::4          10.3.0.0/17  ──▶  fd0a:3::/49

Two hosts whose third octet differs are in different /64s.
"""

from __future__ import annotations

import functools
import ipaddress

NODE_IP = "10.1.0.1"


@functools.cache
def ipv6_of(text: str) -> str:
    """Return the IPv6 counterpart of an IPv4 address or network."""
    ip, _, length = text.partition("/")
    if ip == "0.0.0.0":
        return "::"
    first, second, third, fourth = ipaddress.IPv4Address(ip).packed
    number = (0xFD00 | first) << 112 | second << 96 | third << 72 | fourth
    address = str(ipaddress.IPv6Address(number))
    if not length:
        return address
    bits = int(length)
    # The IPv6 prefix length depends on which octet the IPv4 prefix ends in.
    return f"{address}/{bits + (16 if bits <= 16 else 32 if bits <= 24 else 96)}"


NODE_IPS = frozenset({NODE_IP, ipv6_of(NODE_IP)})


def alike(ip: str, other: str) -> str:
    """Return an IPv4 address or network in the family of another address."""
    return ipv6_of(ip) if ":" in other else ip
