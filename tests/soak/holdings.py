"""The resources of a proxy and its node, compared at the beginning and the end."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tests.reliability.footprint import MIB, Footprint

MEMORY_MIB = 16.0
"""The permitted growth of memory; workers and control process were replaced in between."""
CONNTRACK_IDLE = 20
"""The maximum number of conntrack entries without load: connections of the proxy, and probes."""

__all__ = ["MIB", "Holdings"]


@dataclass(frozen=True, slots=True)
class Holdings:
    """The resources of a proxy and its node at one moment."""

    footprint: Footprint
    conntrack: int
    """The number of conntrack entries on the node."""

    @property
    def is_idle(self) -> bool:
        """Whether no connection of the load is left."""
        return not self.footprint.connections and self.conntrack <= CONNTRACK_IDLE

    def leaks(self, before: Holdings) -> Iterator[str]:
        yield from self.footprint.leaks(before.footprint, MEMORY_MIB, same_processes=False)
        if self.conntrack > max(before.conntrack, CONNTRACK_IDLE):
            yield f"tracked connections {before.conntrack} → {self.conntrack}"

    def compared(self, after: Holdings) -> Iterator[tuple[str, str, str]]:
        """Yield the name, the value and the later value of each figure."""
        for name, one in self._figures().items():
            yield name, one, after._figures()[name]

    def _figures(self) -> dict[str, str]:
        held = self.footprint
        return {
            "processes": str(len(held.pids)),
            "threads": str(held.threads),
            "descriptors": str(held.descriptors),
            "open connections": str(held.connections),
            "tracked connections": str(self.conntrack),
            "rules, routes, ports": str(len(held.rules)),
            "memory": f"{held.memory_bytes / MIB:.1f} MiB",
        }
