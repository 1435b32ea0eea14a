"""A part of a long list, with how much of it is shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class ListPart(Generic[_T]):
    """One page of a list."""

    items: Sequence[_T]
    page: int
    pages: int
    total: int
    """Of all pages."""
    start: int
    """The place of the first item in the list."""

    @property
    def first(self) -> int:
        """The number of the first item, from 1; 0 without any."""
        return self.start + 1 if self.items else 0

    @property
    def last(self) -> int:
        """The number of the last item."""
        return self.start + len(self.items)


def part_of(items: Sequence[_T], page: int, size: int) -> ListPart[_T]:
    """Return a page; past the end means the last."""
    pages = max(1, -(-len(items) // size))
    number = min(page, pages)
    start = (number - 1) * size
    return ListPart(items[start : start + size], number, pages, len(items), start)
