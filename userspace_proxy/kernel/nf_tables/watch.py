"""Detects changes of this proxy's tables by other programs, by the ruleset's generation number.

    any transaction ──▶ kernel: generation + 1 ──▶ events: what changed, then NEWGEN

Asking for the generation takes 10 µs, so it is what is asked each second. Only if it is another
one are the events read, and only if one of them names our table does it count.

Rule 1: our own changes make no events: the socket leaves the group meanwhile.
Rule 2: where events may be missing, the table counts as touched.

Source: include/uapi/linux/netfilter/nf_tables.h and nfnetlink.h; nf_tables_commit().
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import NamedTuple

from ..netlink import Events
from ..netlink.messages import Message
from ..netlink.sockets import NETLINK_NETFILTER
from .attributes import number_in, read_all, text_in
from .errors import explained
from .reader import NEW_GENERATION
from .ruleset import Ruleset
from .writer import INET, TABLE

NFNLGRP_NFTABLES = 7
_SUBSYSTEM = 0xA
# Of struct nfgenmsg.
_HEADER_BYTES = 4


class Event(NamedTuple):
    """One event of the kernel."""

    family: int
    table: str
    """The table that it is about; empty for the end of a transaction."""
    generation: int = 0
    """At the end of a transaction: the ruleset's number from then on."""


def read_event(message: Message) -> Event | None:
    """Return the event of a message; None where it is of another part of the kernel."""
    if message.kind >> 8 != _SUBSYSTEM or len(message.body) < _HEADER_BYTES:
        return None
    found = read_all(message.body, _HEADER_BYTES)
    if message.kind == NEW_GENERATION:
        return Event(message.body[0], "", number_in(found, TABLE))
    return Event(message.body[0], text_in(found, TABLE))


class TableWatch:
    """Watches a table in this thread's network namespace.

    Args:
        ruleset: Asked for the generation; closed by its owner.
        table: The table's name.
        family: Its family.

    Raises:
        SteeringError: The kernel has no nftables, or gives no right.
    """

    def __init__(self, ruleset: Ruleset, table: str, family: int = INET) -> None:
        self._ruleset = ruleset
        self._table = (family, table)
        try:
            self._events = Events(NETLINK_NETFILTER, [NFNLGRP_NFTABLES])
        except OSError as exc:
            raise explained(exc) from exc
        self._seen = ruleset.generation()
        self._is_touched = False

    def is_touched(self) -> bool:
        """Return whether another program has changed the table since :meth:`settle`."""
        if not self._is_touched and self._ruleset.generation() != self._seen:
            self._read()
        return self._is_touched

    def settle(self) -> None:
        """Forget what was; to be called before the table is read, so nothing is missed."""
        generation = self._ruleset.generation()
        self._read()
        self._seen = max(self._seen, generation)
        self._is_touched = False

    @contextlib.contextmanager
    def own_change(self) -> Iterator[None]:
        """Make one transaction of our own without taking it for another program's."""
        before = self._ruleset.generation()
        self._read()
        is_quiet = before == self._seen
        self._events.unsubscribe(NFNLGRP_NFTABLES)
        try:
            yield
        finally:
            self._events.subscribe(NFNLGRP_NFTABLES)
            self._seen = self._ruleset.generation()
            if not is_quiet or self._seen not in (before, before + 1):
                # Other programs made changes meanwhile, of which there were no events.
                self._is_touched = True

    def close(self) -> None:
        """Close its socket; idempotent."""
        self._events.close()

    def _read(self) -> None:
        """Read all events that are there.

        The generation counts as seen when its event was: the kernel counts before it sends.
        """
        try:
            heard = self._events.read()
        except OSError as exc:
            raise explained(exc) from exc
        self._is_touched |= heard.has_lost
        for event in map(read_event, heard.messages):
            if event is not None:
                self._seen = max(self._seen, event.generation)
                self._is_touched |= (event.family, event.table) == self._table
