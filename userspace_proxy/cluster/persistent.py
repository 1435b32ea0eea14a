"""Provides an immutable mapping whose changed copies share nearly all content with the original.

    {a: 1, b: 2, c: 3}.changed({b: 4})      ┌ {a: 1} ┐ shared
                                            ├ {b: 4} ┘ copied: a 256th of all
                                            └ {c: 3}   shared

Changing one of 10,000 items copies about forty. A mapping is compared with a changed copy part by
part, so the cost of a change doesn't grow with the number of items.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Generic, TypeVar, overload

_PARTS = 256
_MASK = _PARTS - 1

# All mappings share one empty part, so that differing() skips parts empty in both mappings.
_EMPTY: tuple[dict[Any, Any], ...] = ({},) * _PARTS

K = TypeVar("K", bound=tuple[Any, ...])
V = TypeVar("V")
T = TypeVar("T")


class PersistentMap(Mapping[K, V], Generic[K, V]):
    """An immutable mapping, iterated in the order of its keys."""

    __slots__ = ("_count", "_parts")

    def __init__(self) -> None:
        self._parts: tuple[dict[K, V], ...] = _EMPTY
        self._count = 0

    def changed(self, put: Mapping[K, V], drop: Collection[K] = ()) -> PersistentMap[K, V]:
        """Return a copy with the items of ``put`` and without the keys of ``drop``.

        A key in both is put; keys to drop needn't exist.
        """
        parts = list(self._parts)
        copied: set[int] = set()
        made: PersistentMap[K, V] = PersistentMap()
        count = self._count
        for key in itertools.chain(drop, put):
            at = hash(key) & _MASK
            if at not in copied:
                copied.add(at)
                parts[at] = dict(parts[at])
            part = parts[at]
            count -= len(part)
            if key in put:
                part[key] = put[key]
            else:
                part.pop(key, None)
            count += len(part)
        made._parts, made._count = tuple(parts), count
        return made

    def differing(self, other: PersistentMap[K, V]) -> set[K]:
        """Return the keys that only one mapping has, or whose values aren't the same object."""
        found: set[K] = set()
        for mine, others in zip(self._parts, other._parts, strict=True):
            if mine is not others:
                found.update(_differing(mine, others))
        return found

    def __getitem__(self, key: K) -> V:
        return self._parts[hash(key) & _MASK][key]

    @overload
    def get(self, key: K, /) -> V | None: ...
    @overload
    def get(self, key: K, /, default: V | T) -> V | T: ...
    def get(self, key: K, /, default: V | T | None = None) -> V | T | None:
        return self._parts[hash(key) & _MASK].get(key, default)

    def __contains__(self, key: object) -> bool:
        return key in self._parts[hash(key) & _MASK]

    def __iter__(self) -> Iterator[K]:
        return iter(sorted(itertools.chain.from_iterable(self._parts)))

    def __len__(self) -> int:
        return self._count

    def __repr__(self) -> str:
        return repr(dict(self))


def differing_keys(have: Mapping[K, V], want: Mapping[K, V]) -> set[K]:
    """Return the keys that only one mapping has, or whose values aren't the same object.

    This is cheap if :meth:`PersistentMap.changed` made one mapping from the other.
    """
    if isinstance(have, PersistentMap) and isinstance(want, PersistentMap):
        return have.differing(want)
    return set(_differing(have, want))


def _differing(have: Mapping[K, V], want: Mapping[K, V]) -> Iterator[K]:
    for key, value in want.items():
        if key not in have or have[key] is not value:
            yield key
    for key in have:
        if key not in want:
            yield key
