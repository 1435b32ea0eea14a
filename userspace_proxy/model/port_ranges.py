"""Parses ranges of ports that clients dial for one Service port.

    annotation ──read_port_ranges──▶ AskedRange ──policy.port_ranges──▶ Frontend.last, DialledRange

Rule 1: a range contains its Service port's number; each of its ports is forwarded to the same port
of the endpoint, shifted by the difference between ``targetPort`` and ``port``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple

from ..errors import ConfigError
from .quoting import quoted

PORT_MAX = 65_535
RANGES_MAX = 64
"""The maximum number of ranges of a Service: each takes rules and elements for each address."""
_RANGE = re.compile(r"(\d{1,5})-(\d{1,5})", re.ASCII)
_ALL = "all"


@dataclass(frozen=True, slots=True)
class AskedRange:
    """A range that an annotation requests."""

    port: str
    """The Service port's name, or its number."""
    first: int = 1
    last: int = PORT_MAX
    is_all: bool = False
    """Whether the range is all ports of the address and protocol that no other frontend has."""

    @property
    def has_all_ports(self) -> bool:
        return (self.first, self.last) == (1, PORT_MAX)

    def __str__(self) -> str:
        return f"{self.port}={_ALL if self.is_all else f'{self.first}-{self.last}'}"


class DialledRange(NamedTuple):
    """A range of ports at one address, for the data plane."""

    ip: str
    first: int
    last: int
    number: int
    """The Service port's number, which maps to the port number in the slices."""

    def offset(self, ip: str, port: int) -> int | None:
        """Return a dialled port's distance from the Service port; None if it isn't in the range."""
        return port - self.number if self.first <= port <= self.last and ip == self.ip else None


def read_port_ranges(text: str) -> tuple[AskedRange, ...]:
    """Parse ``rtp=10000-20000, passive=30000-30100, game=all``; raises ConfigError."""
    parts = [part.strip() for part in text.split(",")]
    if len(parts) > RANGES_MAX:
        raise ConfigError(f"it has {len(parts)} ranges, and at most {RANGES_MAX} are served")
    found: dict[str, AskedRange] = {}
    for part in parts:
        one = _read_range(part)
        if one.port in found:
            raise ConfigError(f"port {quoted(one.port)} has two ranges")
        found[one.port] = one
    return tuple(found.values())


def _read_range(text: str) -> AskedRange:
    name, _, numbers = (part.strip() for part in text.partition("="))
    if name and numbers == _ALL:
        return AskedRange(name, is_all=True)
    match = _RANGE.fullmatch(numbers)
    if not name or match is None:
        hint = "write PORT=FIRST-LAST, as in rtp=10000-20000, or PORT=all"
        raise ConfigError(f"{quoted(text)} is not a range of ports", hint=hint)
    first, last = map(int, match.groups())
    if not 1 <= first <= PORT_MAX or not 1 <= last <= PORT_MAX:
        raise ConfigError(f"{quoted(text)} is not in 1–{PORT_MAX}")
    if first > last:
        raise ConfigError(f"{quoted(text)} is turned round: write {name}={last}-{first}")
    if first == last:
        raise ConfigError(f"{quoted(text)} is a single port, which needs no range")
    return AskedRange(name, first, last)
