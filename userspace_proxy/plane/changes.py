"""What turns one list of endpoints into another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ..model import SocketAddress


class EndpointChanges(NamedTuple):
    """Remove first; then insert, in order."""

    removed: list[SocketAddress]
    added: list[tuple[int, SocketAddress]]
    """Each with its place in the new list, lowest first."""


def diff_endpoints(have: Sequence[SocketAddress], want: Sequence[SocketAddress]) -> EndpointChanges:
    """Compare two lists without duplicates; the order counts, as turns go by it.

    Where those that stay have changed places, everything is removed and added.
    """
    wanted, had = frozenset(want), frozenset(have)
    staying = [e for e in have if e in wanted]
    if staying != [e for e in want if e in had]:
        return EndpointChanges(list(have), list(enumerate(want)))
    removed = [e for e in have if e not in wanted]
    return EndpointChanges(removed, [(n, e) for n, e in enumerate(want) if e not in had])
