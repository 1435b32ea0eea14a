"""Attributes in nf_tables' encodings: numbers in network order, nested ones, text.

Source: net/netfilter/nf_tables_api.c (nft_*_policy).
"""

from __future__ import annotations

from collections.abc import Mapping

from ..netlink.messages import NESTED, attribute, read_attributes


def number(kind: int, value: int) -> bytes:
    """Return a 32-bit number as an attribute."""
    return attribute(kind, value.to_bytes(4, "big", signed=value < 0))


def text(kind: int, value: str) -> bytes:
    """Return a name as an attribute."""
    return attribute(kind, value.encode() + b"\0")


def nested(kind: int, value: bytes) -> bytes:
    """Return an attribute that contains attributes."""
    return attribute(kind | NESTED, value)


def read_all(value: bytes, start: int = 0) -> dict[int, bytes]:
    """Return attributes by their kinds, after a fixed part of length ``start``."""
    return dict(read_attributes(value, start))


def number_in(found: Mapping[int, bytes], kind: int, *, is_signed: bool = False) -> int:
    """Return an attribute's number; 0 if it is missing."""
    return int.from_bytes(found.get(kind, b""), "big", signed=is_signed)


def text_in(found: Mapping[int, bytes], kind: int) -> str:
    """Return an attribute's text; empty if it is missing."""
    return found.get(kind, b"").rstrip(b"\0").decode(errors="replace")
