"""Clients that dial Services at nodes, and stay connected for a while."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .workers import Worker
    from .workloads import Pod

NEW, DIALLING, WAITING, CONNECTED, DONE = "new", "dialling", "waiting", "connected", "done"


def named(items: Iterable[object]) -> str:
    """Return clients or pods as text."""
    return ", ".join(map(str, items)) or "none"


class Client:
    """One client, which dials once.

    Args:
        stay_s: How long it stays connected.
        patience_s: How long it waits for its connection.
    """

    def __init__(
        self, number: int, node: str, service: str, stay_s: float, patience_s: float
    ) -> None:
        self.number = number
        self.node = node
        self.service = service
        """NAMESPACE/NAME."""
        self.stay_s = stay_s
        self.patience_s = patience_s
        self.state = NEW
        self.pod: Pod | None = None
        self.worker: Worker | None = None
        self.waits_since = 0.0
        self.needs_since = 0.0
        """When it was first taken by a worker; 0: it wasn't."""
        self.since = 0.0
        """Of its state."""
        self.tried: set[str] = set()
        """The addresses that didn't answer it just now."""

    def __str__(self) -> str:
        return f"client {self.number}"
