"""How much the objects of one kind may take in each namespace, and what was left out.

    object ──weight──▶ does it fit beside what its namespace keeps? ──▶ kept
                       └─ no: left out and counted, and the namespace is full

Rule 1: what is kept stays kept as long as it fits, so a namespace that has too much doesn't change
which of its objects are used with each event or list.
Rule 2: a full namespace takes no further objects until an eighth of its share is free. Of what was
left out nothing but the number is known: a list finds it again.
Rule 3: namespaces don't share anything.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from ...shares import Amounts

Key = tuple[str, str]
"""Namespace (empty for a Node) and name."""

SHARE_BYTES = 48 << 20
"""Of one namespace and kind: 7,500 Services of one port, or 190,000 endpoints."""
OBJECT_BYTES = 1024
SERVICE_BYTES = 5 * 1024
"""What a Service takes more than other objects: its plan, a listener, what is shown of it."""
PART_BYTES = 256
"""An endpoint, a port, a pair of a selector, an address: what it takes in memory, at most."""
NAME_BYTES = 64
"""Of an endpoint's names, so many characters are in PART_BYTES."""


class Excess(NamedTuple):
    """Objects that aren't used because their namespace is full."""

    objects: int = 0
    size: int = 0
    """Bytes of JSON."""

    def plus(self, objects: int, size: int) -> Excess:
        """Return them with some more, or less, but never less than none."""
        return Excess(max(0, self.objects + objects), max(0, self.size + size))


NOTHING = Excess()


class ObjectShares:
    """The shares of all namespaces, for one kind.

    Args:
        limit: Bytes of each share.
    """

    def __init__(self, limit: int = SHARE_BYTES) -> None:
        self.limit = limit
        self._kept = Amounts[str, str]()
        """Weights of objects, by name."""
        self._full: set[str] = set()
        self._left_out: dict[str, Excess] = {}
        """By namespace; none is nothing."""

    def keep(self, key: Key) -> None:
        """Note an object that is kept and hasn't been read yet; it has the least weight."""
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
        """Return whether an object may fit: it is kept already, or its namespace isn't full."""
        return key[0] not in self._full or key in self

    def take(self, key: Key, weight: int) -> bool:
        """Keep an object, or keep it with another weight; return False if it doesn't fit.

        One that doesn't isn't kept any more.
        """
        fits = self._kept.of_group[key[0]] - self._kept.of(*key) + weight <= self.limit
        if not fits:
            self._full.add(key[0])
        self._set(key, weight if fits else 0)
        return fits

    def drop(self, key: Key) -> None:
        """Keep an object no longer; idempotent."""
        self._set(key, 0)

    def count(self, namespace: str, objects: int, size: int) -> None:
        """Count objects that are left out, or no longer (less than 0)."""
        left_out = self._left_out.pop(namespace, NOTHING).plus(objects, size)
        if left_out != NOTHING:
            self._left_out[namespace] = left_out

    def set_left_out(self, left_out: dict[str, Excess]) -> None:
        """Set what a whole list has left out, by namespace."""
        self._left_out = {name: one for name, one in left_out.items() if one != NOTHING}

    def left_out(self) -> Iterator[tuple[str, Excess]]:
        """Yield namespaces of which something is left out, by name."""
        yield from sorted(item for item in self._left_out.items() if item[1].objects)

    @property
    def has_room(self) -> bool:
        """Whether a list would find objects that were left out and may fit now."""
        return any(namespace not in self._full for namespace, _ in self.left_out())

    def _set(self, key: Key, weight: int) -> None:
        self._kept.put(*key, weight)
        if self._kept.of_group[key[0]] <= self.limit - self.limit // 8:
            self._full.discard(key[0])
