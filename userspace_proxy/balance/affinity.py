"""``sessionAffinity: ClientIP``: remembers which endpoint served which client.

    AffinityTables     all pins of a worker: a bounded number
    └─ AffinityTable   those of one Service port, the longest unused first

Rule 1: below the bound a Service port may have all pins; at the bound the one with the most loses
those that were unused for longest (ADR 0015 does the same with connections).
Rule 2: no pin costs a search: tables are kept by their size, which changes by one at a time.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Container, Iterable, Iterator

from ..model import SocketAddress
from ..shares import BySize

Pin = tuple[str, SocketAddress, float]
"""A client, its endpoint, and the seconds since the pin was used."""

# 32 MiB in each worker, which has the clients of all its Service ports.
MAX_PINS = 131_072
# A pin takes up to 270 bytes (measured, IPv6).
PIN_BYTES = 256
# Forgotten in one step: 10 ms.
_STEP_PINS = 8192


class AffinityTables:
    """The pins of all Service ports of one worker.

    Args:
        max_pins: Beyond, the table with the most loses its longest unused pin for each new one.
    """

    def __init__(self, max_pins: int = MAX_PINS) -> None:
        self._max_pins = max_pins
        self._by_size = BySize[AffinityTable]()

    def __len__(self) -> int:
        return self._by_size.total

    def free(self, excess: int) -> int:
        """Forget pins that take that many bytes, some thousand at most; return how many bytes."""
        before = len(self)
        for _ in range(min(math.ceil(excess / PIN_BYTES), _STEP_PINS, before)):
            self._forget_one()
        return (before - len(self)) * PIN_BYTES

    def changed(self, table: AffinityTable) -> None:
        """Note that a table has more or fewer pins than it had; beyond the bound one goes."""
        self._by_size.put(table, len(table))
        if len(self) > self._max_pins:
            self._forget_one()

    def _forget_one(self) -> None:
        same = self._by_size.largest
        table, _ = same.popitem()
        # An iterator would walk over all that were removed before.
        same[table] = None
        table.forget_oldest()


class AffinityTable:
    """The pins of one Service port, the longest unused first.

    Args:
        timeout_s: Seconds from the last use until a pin is forgotten.
        tables: Those of the worker; None: this table is the only one.
    """

    def __init__(self, timeout_s: float, tables: AffinityTables | None = None) -> None:
        self.timeout_s = timeout_s
        self._tables = AffinityTables() if tables is None else tables
        self._pins: OrderedDict[str, tuple[SocketAddress, float]] = OrderedDict()

    def each(self, now: float) -> Iterator[Pin]:
        """Yield the pins of the first call, the last used first; some may have timed out.

        The table may change meanwhile. Ages are as of ``now``, none is negative.
        """
        clients = list(self._pins)
        for client in reversed(clients):
            if (pin := self._pins.get(client)) is not None:
                endpoint, used = pin
                yield client, endpoint, max(0.0, now - used)

    def restore(self, pins: Iterable[Pin], now: float) -> None:
        """Add pins of a former process, the last used first; of a client's, the last used counts.

        Those that are new count as used before all that are present, so parts may follow each
        other. One that replaces an older one of its client counts as used after them.
        """
        for client, endpoint, age_s in pins:
            used = now - max(0.0, age_s)
            known = self._pins.get(client)
            if known is None:
                self._pins[client] = (endpoint, used)
                self._pins.move_to_end(client, last=False)
                self._tables.changed(self)
            elif used > known[1]:
                # Several former processes have it, of which one may have served it since.
                self._pins[client] = (endpoint, used)
                self._pins.move_to_end(client)

    def __len__(self) -> int:
        return len(self._pins)

    def lookup(
        self, client: str, usable: Container[SocketAddress], now: float
    ) -> SocketAddress | None:
        """Return the client's endpoint, without counting as a use.

        Returns:
            None for a client without a pin, whose pin has timed out, or whose endpoint is no
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
        """Remember the choice for a client, or that it was used again."""
        before = len(self._pins)
        self._pins[client] = (endpoint, now)
        self._pins.move_to_end(client)
        if len(self._pins) != before:
            self._tables.changed(self)

    def forget_oldest(self) -> None:
        """Forget the pin that was unused for longest; there is one."""
        self._pins.popitem(last=False)
        if not self._pins:
            # Frees what a table that was large keeps.
            self._pins.clear()
        self._tables.changed(self)

    def clear(self) -> None:
        """Forget all pins; required of a table that isn't used any more. Idempotent."""
        self._pins.clear()
        self._tables.changed(self)
