"""``sessionAffinity: ClientIP``: remembers which endpoint served which client.

    AffinityTables     all affinity entries (pins) of a worker: a bounded number
    └─ AffinityTable   the entries of one Service port, least recently used first

Rule 1: a single Service port may use all entries. At the bound, the port with the most entries
loses its least recently used entries (ADR 0015 does the same with connections).
Rule 2: an eviction needs no search: tables are sorted by size, which changes by one at a time.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Container, Iterable, Iterator

from ..model import SocketAddress
from ..shares import BySize

AffinityEntry = tuple[str, SocketAddress, float]
"""A client, its endpoint, and the seconds since the entry was last used."""

# The maximum number of entries: 32 MiB in each worker, for the clients of all its Service ports.
MAX_ENTRIES = 131_072
# The approximate memory of an entry: up to 270 bytes (measured, IPv6).
ENTRY_BYTES = 256
# The maximum number of entries dropped in one step, which takes 10 ms.
_STEP_ENTRIES = 8192


class AffinityTables:
    """The affinity entries of all Service ports of one worker.

    Args:
        max_entries: The bound; each entry beyond it evicts the least recently used entry of the
            largest table.
    """

    def __init__(self, max_entries: int = MAX_ENTRIES) -> None:
        self._max_entries = max_entries
        self._by_size = BySize[AffinityTable]()
        self._shared: dict[str, tuple[AffinityTable, set[object]]] = {}
        """The tables that ports of a Service share, each with its users."""

    def __len__(self) -> int:
        return self._by_size.total

    def free(self, excess: int) -> int:
        """Drop at most a few thousand entries to free ``excess`` bytes; return the freed bytes."""
        before = len(self)
        for _ in range(min(math.ceil(excess / ENTRY_BYTES), _STEP_ENTRIES, before)):
            self._forget_one()
        return (before - len(self)) * ENTRY_BYTES

    def join(self, service: str, user: object, timeout_s: float) -> AffinityTable:
        """Add a user of the table that a Service's ports share, and return the table."""
        if service not in self._shared:
            self._shared[service] = AffinityTable(timeout_s, self), set()
        table, users = self._shared[service]
        users.add(user)
        return table

    def leave(self, service: str, user: object) -> None:
        """Remove a user of a shared table; drop the table with its last user. Idempotent."""
        table, users = self._shared.get(service, (None, set[object]()))
        users.discard(user)
        if table is not None and not users:
            del self._shared[service]
            table.clear()

    def changed(self, table: AffinityTable) -> None:
        """Record that a table has grown or shrunk; drop one entry if the bound is exceeded."""
        self._by_size.put(table, len(table))
        if len(self) > self._max_entries:
            self._forget_one()

    def _forget_one(self) -> None:
        same = self._by_size.largest
        table, _ = same.popitem()
        # Pop and reinsert: next(iter(…)) would scan past the slots of all removed keys.
        same[table] = None
        table.forget_oldest()


class AffinityTable:
    """The entries of one Service port, or of a Service's ports, least recently used first.

    Args:
        timeout_s: Seconds from the last use until an entry expires.
        tables: The worker's tables; None if there are no other tables.
    """

    def __init__(self, timeout_s: float, tables: AffinityTables | None = None) -> None:
        self.timeout_s = timeout_s
        self._tables = AffinityTables() if tables is None else tables
        self._entries: OrderedDict[str, tuple[SocketAddress, float]] = OrderedDict()

    def each(self, now: float) -> Iterator[AffinityEntry]:
        """Yield the present entries, most recently used first; some may have expired.

        The table may change during the iteration: removed entries are skipped, and new entries
        aren't yielded. Ages are relative to ``now`` and never negative.
        """
        clients = list(self._entries)
        for client in reversed(clients):
            if (entry := self._entries.get(client)) is not None:
                endpoint, used = entry
                yield client, endpoint, max(0.0, now - used)

    def restore(self, entries: Iterable[AffinityEntry], now: float) -> None:
        """Add a previous process's entries, which begin with the most recently used entry.

        A client's most recent entry counts. Added entries count as used before all present entries,
        so further calls may add more. An entry that replaces its client's older entry counts as
        used after all others.
        """
        for client, endpoint, age_s in entries:
            used = now - max(0.0, age_s)
            known = self._entries.get(client)
            if known is None:
                self._entries[client] = (endpoint, used)
                self._entries.move_to_end(client, last=False)
                self._tables.changed(self)
            elif used > known[1]:
                # If several previous processes had an entry of the client, the latest counts.
                self._entries[client] = (endpoint, used)
                self._entries.move_to_end(client)

    def __len__(self) -> int:
        return len(self._entries)

    def lookup(
        self, client: str, usable: Container[SocketAddress], now: float
    ) -> SocketAddress | None:
        """Return the client's endpoint; this doesn't count as a use.

        Returns:
            None for a client without an entry. An entry that has expired, or whose endpoint is no
            longer usable, is dropped, with the same result.
        """
        entry = self._entries.get(client)
        if entry is None:
            return None
        endpoint, used = entry
        if now - used >= self.timeout_s or endpoint not in usable:
            del self._entries[client]
            self._tables.changed(self)
            return None
        return endpoint

    def remember(self, client: str, endpoint: SocketAddress, now: float) -> None:
        """Store the endpoint chosen for a client, or refresh its entry."""
        before = len(self._entries)
        self._entries[client] = (endpoint, now)
        self._entries.move_to_end(client)
        if len(self._entries) != before:
            self._tables.changed(self)

    def forget_oldest(self) -> None:
        """Drop the least recently used entry; the table must not be empty."""
        self._entries.popitem(last=False)
        if not self._entries:
            # Free the memory that a formerly large dictionary keeps.
            self._entries.clear()
        self._tables.changed(self)

    def clear(self) -> None:
        """Drop all entries; required when the table is no longer used. Idempotent."""
        self._entries.clear()
        self._tables.changed(self)
