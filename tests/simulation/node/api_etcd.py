"""The state that all simulated API servers of a cluster share: its objects, and all writes.

    put, delete, touch ──▶ the log ──▶ objects now ──▶ lists of the newest state
                             └──▶ each server's watch cache, a while later

Rule 1: objects and revisions are as in the fake API server, so a server that applies the log has
equal objects and revisions.
Rule 2: restoring a backup truncates the log; the truncated revisions are assigned again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from userspace_proxy_testing.fakes.api_objects import FakeObjects, Object, ObjectFilter, WatchEvent

Item = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Write:
    """One write, which creates one revision."""

    item: Item | None = None
    """The object that was written."""
    deleted: tuple[str, str, str] | None = None
    """Kind, name and namespace. If this and ``item`` are None, the write isn't watched."""

    def carry_out(self, objects: FakeObjects) -> WatchEvent | None:
        """Apply the write; return its event, or None if nothing that is watched has changed."""
        if self.item is not None:
            return objects.put(self.item)
        if self.deleted is not None:
            return objects.delete(*self.deleted)
        objects.revision += 1
        return None


@dataclass
class Etcd:
    """The objects of a cluster, and the log of writes."""

    objects: FakeObjects = field(default_factory=FakeObjects)
    log: list[Write] = field(default_factory=list)
    compacted: int = 0
    """The revision before which continue tokens have expired."""
    pages: dict[str, tuple[int, list[Object]]] = field(default_factory=dict)
    """The rest of lists in pages, by continue token, for all servers."""
    written: list[Callable[[WatchEvent | None], None]] = field(default_factory=list)
    """Called after each write."""
    compactions: list[Callable[[], None]] = field(default_factory=list)
    """Called when history is compacted."""
    restored: list[Callable[[], None]] = field(default_factory=list)
    """Called after a restore."""
    events: dict[tuple[str, str], Item] = field(default_factory=dict)
    """Events (of events.k8s.io) by namespace and name; they aren't in the log."""

    @property
    def revision(self) -> int:
        return self.objects.revision

    def items(self, resource: str) -> list[Item]:
        """Return the objects of a kind."""
        return [dict(item) for item in self.objects.list(ObjectFilter(resource), 0).items]

    def put(self, item: Item) -> int:
        """Add or replace an object; return the revision."""
        return self._write(Write(item=item))

    def delete(self, kind: str, name: str, namespace: str = "default") -> int:
        """Delete an object; return the revision.

        Raises:
            KeyError: There is no such object.
        """
        return self._write(Write(deleted=(kind, name, namespace)))

    def touch(self) -> int:
        """Create a revision by a write that no watch reports."""
        return self._write(Write())

    def forget_history(self) -> None:
        """Compact: requests for revisions older than the current one get 410."""
        self.compacted = self.revision
        for callback in self.compactions:
            callback()

    def go_back(self, revision: int) -> None:
        """Restore the state of an earlier revision, as from a backup."""
        objects, kept = FakeObjects(), 0
        while kept < len(self.log) and objects.revision < revision:
            self.log[kept].carry_out(objects)
            kept += 1
        self.objects = objects
        del self.log[kept:]
        self.compacted = objects.revision
        self.pages.clear()
        for callback in self.restored:
            callback()

    def _write(self, write: Write) -> int:
        event = write.carry_out(self.objects)
        self.log.append(write)
        for callback in self.written:
            callback(event)
        return self.revision
