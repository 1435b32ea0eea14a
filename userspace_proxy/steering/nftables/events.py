"""Tells whether somebody else has touched our table, by the kernel's number of its ruleset.

    any transaction ──▶ kernel: generation + 1 ──▶ events: what changed, then NEWGEN

Asking for the generation takes 10 µs, so it is what is asked each second. Only when it is another
one are the events read, and only when one of them names our table is it for us.

Rule 1: what we do ourselves makes no events: the kernel is told not to send them meanwhile.
Rule 2: where events may be missing, the table counts as touched.

Source: include/uapi/linux/netfilter/nf_tables.h and nfnetlink.h; nf_tables_commit().
"""

from __future__ import annotations

import contextlib
import errno
import struct
from collections.abc import Iterator
from typing import NamedTuple

from ...errors import SteeringError
from ..netlink import Events, Requests
from ..netlink.messages import DUMP, Message, read_attributes, request
from ..netlink.sockets import NETLINK_NETFILTER

NFNLGRP_NFTABLES = 7
# NFNL_SUBSYS_NFTABLES, which is 10, and the kind of message.
GET_TABLE, NEW_GENERATION, GET_GENERATION = 0xA01, 0xA0F, 0xA10
_SUBSYSTEM = 0xA
NFPROTO_UNSPEC, NFPROTO_INET = 0, 1
# NFTA_GEN_ID; and NFTA_TABLE_NAME, NFTA_CHAIN_TABLE, NFTA_RULE_TABLE … are all the first.
_FIRST = 1
# Of struct nfgenmsg: the family, version 0, no resource.
_FAMILY = struct.Struct("=BBH")
# What kernels without nfnetlink or nf_tables say.
_NOT_THERE = (errno.EPROTONOSUPPORT, errno.EINVAL, errno.EOPNOTSUPP)


class Event(NamedTuple):
    """One event of the kernel."""

    family: int
    table: str
    """Whose it is; empty for the end of a transaction."""
    generation: int = 0
    """At the end of a transaction: the ruleset's number from then on."""


def read_event(message: Message) -> Event | None:
    """Return the event of a message; None where it is of another part of the kernel."""
    if message.kind >> 8 != _SUBSYSTEM or len(message.body) < _FAMILY.size:
        return None
    attributes = read_attributes(message.body, _FAMILY.size)
    value = next((value for kind, value in attributes if kind == _FIRST), b"")
    if message.kind == NEW_GENERATION:
        return Event(message.body[0], "", int.from_bytes(value, "big"))
    return Event(message.body[0], value.rstrip(b"\0").decode(errors="replace"))


def list_tables() -> list[str]:
    """Return the names of all tables of the family ``inet``; empty where nftables is missing.

    Raises:
        SteeringError: There is no right to ask.
    """
    try:
        with Requests.open(NETLINK_NETFILTER) as requests:
            listed = requests.list_all(_request(GET_TABLE, DUMP, NFPROTO_INET))
    except OSError as exc:
        if exc.errno in _NOT_THERE:
            return []
        raise _explained(exc) from exc
    return [event.table for event in map(read_event, listed) if event is not None]


class TableWatch:
    """Watches a table of the family ``inet`` in this thread's network namespace.

    Args:
        table: Its name.

    Raises:
        SteeringError: The kernel has no nftables, or gives no right.
    """

    def __init__(self, table: str) -> None:
        self._table = table
        with contextlib.ExitStack() as opened:
            try:
                self._requests = Requests.open(NETLINK_NETFILTER)
                opened.callback(self._requests.close)
                self._events = Events(NETLINK_NETFILTER, [NFNLGRP_NFTABLES])
                opened.callback(self._events.close)
                self._seen = self._generation()
            except OSError as exc:
                raise _explained(exc) from exc
            opened.pop_all()
        self._is_touched = False

    def is_touched(self) -> bool:
        """Return whether somebody else has changed the table since :meth:`settle`."""
        if not self._is_touched and self._ask() != self._seen:
            self._read()
        return self._is_touched

    def settle(self) -> None:
        """Forget what was; to be called before the table is read, so nothing is missed."""
        generation = self._ask()
        self._read()
        self._seen = max(self._seen, generation)
        self._is_touched = False

    @contextlib.contextmanager
    def own_change(self) -> Iterator[None]:
        """Make one transaction of our own without calling it somebody else's."""
        before = self._ask()
        self._read()
        is_quiet = before == self._seen
        self._events.unsubscribe(NFNLGRP_NFTABLES)
        try:
            yield
        finally:
            self._events.subscribe(NFNLGRP_NFTABLES)
            self._seen = self._ask()
            if not is_quiet or self._seen not in (before, before + 1):
                # Others were at work meanwhile; what they did nobody has told us.
                self._is_touched = True

    def close(self) -> None:
        """Close the sockets; idempotent."""
        self._requests.close()
        self._events.close()

    def _ask(self) -> int:
        try:
            return self._generation()
        except OSError as exc:
            raise _explained(exc) from exc

    def _generation(self) -> int:
        answer = read_event(self._requests.ask(_request(GET_GENERATION, 0, NFPROTO_UNSPEC)))
        return 0 if answer is None else answer.generation

    def _read(self) -> None:
        """Read all events that are there.

        The generation counts as seen when its event was: the kernel counts before it sends.
        """
        try:
            heard = self._events.read()
        except OSError as exc:
            raise _explained(exc) from exc
        self._is_touched |= heard.has_lost
        for event in map(read_event, heard.messages):
            if event is not None:
                self._seen = max(self._seen, event.generation)
                is_ours = event.family == NFPROTO_INET and event.table == self._table
                self._is_touched |= is_ours


def _request(kind: int, flags: int, family: int) -> bytes:
    return request(kind, flags, _FAMILY.pack(family, 0, 0))


def _explained(exc: OSError) -> SteeringError:
    if exc.errno in (errno.EPERM, errno.EACCES):
        hint = "run as root or grant NET_ADMIN, or run with --steering=none"
    else:
        hint = "modprobe nf_tables, or take another steering"
    return SteeringError(f"cannot ask nftables: {exc.strerror}", hint=hint)
