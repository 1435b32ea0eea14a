"""Allocates the values of a range to names: cluster IPs and node ports.

    name ──hash──▶ a value of the upper band ──taken?──▶ the next one …──▶ the lower band

Rule 1: values in manifests are taken; other names are assigned values in alphabetical order.
Rule 2: a name has the same value on every node and after every restart, because the value depends
only on the manifests. A new name changes the value of an older name only if their hashes collide
and the new name sorts first (ADR 0077).
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

Value = TypeVar("Value", bound=Hashable)

NAMES_MAX = 65536
"""The maximum number of names cached with hashes and values: each edit allocates all names
again."""


@dataclass(frozen=True, slots=True)
class Pool(Generic[Value]):
    """The values of one range."""

    count: int
    low: int
    """The number of values at the start that are reserved for users, and allocated last."""
    value_at: Callable[[int], Value]
    """Returns the value for a number from 0 to ``count`` - 1."""

    def allocate(self, names: Iterable[str], *, taken: Collection[Value]) -> dict[str, Value]:
        """Return the value of each name; names for which no value is left are missing."""
        used = set(taken)
        allocated: dict[str, Value] = {}
        for name in sorted(set(names)):
            # Of one more candidate than there are used values, one is free: a bound that matters in
            # an IPv6 range of 2⁶⁴ addresses.
            candidates = self._candidates(name, len(used) + 1)
            value = next((value for value in candidates if value not in used), None)
            if value is None:
                break  # No later name gets a value, because the set of used values only grows.
            allocated[name] = value
            used.add(value)
        return allocated

    def _candidates(self, name: str, most: int) -> Iterator[Value]:
        """Yield the values of the upper band, from the name's hash on, then of the lower band."""
        high = self.count - self.low
        start = _number_of(name) % high
        for step in range(min(high, most)):
            yield self.value_at(self.low + (start + step) % high)
        for number in range(min(self.low, most)):
            yield self.value_at(number)


@functools.lru_cache(maxsize=NAMES_MAX)
def _number_of(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest())


def low_band(count: int, *, share: int, most: int) -> int:
    """Return the number of values, out of ``count``, that are reserved for users.

    0 for at most 16 values; otherwise one in ``share``, but at least 16 and at most ``most``.

    Source: KEP-3070 for cluster IPs, KEP-3668 for node ports: min(max(16, count / share), most).
    """
    return 0 if count <= 16 else min(max(16, count // share), most)
