"""Allocates numbered seats to names: the addresses of a range, the node ports.

    name ──hash──▶ a seat of the upper band ──taken?──▶ the next one …──▶ the lower band

Rule 1: seats that are taken, because manifests name them, come first, whichever name had them.
Rule 2: a name keeps its seat until a manifest names that seat.
Rule 3: a name that is removed is remembered, and gets its seat again on return; other names get it
only when no other is left. So no Service loses its address when a file is unreadable for a while.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Set
from typing import Generic, TypeVar

Seat = TypeVar("Seat", bound=Hashable)

ABSENT_MAX = 10_000
"""How many of those that went away are remembered: as many as a large cluster has Services."""


class Pool(Generic[Seat]):
    """The seats of one range.

    Args:
        count: How many there are.
        low: How many at the start are left for people to name, and given out last.
        seat_at: Makes a seat of its number, 0 to ``count`` - 1.
    """

    def __init__(self, count: int, low: int, seat_at: Callable[[int], Seat]) -> None:
        self._count = count
        self._low = low
        self._seat_at = seat_at
        self._given: dict[str, Seat] = {}

    @property
    def given(self) -> Mapping[str, Seat]:
        """Who has which seat: first those that went away, longest ago first."""
        return self._given

    def remember(self, given: Mapping[str, Seat]) -> None:
        """Take over what ``given`` was before a restart; the first name of a seat has it."""
        by_seat: dict[Seat, str] = {}
        for name, seat in given.items():
            by_seat.setdefault(seat, name)
        self._given = {name: seat for seat, name in by_seat.items()}

    def allocate(self, wanting: Iterable[str], *, taken: Collection[Seat]) -> dict[str, Seat]:
        """Return the seat of each name that wants one.

        Args:
            wanting: All of them, each time.
            taken: Seats that nobody is given.

        Returns:
            Without those for whom no seat is left.
        """
        names = sorted(set(wanting))
        used = set(taken)
        kept = {n: s for n in names if (s := self._given.get(n)) is not None and s not in used}
        used.update(kept.values())
        absent = {
            seat: name
            for name, seat in self._given.items()
            if name not in kept and seat not in used
        }
        avoided = used | absent.keys()
        has_others = True
        for name in names:
            if name in kept:
                continue
            seat = self._free(name, avoided) if has_others else None
            if seat is None:
                has_others = False
                seat = self._free(name, used)
            if seat is None:
                break  # Nor is there one for the names behind it: used seats only grow.
            kept[name] = seat
            used.add(seat)
            avoided.add(seat)
            absent.pop(seat, None)
        remembered = [(name, seat) for seat, name in absent.items() if name not in kept]
        self._given = {**dict(remembered[-ABSENT_MAX:]), **kept}
        return kept

    def _free(self, name: str, used: Set[Seat]) -> Seat | None:
        """Probe the upper part from the name's place on, then the lower one."""
        high = self._count - self._low
        start = int.from_bytes(hashlib.sha256(name.encode()).digest()) % high
        # One more than is used always suffices, also in an IPv6 range of 2⁶⁴ addresses.
        steps = len(used) + 1
        for step in range(min(high, steps)):
            seat = self._seat_at(self._low + (start + step) % high)
            if seat not in used:
                return seat
        for offset in range(min(self._low, steps)):
            seat = self._seat_at(offset)
            if seat not in used:
                return seat
        return None


def low_band(count: int, *, share: int, most: int) -> int:
    """Return how many seats at the start are left for people to name.

    Args:
        count: How many there are.
        share: One of so many is left, but at least 16.
        most: And at most so many; nothing in a range of 16 or fewer.

    Source: KEP-3070 for ClusterIPs, KEP-3668 for node ports: min(max(16, count / share), most).
    """
    return 0 if count <= 16 else min(max(16, count // share), most)
