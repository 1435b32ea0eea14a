"""Allocates the values of a range to names: cluster IPs and node ports.

    name ──hash──▶ a value of the upper band ──taken?──▶ the next one …──▶ the lower band

Rule 1: values that manifests name are taken; the other names get theirs in alphabetical order.
Rule 2: equal names get equal values on every node and after every restart, because nothing else
counts. A new name moves an older one only if their hashes meet and it sorts before it (ADR 0077).
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

Value = TypeVar("Value", bound=Hashable)

NAMES_MAX = 65536
"""Whose hashes and values are cached, because each edit allocates to all names anew."""


@dataclass(frozen=True, slots=True)
class Pool(Generic[Value]):
    """The values of one range."""

    count: int
    low: int
    """How many at the start are left for users to choose, and allocated last."""
    value_at: Callable[[int], Value]
    """Returns a value by its number, 0 to ``count`` - 1."""

    def allocate(self, names: Iterable[str], *, taken: Collection[Value]) -> dict[str, Value]:
        """Return the value of each name; names for which none is left are missing."""
        used = set(taken)
        allocated: dict[str, Value] = {}
        for name in sorted(set(names)):
            # One more than is used always suffices, also in an IPv6 range of 2⁶⁴ addresses.
            candidates = self._candidates(name, len(used) + 1)
            value = next((value for value in candidates if value not in used), None)
            if value is None:
                break  # Nor is there one for the names after it: used values only grow.
            allocated[name] = value
            used.add(value)
        return allocated

    def _candidates(self, name: str, most: int) -> Iterator[Value]:
        """Yield the upper band from the name's hash on, then the lower one."""
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
    """Return how many of ``count`` values are left for users to choose.

    None in a range of 16 or fewer, otherwise one of ``share``, but 16 to ``most``.

    Source: KEP-3070 for cluster IPs, KEP-3668 for node ports: min(max(16, count / share), most).
    """
    return 0 if count <= 16 else min(max(16, count // share), most)
