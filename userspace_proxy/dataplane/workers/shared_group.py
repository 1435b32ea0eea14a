"""A group and a listener as the control process knows them: what workers are told of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ...model import Protocol, SocketAddress
from ..counters import Books
from .messages import GroupReport, OpenGroup, OpenListener
from .shared_sockets import SharedSockets

if TYPE_CHECKING:
    from .pool import WorkerPool


# Of one group: what a worker says of others is not believed, nor kept.
KNOWN_MAX = 10_000


class SharedGroup(Books):
    """The endpoints of one Service port, served by several processes, and their sums.

    Args:
        number: Its name in messages.
        label: Name for logs, as ``shop/web:http``.
        endpoints: Usable endpoints in plan order.
        affinity_timeout_s: Seconds of ClientIP affinity; None for none.
    """

    def __init__(
        self,
        number: int,
        label: str,
        endpoints: Sequence[SocketAddress],
        *,
        affinity_timeout_s: float | None,
    ) -> None:
        super().__init__()
        self.number = number
        self.label = label
        self.endpoints = tuple(endpoints)
        self.affinity_timeout_s = affinity_timeout_s
        self._known = dict.fromkeys(self.endpoints)
        """Endpoints that it has or had, the latest last: connections outlive their endpoint."""
        self.listeners: set[SharedListener] = set()
        self._active: dict[int, dict[SocketAddress, int]] = {}
        """By worker: what is to be taken off when it dies."""
        self._ejected: dict[int, dict[SocketAddress, float]] = {}
        """By worker: monotonic seconds at which a probe is due."""

    def opening(self) -> OpenGroup:
        """Return the message by which a worker learns of it."""
        return OpenGroup(self.number, self.label, self.endpoints, self.affinity_timeout_s)

    def note_endpoints(self) -> None:
        """Remember the present endpoints, and some of the former ones."""
        self._known.update(dict.fromkeys(self.endpoints))
        for endpoint in list(self._known)[: max(0, len(self._known) - KNOWN_MAX)]:
            if endpoint not in self.endpoints:
                del self._known[endpoint]

    def add(self, worker: int, report: GroupReport, now: float) -> None:
        """Add what a worker has counted.

        Args:
            worker: Which one.
            report: Its nested values as they arrive: lists.
            now: Monotonic seconds.
        """
        counters = self.counters
        counters.refused += report.refused
        counters.shortages += report.shortages
        counters.dropped_datagrams += report.dropped_datagrams
        counters.evicted_flows += report.evicted_flows
        active_of = self._active.setdefault(worker, {})
        for address, active, connections, failures, received, sent in report.endpoints:
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
        current = frozenset(self.endpoints)
        for ejected in self._ejected.values():
            for endpoint, until in ejected.items():
                if endpoint in current:
                    left[endpoint] = max(left.get(endpoint, 0.0), until - now)
        return left


class SharedListener:
    """One address that clients reach, served by several processes, or refusing.

    Args:
        pool: Told when it is closed.
        number: Its name in messages.
        group: Whose clients come here.
        protocol: TCP or UDP.
        sockets: One for each worker that serves it; the listener closes them.
    """

    def __init__(
        self,
        pool: WorkerPool,
        number: int,
        group: SharedGroup,
        protocol: Protocol,
        sockets: SharedSockets,
    ) -> None:
        self._pool = pool
        self.number = number
        self.group = group
        self.protocol = protocol
        self.sockets = sockets
        self.workers = tuple(sockets.by_worker)
        """Who serves it."""
        self.address = sockets.at
        """Where it is bound, with the port that was chosen."""
        self.is_serving = True
        """False while clients are refused."""
        self.is_closed = False
        self.closing: Counter[int] = Counter()
        """How often each worker is yet to say that it has closed its copy of a UDP socket: until
        then the port is taken."""

    def opening(self) -> OpenListener:
        """Return the message by which a worker learns of it."""
        return OpenListener(
            self.number, self.group.number, str(self.protocol), *self.address, self.is_serving
        )

    def close(self) -> None:
        """Close it; TCP connections go on, UDP flows end. Idempotent."""
        self._pool.close_listener(self)
