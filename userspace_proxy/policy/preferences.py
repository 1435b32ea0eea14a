"""Reads the weights and priorities of usable endpoints, if they make a difference."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Protocol

from ..model import DEFAULT_WEIGHT, Endpoint, SocketAddress

Numbers = tuple[tuple[SocketAddress, int], ...]
NO_PREFERENCES: tuple[Numbers, Numbers] = ((), ())
"""Weights and priorities that make no difference."""


class _Preferred(Protocol):
    @property
    def weight(self) -> int: ...
    @property
    def priority(self) -> int: ...


def have_preferences(endpoints: Iterable[_Preferred]) -> bool:
    """Return whether any endpoint has a weight or a priority other than the default."""
    return any(e.weight != DEFAULT_WEIGHT or e.priority for e in endpoints)


def read_preferences(
    endpoints: Mapping[SocketAddress, Endpoint], usable: Collection[SocketAddress]
) -> tuple[Numbers, Numbers]:
    """Return the weights of usable endpoints, and the priorities other than 0.

    Args:
        usable: Some of the endpoints; may contain duplicates.

    Returns:
        Both lists in the order of ``usable``; a list is empty if all values are the same.
    """
    weights = {address: endpoints[address].weight for address in usable}
    priorities = {address: endpoints[address].priority for address in usable}
    is_weighted = len(set(weights.values())) > 1
    has_standbys = len(set(priorities.values())) > 1
    return (
        tuple(weights.items()) if is_weighted else (),
        tuple((a, n) for a, n in priorities.items() if n) if has_standbys else (),
    )
