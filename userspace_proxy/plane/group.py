"""A group in the control half: what workers get to know of it, and their reports."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec.structs import replace

from ..dataplane import CounterTable, Serving
from ..model import SocketAddress
from .changes import diff_endpoints
from .messages import ChangeGroup, GroupReport, OpenGroup

# Of one group: what a worker reports of others is not believed, nor kept.
KNOWN_MAX = 10_000


class Group(CounterTable):
    """The endpoints of one Service port, and the sums of what workers have counted for them.

    Args:
        number: Its name in messages.
        label: Name for logs, as ``shop/web:http``.
    """

    def __init__(self, number: int, label: str) -> None:
        super().__init__()
        self.number = number
        self.label = label
        self.serving = Serving()
        """The last one that was given."""
        self._known: dict[SocketAddress, None] = {}
        """Endpoints that it has or had, the latest last: connections outlive their endpoint."""
        self._active: dict[int, dict[SocketAddress, int]] = {}
        """By worker: what is to be taken off when it dies."""
        self._ejected: dict[int, dict[SocketAddress, float]] = {}
        """By worker: monotonic seconds at which a probe is due."""

    def opening(self) -> OpenGroup:
        """Return the message by which a worker learns of it."""
        return OpenGroup(self.number, self.label, self.serving)

    def change(self, serving: Serving) -> ChangeGroup | None:
        """Take another serving; returns the message with what is new, None for nothing."""
        old, self.serving = self.serving, serving
        changes = diff_endpoints(old.endpoints, serving.endpoints)
        others = replace(serving, endpoints=())
        have_others_changed = others != replace(old, endpoints=())
        if not (changes.removed or changes.added or have_others_changed):
            return None
        current = frozenset(serving.all_endpoints)
        self.fold(current)
        self._note_endpoints(current)
        return ChangeGroup(self.number, *changes, others if have_others_changed else None)

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
            report: What it reports.
            now: Monotonic seconds.
        """
        before = self.counters.out_of_ports, self.counters.out_of_client_ports
        self.counters.add(report.figures)
        if self.counters.out_of_ports > before[0]:
            self.out_of_ports_at = now
        if self.counters.out_of_client_ports > before[1]:
            self.out_of_client_ports_at = now
        active_of = self._active.setdefault(worker, {})
        for each in report.endpoints:
            endpoint = each.endpoint
            if endpoint not in self._known:
                # The worker makes it up.
                continue
            counters = self.counters_of(endpoint)
            before_active = counters.active
            counters.add(each.figures)
            active_of[endpoint] = active_of.get(endpoint, 0) + counters.active - before_active
            if not active_of[endpoint]:
                del active_of[endpoint]
        self._ejected[worker] = {endpoint: now + left for endpoint, left in report.ejected}

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
