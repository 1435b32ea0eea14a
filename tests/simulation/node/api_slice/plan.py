"""What is drawn for one run: values that print, and that can be made smaller."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

NODE = "alice"
_KINDS = "Service", "EndpointSlice"
CROWDED = "crowded"
"""The namespace that may have more than its share."""


@dataclass(frozen=True)
class Step:
    """Something that happens at a time, in seconds from the beginning."""

    at: float
    kind: str
    values: tuple[Any, ...] = ()
    item: dict[str, Any] | None = None
    """What is put."""

    def __str__(self) -> str:
        return f"{self.at:9.3f} {self.text}"

    @property
    def text(self) -> str:
        """What happens."""
        shown = self.item and f"{self.item['kind']} {self.item['metadata']}"
        if self.item and "is-invalid" in self.item:
            shown = f"invalid {shown}"
        parts = (self.kind, *self.values, shown)
        return " ".join(str(part) for part in parts if part is not None)


@dataclass(frozen=True)
class Plan:
    """One run."""

    seed: int
    features: frozenset[str]
    steps: tuple[Step, ...]
    chaos_s: float
    """After that the steps are over, and what they broke is repaired."""
    servers: int = 1
    lag_s: float = 0.0
    has_watch_cache: bool = True
    waits_for_future: bool = False
    tells_from_now: bool = False
    expires_by_status: bool = False
    has_nulls: bool = False
    checks_health: bool = False
    repeats: bool = False
    bookmark_s: float = 60.0
    piece_max: int = 0
    page_limit: int = 500
    page_max: int = 0
    batch_bytes: int = 64 << 10
    watch_s: float = 300.0
    silence_s: float = 150.0
    list_s: float = 600.0
    line_bytes: int = 16 << 20
    share_bytes: int = 128 << 20
    namespace: str = ""
    with_node: bool = True
    wants_nodes: bool = False
    denies_node: bool = False
    """This node's object may never be read."""
    from_pods: bool = False
    """Endpoints are derived from Pods."""
    first_items: tuple[dict[str, Any], ...] = field(default=())
    """What is there at the beginning."""

    @cached_property
    def kinds(self) -> tuple[str, ...]:
        """What the source reads."""
        optional = {"Node": self.with_node, "Pod": self.from_pods}
        return (*_KINDS, *(kind for kind, is_read in optional.items() if is_read))

    @cached_property
    def shown_kinds(self) -> tuple[str, ...]:
        """What a snapshot shows as it was written."""
        hidden = {"EndpointSlice", "Pod"} if self.from_pods else set[str]()
        return tuple(kind for kind in self.kinds if kind not in hidden)
