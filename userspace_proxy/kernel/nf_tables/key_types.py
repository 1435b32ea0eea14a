"""The types of set keys and map values, as ``nft`` numbers them.

The kernel only stores the number; ``nft`` prints elements by it.

Source: nftables, include/datatype.h.
"""

from __future__ import annotations

from typing import NamedTuple

_BITS = 6


class KeyType(NamedTuple):
    """The type of a set's keys or a map's values."""

    number: int
    """By which ``nft`` knows how to print it."""
    width: int


IPV4_ADDR, IPV6_ADDR, ETHER_ADDR = KeyType(7, 4), KeyType(8, 16), KeyType(9, 6)
INET_PROTO, INET_SERVICE, MARK_TYPE = KeyType(12, 1), KeyType(13, 2), KeyType(19, 4)


def joined(*types: KeyType) -> KeyType:
    """Return the type of keys with several parts, each padded to a multiple of four bytes."""
    combined = 0
    for one in types:
        combined = combined << _BITS | one.number
    return KeyType(combined, sum(one.width + -one.width % 4 for one in types))
