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
from bisect import bisect_right
from collections import Counter
from collections.abc import Hashable, Mapping, MutableMapping
from itertools import accumulate
from typing import Any, Generic, Protocol, TypeVar

G = TypeVar("G", bound=Hashable)
K = TypeVar("K", bound=Hashable)
D = TypeVar("D", bound=MutableMapping[Any, Any])


class Namespaced(Hashable, Protocol):
    """What has an amount, such as a Service; holders have an order."""

    @property
    def namespace(self) -> str:
        """The namespace from whose share it takes."""


H = TypeVar("H", bound=Namespaced)


def add_to(amounts: dict[G, dict[K, int]], group: G, holder: K, more: int) -> None:
    """Add to the amount of a holder in a group; those without one aren't kept."""
    own = amounts.setdefault(group, {})
    own[holder] = own.get(holder, 0) + more
    if not own[holder]:
        remove_from(amounts, group, holder)


def remove_from(groups: MutableMapping[G, D], group: G, holder: object) -> None:
    """Remove a holder from its group, and the group with its last one."""
    own = groups[group]
    del own[holder]
    if not own:
        del groups[group]


class Amounts(Generic[G, K]):
    """What each holder has, added up by group; none is 0."""

    def __init__(self) -> None:
        self.total = 0
        self.of_group: Counter[G] = Counter()
        self.holders: dict[G, dict[K, int]] = {}
        """By group; the one that was added last is the last."""

    def of(self, group: G, holder: K) -> int:
        return self.holders.get(group, {}).get(holder, 0)

    def put(self, group: G, holder: K, amount: int) -> None:
        """Set what a holder has; 0: it is gone. Idempotent."""
        change = amount - self.of(group, holder)
        add_to(self.holders, group, holder, change)
        self.total += change
        self.of_group[group] += change
        if group not in self.holders:
            del self.of_group[group]


class BySize(Generic[K]):
    """What each holder has, of which the largest are found without a search."""

    __slots__ = ("_holders", "amounts", "most", "total")

    def __init__(self) -> None:
        self.amounts: dict[K, int] = {}
        """None is 0."""
        self.total = 0
        self.most = 0
        """What the largest have; it falls by one at a time."""
        self._holders: dict[int, dict[K, None]] = {}

    @property
    def largest(self) -> dict[K, None]:
        """Those that have the most; the one that has had as much for longest is the first."""
        return self._holders[self.most]

    def put(self, holder: K, amount: int) -> None:
        """Set what a holder has; 0: it is gone."""
        before = self.amounts.pop(holder, 0)
        self.total += amount - before
        if before:
            remove_from(self._holders, before, holder)
        if amount:
            self.amounts[holder] = amount
            self._holders.setdefault(amount, {})[holder] = None
        self.most = max(self.most, amount)
        while self.most and self.most not in self._holders:
            self.most -= 1


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
        self._of_namespace = of_namespace
        self._of_node = of_node
        self._are_divisible = are_divisible
        self._wanted = Amounts[str, H]()
        self._demand = 0.0
        """The total of all, in each namespace as far as it may have."""
        self._left_out: dict[str, dict[H, int]] = {}
        """What those holders get, by namespace."""

    def granted(self, holder: H) -> int:
        """Return how much a holder gets: all that it wants, none, or the last part of the room."""
        namespace = holder.namespace
        left_out = self._left_out.get(namespace, {})
        return left_out.get(holder, self._wanted.of(namespace, holder))

    def is_left_out(self, holder: H) -> bool:
        """Return whether a holder gets less than it wants."""
        return holder in self._left_out.get(holder.namespace, ())

    def change(self, amounts: Mapping[H, int]) -> set[H]:
        """Take the amounts that some holders want now; 0: it is gone.

        Returns:
            The holders that are left out now and weren't before, or the reverse, and others of
            which another part is.
        """
        was_scarce = self._demand > self._of_node
        touched: set[str] = set()
        for holder, amount in amounts.items():
            namespace = holder.namespace
            if amount != self._wanted.of(namespace, holder):
                touched.add(namespace)
                before = min(self._wanted.of_group[namespace], self._of_namespace)
                self._wanted.put(namespace, holder, amount)
                self._demand += min(self._wanted.of_group[namespace], self._of_namespace) - before
        is_scarce = self._demand > self._of_node
        if touched and (was_scarce or is_scarce):
            touched.update(self._wanted.holders)
        moved: set[H] = set()
        left = self._of_node
        in_order = sorted(touched, key=lambda name: (self._wanted.of_group[name], name))
        for others, namespace in enumerate(in_order):
            room = left // (len(in_order) - others) if is_scarce else math.inf
            was = self._left_out.pop(namespace, {})
            left -= self._divide(namespace, min(room, self._of_namespace))
            now = self._left_out.get(namespace, {})
            moved |= was.keys() ^ now.keys()
            if self._are_divisible:
                both = was.keys() & now.keys() - amounts.keys()
                moved.update(holder for holder in both if was[holder] != now[holder])
        return moved

    def _divide(self, namespace: str, room: float) -> int:
        """Give a namespace that room, and return how much of it is taken."""
        if self._wanted.of_group[namespace] <= room:
            return self._wanted.of_group[namespace]
        rows = sorted((amount, one) for one, amount in self._wanted.holders[namespace].items())
        # In order already at the next change, which then costs a comparison for each.
        self._wanted.holders[namespace] = {holder: amount for amount, holder in rows}
        sums = list(accumulate((amount for amount, _ in rows), initial=0))
        fitting = bisect_right(sums, room) - 1
        left_out = self._left_out[namespace] = {holder: 0 for _, holder in rows[fitting:]}
        if not self._are_divisible:
            return sums[fitting]
        left_out[rows[fitting][1]] = int(room) - sums[fitting]
        return int(room)
