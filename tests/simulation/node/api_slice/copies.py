"""What a source's copy of one kind has to be, by the bytes that have arrived.

    list ──items──▶ of each object: as before, or as listed ──all of it──▶ exactly that
    watch ──lines──▶ a state after each line; what is shown is one of them, and none before the last

Rule 1: JSON is read here without the product's readers, and nothing is known of what the servers
have: so that history went back is no excuse.
Rule 2: which lines of a watch were read before it broke off follows from where the next one begins.
Rule 3: of an object that can't be read what was read last is shown.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from .reading import HIDDEN, Key, number_of

Stamps = frozenset[int | None]
"""What may be shown of an object; None: nothing."""
_NOTHING: Stamps = frozenset([None])
_ITEMS = '"items": ['


@dataclass(frozen=True, slots=True)
class CopyState:
    """A copy after one line, or after a list."""

    version: str = ""
    shown: Mapping[Key, int] = field(default_factory=dict)
    unread: frozenset[Key] = frozenset()
    """Objects that can't be read as they are now, whether something of them is shown or not."""
    open: Mapping[Key, Stamps] = field(default_factory=dict)
    """Objects of which more than one version may be shown; they aren't in ``shown``."""

    def of(self, key: Key) -> Stamps:
        """Return what may be shown of an object."""
        return self.open.get(key) or frozenset([self.shown.get(key)])

    def fits(self, found: Mapping[Key, int], *, may_lack: bool) -> bool:
        """Return whether that may be shown.

        Args:
            may_lack: A part of the objects may be left out.
        """
        if found == self.shown and not self.open:
            return True
        keys = found.keys() if may_lack else {*found, *self.shown, *self.open}
        return all(_is_one_of(found.get(key), self.of(key)) for key in keys)

    def with_line(self, version: str, key: Key | None, stamp: int | None) -> CopyState:
        """Return the state after a line.

        Args:
            key: None: it is of no object.
            stamp: Of the object; HIDDEN: it can't be read; None: it is deleted.
        """
        if key is None:
            return replace(self, version=version)
        if stamp == HIDDEN:
            return replace(self, version=version, unread=self.unread | {key})
        shown = {k: n for k, n in self.shown.items() if k != key}
        if stamp is not None:
            shown[key] = stamp
        may = {k: n for k, n in self.open.items() if k != key}
        return CopyState(version, shown, self.unread - {key}, may)


class Copy:
    """That of one kind.

    Args:
        is_valid: Returns whether the object with a stamp can be read.
        resumed: What is shown of an earlier run; HIDDEN: some version, of which there is only the
            name.
    """

    def __init__(
        self, kind: str, is_valid: Callable[[int], bool], resumed: Mapping[Key, int]
    ) -> None:
        self._kind = kind
        self._is_valid = is_valid
        self._states = [CopyState(shown=resumed)]
        """Those that may be shown, the oldest first."""
        self._seen: dict[Key, set[int | None]] | None = None
        """While lists are read: what they have contained."""
        self._listed: dict[Key, int] = {}
        """What the list that is under way has contained."""
        self._data, self._at = bytearray(), -1

    @property
    def is_exact(self) -> bool:
        """Whether there is one state that must be shown once all was read."""
        return self._seen is None

    @property
    def now(self) -> CopyState:
        """The state once all that has arrived was read."""
        return self._states[-1]

    # -- what arrives ------------------------------------------------------------------------------

    def begin_watch(self, version: str) -> None:
        """Note that a watch is asked for: from the last line that was read."""
        known = [state for state in self._states if state.version == version]
        self._states = known[-1:] or self._states[-1:]
        self._seen = None

    def add_line(self, event: Mapping[str, Any]) -> None:
        """Note a line of a watch."""
        item = event["object"]
        version = item["metadata"]["resourceVersion"]
        if event["type"] == "BOOKMARK":
            self._states.append(self.now.with_line(version, None, None))
            return
        stamp = None if event["type"] == "DELETED" else self._stamp(item)
        self._states.append(self.now.with_line(version, self._key(item), stamp))

    def begin_list(self, data: bytearray, *, is_first: bool) -> None:
        """Note that a page of a list is asked for.

        Args:
            data: Will be what has arrived of it; still what arrived before.
        """
        if self._seen is None:
            self._seen = {}
        else:
            self._read_items()
        if is_first:
            self._listed.clear()
        self._data, self._at = data, -1

    def end_list(self, version: str) -> None:
        """Note that the last page is complete."""
        self._read_items()
        shown, may = dict[Key, int](), dict[Key, Stamps]()
        unread = frozenset(key for key, stamp in self._listed.items() if stamp == HIDDEN)
        for key, stamp in self._listed.items():
            if stamp != HIDDEN:
                shown[key] = stamp
                continue
            stamps = self._may_show(key)
            (only, *others) = stamps
            if others:
                may[key] = stamps
            elif only is not None:
                shown[key] = only
        # Until it is read some may be shown as before.
        self._states.append(CopyState(version, shown, unread, may))

    def _read_items(self) -> None:
        """Read the items of a page that have arrived and weren't read before."""
        body = self._data.decode()
        if self._at < 0:
            found = body.find(_ITEMS)
            if found < 0:
                return
            self._at = found + len(_ITEMS)
        for item in self._items(body):
            key, stamp = self._key(item), self._stamp(item)
            self._listed[key] = stamp
            if stamp != HIDDEN and self._seen is not None:
                self._seen.setdefault(key, set()).add(stamp)

    def _items(self, body: str) -> Iterator[dict[str, Any]]:
        while True:
            try:
                item, end = _read(body, self._at)
            except ValueError:
                return
            # A comma and a blank, or the end.
            self._at = end + 2
            yield item

    def _key(self, item: Mapping[str, Any]) -> Key:
        metadata = item["metadata"]
        return Key(self._kind, metadata.get("namespace", ""), metadata["name"])

    def _stamp(self, item: Mapping[str, Any]) -> int:
        number = number_of(self._kind, item)
        return number if self._is_valid(number) else HIDDEN

    # -- what is shown -----------------------------------------------------------------------------

    def accept(self, found: Mapping[Key, int], *, may_lack: bool) -> bool:
        """Take what is shown; return whether it may be."""
        if self._seen is None:
            for at, state in enumerate(self._states):
                if state.fits(found, may_lack=may_lack):
                    del self._states[:at]
                    return True
            return False
        self._read_items()
        keys = {*found, *(() if may_lack else self._keys())}
        return all(_is_one_of(found.get(key), self._may_show(key)) for key in keys)

    def _keys(self) -> Iterator[Key]:
        for state in self._states:
            yield from state.shown
            yield from state.open

    def _may_show(self, key: Key) -> Stamps:
        seen = self._seen or {}
        return frozenset(seen.get(key, ())).union(*(state.of(key) for state in self._states))


_read = json.JSONDecoder().raw_decode


def _is_one_of(found: int | None, stamps: Stamps) -> bool:
    if found == HIDDEN:
        return stamps != _NOTHING
    return found in stamps
