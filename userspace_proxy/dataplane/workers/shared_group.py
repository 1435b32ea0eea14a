"""A group in the control process: what workers get to know of it, and their reports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING

from ...model import SocketAddress
from ..counters import CounterTable, GroupCounters
from ..serving import Serving
from .changes import diff_endpoints
from .messages import ChangeGroup, GroupReport, OpenGroup

if TYPE_CHECKING:
    from .shared_listeners import SharedListener


# Of one group: what a worker says of others is not believed, nor kept.
KNOWN_MAX = 10_000


class SharedGroup(CounterTable):
    """The endpoints of one Service port, served by several processes, and their sums.

    Args:
        number: Its name in messages.
        label: Name for logs, as ``shop/web:http``.
        serving: Endpoints, and how they are chosen.
    """

    def __init__(self, number: int, label: str, serving: Serving) -> None:
        super().__init__()
        self.number = number
        self.label = label
        self.serving = serving
        self._known = dict.fromkeys(serving.all_endpoints)
        """Endpoints that it has or had, the latest last: connections outlive their endpoint."""
        self.listeners: set[SharedListener] = set()
        self._active: dict[int, dict[SocketAddress, int]] = {}
        """By worker: what is to be taken off when it dies."""
        self._ejected: dict[int, dict[SocketAddress, float]] = {}
        """By worker: monotonic seconds at which a probe is due."""

    def opening(self) -> OpenGroup:
        """Return the message by which a worker learns of it."""
        serving = {f.name: getattr(self.serving, f.name) for f in fields(Serving)}
        return OpenGroup(self.number, self.label, serving)

    def change(self, serving: Serving) -> ChangeGroup | None:
        """Take another serving; returns the message that says what is new, None for nothing."""
        old, self.serving = self.serving, serving
        changes = diff_endpoints(old.endpoints, serving.endpoints)
        others = {
            f.name: getattr(serving, f.name)
            for f in fields(Serving)
            if f.name != "endpoints" and getattr(serving, f.name) != getattr(old, f.name)
        }
        if not (changes.removed or changes.added or others):
            return None
        current = frozenset(serving.all_endpoints)
        self.fold(current)
        self._note_endpoints(current)
        return ChangeGroup(self.number, *changes, others)

    def _note_endpoints(self, current: frozenset[SocketAddress]) -> None:
        """Remember the present endpoints, and some of the former ones."""
        self._known.update(dict.fromkeys(current))
        for endpoint in list(self._known)[: max(0, len(self._known) - KNOWN_MAX)]:
            if endpoint not in current:
                del self._known[endpoint]

    def add(self, worker: int, report: GroupReport, now: float) -> None:
        """Add what a worker has counted.

        Args:
            worker: Which one.
            report: Its nested values as they arrive: lists.
            now: Monotonic seconds.
        """
        before = self.counters.out_of_ports, self.counters.out_of_client_ports
        for name, count in zip(GroupCounters.__slots__, report.counts, strict=True):
            setattr(self.counters, name, getattr(self.counters, name) + count)
        if self.counters.out_of_ports > before[0]:
            self.out_of_ports_at = now
        if self.counters.out_of_client_ports > before[1]:
            self.out_of_client_ports_at = now
        active_of = self._active.setdefault(worker, {})
        for address, active, connections, failures, received, sent, preserved in report.endpoints:
            endpoint = SocketAddress(*address)
            if endpoint not in self._known:
                # The worker makes it up.
                continue
            each = self.counters_of(endpoint)
            each.active += active
            each.connections += connections
            each.failures += failures
            each.received_bytes += received
            each.sent_bytes += sent
            each.preserved += preserved
            active_of[endpoint] = active_of.get(endpoint, 0) + active
            if not active_of[endpoint]:
                del active_of[endpoint]
        self._ejected[worker] = {SocketAddress(*e): now + left for e, left in report.ejected}

    def worker_ended(self, worker: int) -> None:
        """Take off what a worker had open; what it counted stays counted."""
        for endpoint, active in self._active.pop(worker, {}).items():
            self.counters_of(endpoint).active -= active
        self._ejected.pop(worker, None)

    def ejected(self, now: float) -> Mapping[SocketAddress, float]:
        """Return what any worker has ejected, each with the longest time that is left."""
        left: dict[SocketAddress, float] = {}
        current = frozenset(self.serving.all_endpoints)
        for ejected in self._ejected.values():
            for endpoint, until in ejected.items():
                if endpoint in current:
                    left[endpoint] = max(left.get(endpoint, 0.0), until - now)
        return left
