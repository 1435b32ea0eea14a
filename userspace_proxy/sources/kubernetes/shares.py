"""Limits the memory for objects of one kind in each namespace, and counts omitted objects.

    object ──weight──▶ does it fit into its namespace's share? ──▶ kept
                       └─ no: left out and counted, and the namespace is full

Rule 1: a kept object stays as long as it fits, so in a full namespace, events and lists don't
change which objects are used.
Rule 2: a full namespace accepts no more objects until an eighth of its share is free. Objects that
are left out are only counted: a list finds them again.
Rule 3: namespaces don't affect each other.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from ...shares import Amounts

Key = tuple[str, str]
"""Namespace (empty for a Node) and name."""

SHARE_BYTES = 48 << 20
"""The share of one namespace and kind: 7,500 Services with one port, or 190,000 endpoints."""
OBJECT_BYTES = 1024
SERVICE_BYTES = 5 * 1024
"""The additional memory for a Service: its plan, a listener, its status."""
PART_BYTES = 256
"""The maximum memory of an endpoint, a port, a pair in a selector, or an address."""
NAME_BYTES = 64
"""The number of characters of an endpoint's names that PART_BYTES includes."""


class Excess(NamedTuple):
    """Objects that aren't used because their namespace is full."""

    objects: int = 0
    size: int = 0
    """The size of the objects as JSON, in bytes."""

    def plus(self, objects: int, size: int) -> Excess:
        """Return a copy to which both arguments are added; no number is less than 0."""
        return Excess(max(0, self.objects + objects), max(0, self.size + size))


NOTHING = Excess()


class ObjectShares:
    """The shares of all namespaces, for one kind.

    Args:
        limit: The size of each share in bytes.
    """

    def __init__(self, limit: int = SHARE_BYTES) -> None:
        self.limit = limit
        self._kept = Amounts[str, str]()
        """The weights of the kept objects, by namespace and name."""
        self._full: set[str] = set()
        self._left_out: dict[str, Excess] = {}
        """Objects left out, by namespace; no entry is empty."""

    def keep(self, key: Key) -> None:
        """Keep an object that hasn't been read yet, with the minimum weight."""
        if key not in self:
            self._kept.put(*key, OBJECT_BYTES)

    def kept(self) -> set[Key]:
        return {(namespace, name) for namespace, own in self._kept.holders.items() for name in own}

    def __contains__(self, key: Key) -> bool:
        return self._kept.of(*key) > 0

    @property
    def has_full(self) -> bool:
        return bool(self._full)

    def is_open(self, key: Key) -> bool:
        """Return whether an object may fit: it is already kept, or its namespace isn't full."""
        return key[0] not in self._full or key in self

    def take(self, key: Key, weight: int) -> bool:
        """Keep an object with a new weight; return False, and drop it, if it doesn't fit."""
        fits = self._kept.of_group[key[0]] - self._kept.of(*key) + weight <= self.limit
        if not fits:
            self._full.add(key[0])
        self._set(key, weight if fits else 0)
        return fits

    def drop(self, key: Key) -> None:
        """Drop an object; idempotent."""
        self._set(key, 0)

    def count(self, namespace: str, objects: int, size: int) -> None:
        """Add to the count of objects left out; negative numbers subtract."""
        left_out = self._left_out.pop(namespace, NOTHING).plus(objects, size)
        if left_out != NOTHING:
            self._left_out[namespace] = left_out

    def set_left_out(self, left_out: dict[str, Excess]) -> None:
        """Set the objects that a complete list left out, by namespace."""
        self._left_out = {name: one for name, one in left_out.items() if one != NOTHING}

    def left_out(self) -> Iterator[tuple[str, Excess]]:
        """Yield each namespace with omitted objects, sorted, and its excess."""
        yield from sorted(item for item in self._left_out.items() if item[1].objects)

    @property
    def has_room(self) -> bool:
        """Whether omitted objects may fit now; a list would find them."""
        return any(namespace not in self._full for namespace, _ in self.left_out())

    def _set(self, key: Key, weight: int) -> None:
        self._kept.put(*key, weight)
        if self._kept.of_group[key[0]] <= self.limit - self.limit // 8:
            self._full.discard(key[0])
