"""IPv6 addresses in one network, each the counterpart of an IPv4 address of a plan."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from functools import lru_cache

_BASE = int(ipaddress.IPv6Address("fd00::"))
_LOOPBACK = {"127.0.0.1": "::1"}
# The difference in bits between an IPv4 prefix's length and that of its IPv6 counterpart.
_MORE_BITS = 96


def is_six(text: str) -> bool:
    """Return whether an address or a network is IPv6."""
    return ":" in text


@lru_cache(maxsize=1024)
def six(text: str) -> str:
    """Return the IPv6 counterpart of an IPv4 address or network."""
    ip, _, bits = text.partition("/")
    found = _LOOPBACK.get(ip) or str(ipaddress.IPv6Address(_BASE + int(ipaddress.IPv4Address(ip))))
    return f"{found}/{_MORE_BITS + int(bits)}" if bits else found


def like(ip: str, other: str) -> str:
    """Return an IPv4 address, or its IPv6 counterpart if the other address is IPv6."""
    return six(ip) if is_six(other) else ip


def with_six(texts: Iterable[str]) -> tuple[str, ...]:
    """Return addresses or networks with their IPv6 counterparts; keep other words."""
    fours = tuple(texts)
    return (*fours, *(six(text) for text in fours if "." in text))
