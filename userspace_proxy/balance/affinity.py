"""``sessionAffinity: ClientIP``: remembers which endpoint served which client.

    AffinityTables     all affinity entries (pins) of a worker: a bounded number
    └─ AffinityTable   the entries of one Service port, least recently used first

Rule 1: one Service port may fill the whole bound; at the bound the port with the most entries loses
its least recently used ones (ADR 0015 does the same with connections).
Rule 2: no entry costs a search: tables are sorted by size, which changes by one at a time.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Container, Iterable, Iterator

from ..model import SocketAddress
from ..shares import BySize

Pin = tuple[str, SocketAddress, float]
"""A client, its endpoint, and the seconds since the entry was used."""

# 32 MiB in each worker, for the clients of all its Service ports.
MAX_PINS = 131_072
# An entry takes up to 270 bytes (measured, IPv6).
PIN_BYTES = 256
# Entries dropped in one step, which takes 10 ms.
_STEP_PINS = 8192


class AffinityTables:
    """The affinity entries of all Service ports of one worker.

    Args:
        max_pins: Beyond, each new entry evicts the least recently used one of the largest table.
    """

    def __init__(self, max_pins: int = MAX_PINS) -> None:
        self._max_pins = max_pins
        self._by_size = BySize[AffinityTable]()

    def __len__(self) -> int:
        return self._by_size.total

    def free(self, excess: int) -> int:
        """Drop entries that take ``excess`` bytes, a few thousand at most; return bytes freed."""
        before = len(self)
        for _ in range(min(math.ceil(excess / PIN_BYTES), _STEP_PINS, before)):
            self._forget_one()
        return (before - len(self)) * PIN_BYTES

    def changed(self, table: AffinityTable) -> None:
        """Note that a table has grown or shrunk; drop one entry beyond the bound."""
        self._by_size.put(table, len(table))
        if len(self) > self._max_pins:
            self._forget_one()

    def _forget_one(self) -> None:
        same = self._by_size.largest
        table, _ = same.popitem()
        # An iterator would step over all slots of removed keys.
        same[table] = None
        table.forget_oldest()


class AffinityTable:
    """The affinity entries of one Service port, least recently used first.

    Args:
        timeout_s: Seconds from the last use until an entry expires.
        tables: The worker's tables; None: this table is the only one.
    """

    def __init__(self, timeout_s: float, tables: AffinityTables | None = None) -> None:
        self.timeout_s = timeout_s
        self._tables = AffinityTables() if tables is None else tables
        self._pins: OrderedDict[str, tuple[SocketAddress, float]] = OrderedDict()

    def each(self, now: float) -> Iterator[Pin]:
        """Yield the entries as of the first call, last used first; some may have expired.

        The table may change meanwhile. Ages are relative to ``now`` and never negative.
        """
        clients = list(self._pins)
        for client in reversed(clients):
            if (pin := self._pins.get(client)) is not None:
                endpoint, used = pin
                yield client, endpoint, max(0.0, now - used)

    def restore(self, pins: Iterable[Pin], now: float) -> None:
        """Add a previous process's entries, last used first; a client's last used one wins.

        New entries count as used before all present ones, so parts may follow each other. An entry
        that replaces its client's older entry counts as used after them.
        """
        for client, endpoint, age_s in pins:
            used = now - max(0.0, age_s)
            known = self._pins.get(client)
            if known is None:
                self._pins[client] = (endpoint, used)
                self._pins.move_to_end(client, last=False)
                self._tables.changed(self)
            elif used > known[1]:
                # Several previous processes have this client; another may have served it later.
                self._pins[client] = (endpoint, used)
                self._pins.move_to_end(client)

    def __len__(self) -> int:
        return len(self._pins)

    def lookup(
        self, client: str, usable: Container[SocketAddress], now: float
    ) -> SocketAddress | None:
        """Return the client's endpoint; this doesn't count as a use.

        Returns:
            None for a client without an entry, with an expired entry, or whose endpoint is no
            longer usable.
        """
        pin = self._pins.get(client)
        if pin is None:
            return None
        endpoint, used = pin
        if now - used >= self.timeout_s or endpoint not in usable:
            del self._pins[client]
            self._tables.changed(self)
            return None
        return endpoint

    def pin(self, client: str, endpoint: SocketAddress, now: float) -> None:
        """Store the endpoint chosen for a client, or refresh its entry."""
        before = len(self._pins)
        self._pins[client] = (endpoint, now)
        self._pins.move_to_end(client)
        if len(self._pins) != before:
            self._tables.changed(self)

    def forget_oldest(self) -> None:
        """Drop the least recently used entry; the table mustn't be empty."""
        self._pins.popitem(last=False)
        if not self._pins:
            # Frees the memory that a once large dictionary keeps.
            self._pins.clear()
        self._tables.changed(self)

    def clear(self) -> None:
        """Drop all entries; required when the table is no longer used. Idempotent."""
        self._pins.clear()
        self._tables.changed(self)
