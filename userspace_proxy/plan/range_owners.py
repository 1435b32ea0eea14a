"""Decides which of several claims owns a range of ports on one address.

Rule 1: ranges are assigned in the order of precedence of their claims. A range that overlaps an
assigned range isn't served on that address, but the Service port's own number may be.
Rule 2: a frontend with a single port keeps the port even within a range, because steering rules
look up single ports first.
Rule 3: as for frontends, the owner depends only on the claims, never on their order of arrival.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Collection, Iterator
from typing import NamedTuple

from ..model import Frontend, PortKey, Protocol, SocketAddress
from .claims import PortClaim


class RangeAddress(NamedTuple):
    """An IP address and a protocol; only ranges that have both in common can conflict."""

    protocol: Protocol
    ip: str


Precedence = Callable[[Frontend, PortClaim], tuple[object, ...]]
_Claimed = tuple[Frontend, PortKey]


class _Given:
    """The ranges assigned on one address, which don't overlap."""

    def __init__(self) -> None:
        self._firsts: list[int] = []
        """The first ports of the ranges, sorted."""
        self._by_first: dict[int, tuple[Frontend, PortClaim]] = {}

    def add(self, frontend: Frontend, claim: PortClaim) -> None:
        bisect.insort(self._firsts, frontend.port)
        self._by_first[frontend.port] = frontend, claim

    def find(self, first: int, last: int) -> PortClaim | None:
        """Return the claim with the highest range that overlaps these ports, or None."""
        before = bisect.bisect_right(self._firsts, last)
        if not before:
            return None
        frontend, claim = self._by_first[self._firsts[before - 1]]
        return claim if frontend.last >= first else None


_NOTHING = _Given()


class RangeOwners:
    """The claims of ranges, and their owners.

    Args:
        precedence: Returns the key by which claims are sorted; the lowest key wins.
    """

    def __init__(self, precedence: Precedence) -> None:
        self._precedence = precedence
        self._claims: dict[RangeAddress, dict[_Claimed, PortClaim]] = {}
        self._given: dict[RangeAddress, _Given] = {}
        self._holders: dict[RangeAddress, dict[_Claimed, PortKey | None]] = {}
        """The decisions: for each claim, the Service port to which it lost; None if it won."""
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
            self._holders.get(place, {}).pop((frontend, claim.key), None)
        if not claims:
            self._claims.pop(place, None)
            self._given.pop(place, None)
            self._holders.pop(place, None)

    def take_affected(self) -> set[RangeAddress]:
        """Return the addresses whose claims have changed since the last call."""
        affected, self._affected = self._affected, set()
        return affected

    def decide(self, place: RangeAddress) -> Iterator[tuple[Frontend, PortClaim, PortClaim | None]]:
        """Assign an address's ranges; yield the claims that are new, or whose winner has changed.

        Each is followed by its winner; None if it won. Exhaust the iterator: a claim takes 5 µs.
        """
        claims = self._claims.get(place)
        if claims is None:
            return
        given = self._given[place] = _Given()
        holders = self._holders.setdefault(place, {})
        for claimed in sorted(claims, key=lambda one: self._precedence(one[0], claims[one])):
            frontend, claim = claimed[0], claims[claimed]
            lost_to = given.find(frontend.port, frontend.last)
            if lost_to is None:
                given.add(frontend, claim)
            holder = None if lost_to is None else lost_to.key
            if claimed not in holders or holders[claimed] != holder:
                holders[claimed] = holder
                yield frontend, claim, lost_to

    def find(self, protocol: Protocol, address: SocketAddress) -> PortClaim | None:
        """Return the claim to which a range with this address and port was assigned, or None."""
        given = self._given.get(RangeAddress(protocol, address.ip), _NOTHING)
        return given.find(address.port, address.port)


class ServedAddresses(Collection[SocketAddress]):
    """The addresses with an owner; iterating and counting omit the addresses within ranges."""

    def __init__(
        self, single: Collection[SocketAddress], ranges: RangeOwners, protocol: Protocol
    ) -> None:
        self._single, self._ranges, self._protocol = single, ranges, protocol

    def __contains__(self, address: object) -> bool:
        if address in self._single:
            return True
        if not isinstance(address, SocketAddress):
            return False
        return self._ranges.find(self._protocol, address) is not None

    def __iter__(self) -> Iterator[SocketAddress]:
        return iter(self._single)

    def __len__(self) -> int:
        return len(self._single)
