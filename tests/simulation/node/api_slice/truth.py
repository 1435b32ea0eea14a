"""The states that a cluster has had, in their order: what a snapshot may show.

Rule 1: for each kind there is a state after each of its writes. A snapshot shows one of them, and
none that is older than the one that was shown before.
Rule 2: of objects that can't be read now nothing is demanded but that they aren't newer.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from typing import Any

from .reading import HIDDEN, Key, Shown, expected

KINDS = ("Service", "EndpointSlice", "Node", "Pod")


@dataclass(frozen=True, slots=True)
class State:
    """The objects of one kind at one time."""

    stamps: Mapping[Key, int]
    loose: frozenset[Key]
    """Those that can't be read as they are now."""
    revision: int = 0


@dataclass
class History:
    """What one kind had, since the beginning or a restore."""

    states: list[State] = field(default_factory=lambda: [State({}, frozenset())])
    at: int = 0
    """What was shown last."""
    keys: set[Key] = field(default_factory=set)
    """Of all objects that there have been."""

    def add(self, key: Key, stamp: int | None, revision: int, *, is_invalid: bool = False) -> None:
        """Add the state after a write; without a stamp the object is deleted."""
        self.keys.add(key)
        last = self.states[-1]
        stamps = {k: v for k, v in last.stamps.items() if k != key}
        loose = last.loose - {key}
        if stamp is not None:
            stamps[key] = stamp
            loose |= {key} if is_invalid else set()
        self.states.append(State(stamps, frozenset(loose), revision))

    def go_back(self, revision: int) -> None:
        """Begin anew with the state of an earlier revision."""
        while len(self.states) > 1 and self.states[-1].revision > revision:
            self.states.pop()
        self.at = 0

    def find(self, shown: Mapping[Key, int], ignored: Set[Key]) -> bool:
        """Go on to the first state that may be shown so; return whether there is one."""
        for at in range(self.at, len(self.states)):
            if _fits(shown, self.states[at], ignored):
                self.at = at
                return True
        return False

    def fits_now(self, shown: Mapping[Key, int], ignored: Set[Key]) -> bool:
        """Return whether the last state may be shown so."""
        return _fits(shown, self.states[-1], ignored)


def _fits(shown: Mapping[Key, int], state: State, ignored: Set[Key]) -> bool:
    left_out = ignored | state.loose
    if HIDDEN not in shown.values() and not left_out:
        return shown == state.stamps
    keys = (shown.keys() | state.stamps.keys()) - left_out
    missing = object()
    return all(
        shown.get(key, missing) == state.stamps.get(key, missing)
        or (shown.get(key) == HIDDEN and key in state.stamps)
        for key in keys
    )


class Contents:
    """What each write's object looks like."""

    def __init__(self) -> None:
        self._items: dict[tuple[Key, int], dict[str, Any]] = {}
        self._shown: dict[tuple[Key, int], Shown] = {}

    def add(self, key: Key, stamp: int, item: dict[str, Any]) -> None:
        self._items[key, stamp] = item

    def of(self, key: Key, stamp: int) -> Shown | None:
        """Return what is to be shown; None: there was no such write."""
        found = self._shown.get((key, stamp))
        if found is None and (item := self._items.get((key, stamp))) is not None:
            # Many are never shown.
            found = self._shown[key, stamp] = expected(item)
        return found
