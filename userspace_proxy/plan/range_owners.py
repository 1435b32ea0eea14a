"""Decides which Service port has a range of ports that several claim at one address.

Rule 1: ranges are given in the order of precedence of their claims. One that overlaps a range given
before isn't served at that address; its Service port's own number may be.
Rule 2: a range takes no port from a frontend with a single port: steerings look these up first.
Rule 3: as for frontends, the owner depends only on the claims, never on their order of arrival.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import NamedTuple

from ..model import Frontend, PortKey, Protocol, SocketAddress
from .claims import PortClaim


class RangeAddress(NamedTuple):
    """Where ranges may overlap."""

    protocol: Protocol
    ip: str


Precedence = Callable[[Frontend, PortClaim], tuple[object, ...]]
_Claimed = tuple[Frontend, PortKey]


class RangeOwners:
    """The claims of ranges, and their owners.

    Args:
        precedence: Returns the key by which claims are sorted; the lowest wins.
    """

    def __init__(self, precedence: Precedence) -> None:
        self._precedence = precedence
        self._claims: dict[RangeAddress, dict[_Claimed, PortClaim]] = {}
        self._affected: set[RangeAddress] = set()

    def __bool__(self) -> bool:
        return bool(self._claims)

    def add(self, frontend: Frontend, claim: PortClaim) -> None:
        place = RangeAddress(frontend.protocol, frontend.ip)
        self._claims.setdefault(place, {})[frontend, claim.key] = claim
        self._affected.add(place)

    def discard(self, frontend: Frontend, claim: PortClaim) -> None:
        """Remove a claim; idempotent."""
        place = RangeAddress(frontend.protocol, frontend.ip)
        claims = self._claims.get(place, {})
        if claims.pop((frontend, claim.key), None) is not None:
            self._affected.add(place)
        if not claims:
            self._claims.pop(place, None)

    def take_touched(self) -> set[RangeAddress]:
        """Return the places whose claims have changed since the last call."""
        affected, self._affected = self._affected, set()
        return affected

    def decide(self, place: RangeAddress) -> Iterator[tuple[Frontend, PortClaim, PortClaim | None]]:
        """Yield the claims of a place, each with the claim that it lost to, or None."""
        given: list[tuple[Frontend, PortClaim]] = []
        claims = self._claims.get(place, {})
        in_order = sorted(claims.items(), key=lambda one: self._precedence(one[0][0], one[1]))
        for (frontend, _), claim in in_order:
            lost_to = next((by for has, by in given if _overlap(frontend, has)), None)
            if lost_to is None:
                given.append((frontend, claim))
            yield frontend, claim, lost_to

    def has(self, protocol: Protocol, address: SocketAddress) -> bool:
        """Return whether an address and port are in a range."""
        claims = self._claims.get(RangeAddress(protocol, address.ip), ())
        return any(frontend.port <= address.port <= frontend.last for frontend, _ in claims)


def _overlap(one: Frontend, other: Frontend) -> bool:
    return one.port <= other.last and other.port <= one.last


class ServedAddresses(Collection[SocketAddress]):
    """The addresses that some Service port serves, with those within ranges."""

    def __init__(
        self, single: Collection[SocketAddress], ranges: RangeOwners, protocol: Protocol
    ) -> None:
        self._single, self._ranges, self._protocol = single, ranges, protocol

    def __contains__(self, address: object) -> bool:
        if address in self._single:
            return True
        return isinstance(address, SocketAddress) and self._ranges.has(self._protocol, address)

    def __iter__(self) -> Iterator[SocketAddress]:
        return iter(self._single)

    def __len__(self) -> int:
        return len(self._single)
