"""The combined content of all manifest files.

    take(file, text), forget(file) ──▶ objects of each file ──▶ settled ──▶ Snapshot
                                        (last good ones)        one of each name, addresses given

Rule 1: a file that is broken keeps the objects of its last good text; others go on.
Rule 2: of two objects with one name the first counts, by file name and place in the file.
Rule 3: endpoints in slices win over an Endpoints object of the same Service.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..cluster import Snapshot, Store
from ..model import EndpointSlice, Node
from .allocator import Allocator
from .files import Look
from .manifest_objects import FileObjects, Found, MirroredEndpoints, read_manifest
from .written import WrittenService


class ManifestState:
    """The objects of all files, and the problems with them; one thread at a time.

    Args:
        node_name: Which Node object is this node's; empty: none is.
        service_cidrs: Where addresses come from for Services that name none.
        state_file: Where what is given outlives a restart; None: nowhere.

    Raises:
        ConfigError: The ranges aren't one of each family.
    """

    def __init__(
        self, *, node_name: str, service_cidrs: Sequence[str], state_file: Path | None = None
    ) -> None:
        self._node_name = node_name
        self._allocator = Allocator(service_cidrs, state_file)
        self._store = Store()
        self._objects: dict[str, tuple[Found, ...]] = {}
        """By file, as its last good text says."""
        self._broken: dict[str, tuple[str, ...]] = {}
        self._ignored: dict[str, tuple[str, ...]] = {}
        self._unread: tuple[str, ...] = ()
        self._conflicts: tuple[str, ...] = ()
        self.snapshot: Snapshot = self._store.snapshot()
        """What the files say now."""

    @property
    def problems(self) -> tuple[str, ...]:
        """What is wrong now, one line each."""
        broken = (line for name in sorted(self._broken) for line in self._broken[name])
        return (*self._unread, *broken, *self._conflicts)

    @property
    def ignored(self) -> tuple[str, ...]:
        """Objects of kinds that are none of ours, one line for each file and kind."""
        return tuple(line for name in sorted(self._ignored) for line in self._ignored[name])

    def take(self, look: Look) -> None:
        """Take what a look at the files found, and renew ``snapshot`` and ``problems``."""
        self._unread = tuple(line for _, line in sorted(look.problems.items()))
        if not look.texts and not look.gone:
            return
        for name in look.gone:
            for by_file in (self._objects, self._broken, self._ignored):
                by_file.pop(name, None)
        for name, text in look.texts.items():
            self._take_file(name, read_manifest(text, place=name))
        self._settle()

    def _take_file(self, name: str, read: FileObjects) -> None:
        if read.problems:
            self._broken[name] = read.problems
        else:
            self._broken.pop(name, None)
            self._objects[name] = read.objects
        self._ignored[name] = read.ignored

    def _settle(self) -> None:
        """Make one state of all files."""
        conflicts: list[str] = []
        first: dict[tuple[str, str], Found] = {}
        for name in sorted(self._objects):
            for found in self._objects[name]:
                holder = first.setdefault((found.kind, found.key), found)
                if holder is not found:
                    conflicts.append(
                        f"{found.place}: {found.kind} {found.key} "
                        f"is already defined in {holder.place}"
                    )
        allocated = self._allocator.allocate(
            (f.value, f.place) for f in first.values() if isinstance(f.value, WrittenService)
        )
        conflicts.extend(allocated.problems)
        self._store.replace_services(allocated.services)
        self._store.replace_slices(_slices(first))
        nodes = [f.value for f in first.values() if isinstance(f.value, Node)]
        self._store.set_node(next((n for n in nodes if n.name == self._node_name), None))
        self._store.set_node_addresses(frozenset(a for n in nodes for a in n.addresses))
        self._conflicts = tuple(conflicts)
        self.snapshot = self._store.snapshot()


def _slices(first: dict[tuple[str, str], Found]) -> list[EndpointSlice]:
    values = [found.value for found in first.values()]
    written = [v for v in values if isinstance(v, EndpointSlice)]
    served = {item.service for item in written}
    mirrored = [
        item
        for v in values
        if isinstance(v, MirroredEndpoints) and v.service not in served
        for item in v.slices
    ]
    return [*written, *mirrored]
