"""Shares of what has a bound: how much of it each holder gets, and which holders are left out.

    amount of each holder ──▶ smallest first, up to the room of its namespace ──▶ granted
                                  └── beyond it: left out
    all namespaces want more than there is ──▶ each has the room of an equal share; what one
                                               leaves of it is for those that want more

Rule 1: while there is room, a namespace may have all of its bound.
Rule 2: no namespace loses to another one with more than an equal share, and no holder to a larger
one of its namespace.
Rule 3: the answer depends on the amounts alone, so it is the same on all nodes.
Rule 4: a change costs as much as it has holders. Beyond a bound it costs as much as the namespaces
that want too much have holders.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from typing import Generic, NamedTuple, Protocol, TypeVar


class Namespaced(Protocol):
    """What has an amount, such as a Service; holders have an order."""

    @property
    def namespace(self) -> str:
        """The namespace from whose share it takes."""


H = TypeVar("H", bound=Namespaced)


class _Cut(NamedTuple, Generic[H]):
    """Where the room of a namespace ends."""

    amount: int
    """That of the first holder that is left out."""
    holder: H
    rest: int
    """What that one may have anyway."""


class Shares(Generic[H]):
    """The shares of one thing.

    Args:
        of_namespace: What all holders of a namespace may have together.
        of_node: What all holders may have together.
        are_divisible: Whether a holder may have a part of what it wants.
    """

    def __init__(
        self,
        *,
        of_namespace: float = math.inf,
        of_node: float = math.inf,
        are_divisible: bool = False,
    ) -> None:
        self.totals: dict[str, int] = {}
        """What all holders of a namespace want; none is 0."""
        self._of_namespace = of_namespace
        self._of_node = of_node
        self._are_divisible = are_divisible
        self._wanted = 0
        """The total of all, in each namespace as far as it may have."""
        self._amounts: dict[str, dict[H, int]] = {}
        self._cuts: dict[str, _Cut[H]] = {}
        """Of the namespaces of which something is left out."""
        self._sorted: dict[str, list[tuple[int, H]]] = {}
        """The holders of these, the smallest first."""

    def granted(self, holder: H) -> int:
        """Return how much a holder gets: all that it wants, none, or the last part of the room."""
        amount = self._amounts.get(holder.namespace, {}).get(holder, 0)
        cut = self._cuts.get(holder.namespace)
        if cut is None or (amount, holder) < cut[:2]:
            return amount
        return cut.rest if holder == cut.holder else 0

    def is_left_out(self, holder: H) -> bool:
        """Return whether a holder gets less than it wants."""
        cut = self._cuts.get(holder.namespace)
        if cut is None:
            return False
        return (self._amounts[holder.namespace].get(holder, 0), holder) >= cut[:2]

    def change(self, amounts: Mapping[H, int]) -> set[H]:
        """Take the amounts that some holders want now; 0: it is gone.

        Returns:
            The holders that are left out now and weren't before, or the reverse, and those of which
            another part is.
        """
        was_scarce = self._wanted > self._of_node
        were_left_out: dict[str, dict[H, bool]] = {}
        for holder, amount in amounts.items():
            if amount != self._amounts.get(holder.namespace, {}).get(holder, 0):
                of = were_left_out.setdefault(holder.namespace, {})
                of[holder] = self.is_left_out(holder)
        for namespace, changed in were_left_out.items():
            self._note(namespace, {holder: amounts[holder] for holder in changed})
        is_scarce = self._wanted > self._of_node
        moved: set[H] = set()
        if were_left_out and (was_scarce or is_scarce):
            left = self._of_node
            some = {**dict.fromkeys(were_left_out, 0), **self.totals}
            in_order = sorted(some, key=lambda name: (some[name], name))
            for others, namespace in enumerate(in_order):
                room = left // (len(in_order) - others) if is_scarce else math.inf
                left -= self._divide(namespace, room, moved)
        else:
            for namespace in were_left_out:
                self._divide(namespace, math.inf, moved)
        for changed in were_left_out.values():
            for holder, was_left_out in changed.items():
                if self.is_left_out(holder) is was_left_out:
                    moved.discard(holder)
                else:
                    moved.add(holder)
        return moved

    def _note(self, namespace: str, changed: Mapping[H, int]) -> None:
        amounts = self._amounts.setdefault(namespace, {})
        before = total = self.totals.get(namespace, 0)
        for holder, amount in changed.items():
            total += amount - amounts.pop(holder, 0)
            if amount:
                amounts[holder] = amount
        self.totals[namespace] = total
        self._wanted += int(min(total, self._of_namespace) - min(before, self._of_namespace))
        if namespace in self._sorted:
            rows = [row for row in self._sorted[namespace] if row[1] not in changed]
            rows += [(amount, holder) for holder, amount in changed.items() if amount]
            # Nearly in order already: this costs a comparison for each.
            rows.sort()
            self._sorted[namespace] = rows
        if not amounts:
            del self._amounts[namespace], self.totals[namespace]

    def _divide(self, namespace: str, room: float, moved: set[H]) -> int:
        """Give a namespace that room, and return how much of it is taken.

        Args:
            moved: Gets the holders for which that makes a difference, if their amounts are as
                before.
        """
        room, total = min(room, self._of_namespace), self.totals.get(namespace, 0)
        before = self._cuts.pop(namespace, None)
        if total <= room and before is None:
            return total
        rows = self._sorted.get(namespace)
        if rows is None:
            of = self._amounts[namespace]
            rows = self._sorted[namespace] = sorted((of[holder], holder) for holder in of)
        taken, now = 0, None
        for amount, holder in rows if total > room else ():
            if taken + amount > room:
                rest = int(room) - taken if self._are_divisible else 0
                now = self._cuts[namespace] = _Cut(amount, holder, rest)
                break
            taken += amount
        moved.update(_between(rows, before, now))
        if now is None:
            del self._sorted[namespace]
            return total
        return taken + now.rest


def _between(rows: list[tuple[int, H]], before: _Cut[H] | None, now: _Cut[H] | None) -> Iterator[H]:
    """Yield the holders that only one of two cuts leaves out, or of which each leaves its part."""
    first, last = sorted(bisect_left(rows, cut[:2]) if cut else len(rows) for cut in (before, now))
    yield from (holder for _, holder in rows[first:last])
    for cut, other in ((before, now), (now, before)):
        if cut and cut.rest and cut != other:
            yield cut.holder
