"""Loopback addresses for Services, so that each keeps the port that was asked for."""

from __future__ import annotations

import zlib
from collections.abc import Collection

from ..model import ServiceKey

# 127.64.0.0/10: loopback addresses that no program configures, so that every Service gets an
# address of its own and keeps the port that was asked for.
_FIRST = (127 << 24) | (64 << 16)
_SIZE = 1 << 22


def free_loopback(key: ServiceKey, taken: Collection[str], seed: str) -> str:
    """Return an address of 127.64.0.0/10 for a Service, the same for the same arguments.

    Raises:
        ValueError: All of them are taken.
    """
    start = zlib.crc32(f"{seed}/{key}".encode())
    for step in range(_SIZE):
        number = _FIRST + (start + step) % _SIZE
        ip = ".".join(str(number >> shift & 255) for shift in (24, 16, 8, 0))
        if ip not in taken and not ip.endswith((".0", ".255")):
            return ip
    raise ValueError("all addresses of 127.64.0.0/10 are in use")
