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
from dataclasses import dataclass, field
from typing import NamedTuple

Key = tuple[str, str]
"""Namespace (empty for a Node) and name."""

SHARE_BYTES = 128 << 20
"""Of one namespace and kind: 100,000 Services of one port, or 500,000 endpoints."""
OBJECT_BYTES = 1024
PART_BYTES = 256
"""An endpoint, a port, a pair of a selector, an address: what it takes in memory, at most."""


class Excess(NamedTuple):
    """Objects that aren't used because their namespace is full."""

    objects: int = 0
    size: int = 0
    """Bytes of JSON."""

    def plus(self, objects: int, size: int) -> Excess:
        """Return them with some more, or less, but never less than none."""
        return Excess(max(0, self.objects + objects), max(0, self.size + size))


NOTHING = Excess()


@dataclass(slots=True)
class _Share:
    used: int = 0
    is_full: bool = False
    left_out: Excess = NOTHING


@dataclass(slots=True)
class ObjectShares:
    """The shares of all namespaces, for one kind.

    Args:
        limit: Bytes of each share.
    """

    limit: int = SHARE_BYTES
    _weights: dict[Key, int] = field(default_factory=dict)
    """Of the objects that are kept."""
    _shares: dict[str, _Share] = field(default_factory=dict)
    _full: set[str] = field(default_factory=set)

    def keep(self, key: Key) -> None:
        """Note an object that is kept and hasn't been read yet; it has the least weight."""
        if key not in self._weights:
            self._weights[key] = OBJECT_BYTES
            self._shares.setdefault(key[0], _Share()).used += OBJECT_BYTES

    def kept(self) -> set[Key]:
        """Return what is kept."""
        return set(self._weights)

    def __contains__(self, key: Key) -> bool:
        return key in self._weights

    @property
    def has_full(self) -> bool:
        """Whether some namespace is full."""
        return bool(self._full)

    def is_open(self, key: Key) -> bool:
        """Return whether an object may fit: it is kept already, or its namespace isn't full."""
        share = self._shares.get(key[0])
        return share is None or not share.is_full or key in self._weights

    def take(self, key: Key, weight: int) -> bool:
        """Keep an object, or keep it with another weight; return False if it doesn't fit.

        One that doesn't isn't kept any more.
        """
        share = self._shares.setdefault(key[0], _Share())
        used = share.used - self._weights.get(key, 0) + weight
        if used > self.limit:
            share.used -= self._weights.pop(key, 0)
            self._set_full(key[0], share)
            return False
        share.used = used
        self._weights[key] = weight
        if share.is_full:
            self._set_full(key[0], share)
        return True

    def drop(self, key: Key) -> None:
        """Keep an object no longer; idempotent."""
        weight = self._weights.pop(key, None)
        share = self._shares.get(key[0])
        if weight is not None and share is not None:
            share.used -= weight
            if share.is_full:
                self._set_full(key[0], share)
            self._forget_empty(key[0], share)

    def count(self, namespace: str, objects: int, size: int) -> None:
        """Count objects that are left out, or no longer (less than 0)."""
        share = self._shares.get(namespace)
        if share is not None:
            share.left_out = share.left_out.plus(objects, size)
            self._forget_empty(namespace, share)

    def set_left_out(self, left_out: dict[str, Excess]) -> None:
        """Set what a whole list has left out, by namespace."""
        for namespace in {*self._shares, *left_out}:
            # Perhaps nothing is kept of it any more: what was is deleted at the list's end.
            share = self._shares.setdefault(namespace, _Share())
            share.left_out = left_out.get(namespace, NOTHING)
            self._forget_empty(namespace, share)

    def left_out(self) -> Iterator[tuple[str, Excess]]:
        """Yield namespaces of which something is left out, by name."""
        for namespace, share in sorted(self._shares.items()):
            if share.left_out.objects:
                yield namespace, share.left_out

    @property
    def has_room(self) -> bool:
        """Whether a list would find objects that were left out and may fit now."""
        return any(s.left_out.objects and not s.is_full for s in self._shares.values())

    def _set_full(self, namespace: str, share: _Share) -> None:
        share.is_full = share.used > self.limit - self.limit // 8
        if share.is_full:
            self._full.add(namespace)
        else:
            self._full.discard(namespace)

    def _forget_empty(self, namespace: str, share: _Share) -> None:
        if share == _Share():
            del self._shares[namespace]
