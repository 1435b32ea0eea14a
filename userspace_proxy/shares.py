"""Divides a bounded resource among holders, some of which may be left out.

    amount of each holder ──▶ smallest first, up to the room of its namespace ──▶ granted
                                  └── beyond it: left out
    all namespaces exceed the bound ──▶ each gets an equal share; the unused rest of a share
    is divided among namespaces that need more

Rule 1: while there is room, a namespace may use its whole bound.
Rule 2: no namespace is cut in favour of a namespace with more than an equal share, and no holder in
favour of a larger holder in its namespace.
Rule 3: the result depends only on the amounts, so it is the same on all nodes.
Rule 4: the cost of a change is proportional to the changed holders; if a bound is exceeded, to all
holders of the namespaces above it.
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
    """A holder of an amount, such as a Service; holders can be compared."""

    @property
    def namespace(self) -> str:
        """The namespace whose share the holder uses."""


H = TypeVar("H", bound=Namespaced)


def add_to(amounts: dict[G, dict[K, int]], group: G, holder: K, more: int) -> None:
    """Add to the amount of a holder in a group; remove the holder if the amount becomes 0."""
    own = amounts.setdefault(group, {})
    own[holder] = own.get(holder, 0) + more
    if not own[holder]:
        remove_from(amounts, group, holder)


def remove_from(groups: MutableMapping[G, D], group: G, holder: object) -> None:
    """Remove a holder from its group, and the group if it is then empty."""
    own = groups[group]
    del own[holder]
    if not own:
        del groups[group]


class Amounts(Generic[G, K]):
    """The amounts of holders, summed by group; all are above 0."""

    def __init__(self) -> None:
        self.total = 0
        self.of_group: Counter[G] = Counter()
        self.holders: dict[G, dict[K, int]] = {}
        """Holders by group, in the order in which they were added."""

    def of(self, group: G, holder: K) -> int:
        return self.holders.get(group, {}).get(holder, 0)

    def put(self, group: G, holder: K, amount: int) -> None:
        """Set a holder's amount; 0 removes it. Idempotent."""
        change = amount - self.of(group, holder)
        add_to(self.holders, group, holder, change)
        self.total += change
        self.of_group[group] += change
        if group not in self.holders:
            del self.of_group[group]


class BySize(Generic[K]):
    """The amounts of holders; the holders of the largest amount are found without a search."""

    __slots__ = ("_holders", "amounts", "most", "total")

    def __init__(self) -> None:
        self.amounts: dict[K, int] = {}
        """The amounts by holder; all are above 0."""
        self.total = 0
        self.most = 0
        """The largest amount; 0 without holders."""
        self._holders: dict[int, dict[K, None]] = {}

    @property
    def largest(self) -> dict[K, None]:
        """The holders with the largest amount, in the order of reaching it; there must be one."""
        return self._holders[self.most]

    def add(self, holder: K, more: int) -> None:
        self.put(holder, self.amounts.get(holder, 0) + more)

    def put(self, holder: K, amount: int) -> None:
        """Set a holder's amount; 0 removes it."""
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
    """The shares of one resource.

    Args:
        of_namespace: The bound for all holders of a namespace together.
        of_node: The bound for all holders together.
        are_divisible: Whether a holder may be granted part of its amount.
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
        """The total demand, with each namespace's demand capped at its bound."""
        self._left_out: dict[str, dict[H, int]] = {}
        """The amounts granted to left-out holders, by namespace."""

    def granted(self, holder: H) -> int:
        """Return how much of its amount a holder is granted: all, 0, or the part that fits."""
        namespace = holder.namespace
        left_out = self._left_out.get(namespace, {})
        return left_out.get(holder, self._wanted.of(namespace, holder))

    def is_left_out(self, holder: H) -> bool:
        """Return whether a holder is granted less than its amount."""
        return holder in self._left_out.get(holder.namespace, ())

    def change(self, amounts: Mapping[H, int]) -> set[H]:
        """Update the amounts of some holders; 0 removes a holder.

        Returns:
            The holders that are newly left out, no longer left out, or granted another amount.
        """
        was_scarce = self._demand > self._of_node
        affected: set[str] = set()
        for holder, amount in amounts.items():
            namespace = holder.namespace
            if amount != self._wanted.of(namespace, holder):
                affected.add(namespace)
                before = min(self._wanted.of_group[namespace], self._of_namespace)
                self._wanted.put(namespace, holder, amount)
                self._demand += min(self._wanted.of_group[namespace], self._of_namespace) - before
        is_scarce = self._demand > self._of_node
        if affected and (was_scarce or is_scarce):
            affected.update(self._wanted.holders)
        moved: set[H] = set()
        left = self._of_node
        in_order = sorted(affected, key=lambda name: (self._wanted.of_group[name], name))
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
        """Divide a namespace's room among its holders; return the used amount."""
        if self._wanted.of_group[namespace] <= room:
            return self._wanted.of_group[namespace]
        rows = sorted((amount, one) for one, amount in self._wanted.holders[namespace].items())
        # Store the holders in order, so that the next sort costs one comparison per holder.
        self._wanted.holders[namespace] = {holder: amount for amount, holder in rows}
        sums = list(accumulate((amount for amount, _ in rows), initial=0))
        fitting = bisect_right(sums, room) - 1
        left_out = self._left_out[namespace] = {holder: 0 for _, holder in rows[fitting:]}
        if not self._are_divisible:
            return sums[fitting]
        left_out[rows[fitting][1]] = int(room) - sums[fitting]
        return int(room)
