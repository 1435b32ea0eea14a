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
import os
import socket
import struct
from collections.abc import Iterator
from typing import NamedTuple

from ...errors import SteeringError

NETLINK_NETFILTER = 12
SOL_NETLINK = 270
ADD_MEMBERSHIP, DROP_MEMBERSHIP = 1, 2
NFNLGRP_NFTABLES = 7
NLMSG_ERROR, NLMSG_DONE = 2, 3
NLM_F_REQUEST, NLM_F_DUMP = 0x1, 0x300
# NFNL_SUBSYS_NFTABLES, which is 10, and the kind of message.
GET_TABLE, NEW_GENERATION, GET_GENERATION = 0xA01, 0xA0F, 0xA10
_SUBSYSTEM = 0xA
NFPROTO_INET = 1
# NFTA_GEN_ID; and NFTA_TABLE_NAME, NFTA_CHAIN_TABLE, NFTA_RULE_TABLE … are all the first.
_FIRST = 1
_HEADER = struct.Struct("=IHHII")
_FAMILY = struct.Struct("=BBH")
_ATTRIBUTE = struct.Struct("=HH")
_BODY = _HEADER.size + _FAMILY.size
_KIND = 0x3FFF
_READ_BYTES = 1 << 16
# What kernels without nfnetlink or nf_tables say.
_NOT_THERE = (errno.EPROTONOSUPPORT, errno.EINVAL, errno.EOPNOTSUPP)


class Event(NamedTuple):
    """One event of the kernel."""

    family: int
    table: str
    """Whose it is; empty for the end of a transaction."""
    generation: int = 0
    """At the end of a transaction: the ruleset's number from then on."""


def read_events(block: bytes) -> Iterator[Event]:
    """Yield the events of a datagram.

    Raises:
        OSError: It is a refusal.
    """
    start = 0
    while start + _HEADER.size <= len(block):
        size, kind, *_ = _HEADER.unpack_from(block, start)
        if size < _BODY or start + size > len(block):
            return
        message = block[start : start + size]
        if kind == NLMSG_ERROR:
            code = -struct.unpack_from("=i", message, _HEADER.size)[0]
            raise OSError(code, os.strerror(code))
        if kind >> 8 == _SUBSYSTEM:
            value = _first_attribute(message)
            if kind == NEW_GENERATION:
                yield Event(message[_HEADER.size], "", int.from_bytes(value, "big"))
            else:
                yield Event(message[_HEADER.size], value.rstrip(b"\0").decode(errors="replace"))
        start += (size + 3) & ~3


def _first_attribute(message: bytes) -> bytes:
    start = _BODY
    while start + _ATTRIBUTE.size <= len(message):
        size, kind = _ATTRIBUTE.unpack_from(message, start)
        if kind & _KIND == _FIRST:
            return message[start + _ATTRIBUTE.size : start + size]
        start += max((size + 3) & ~3, _ATTRIBUTE.size)
    return b""


def list_tables() -> list[str]:
    """Return the names of all tables of the family ``inet``; empty where nftables is missing.

    Raises:
        SteeringError: There is no right to ask.
    """
    names: list[str] = []
    flags = NLM_F_REQUEST | NLM_F_DUMP
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER) as requests:
            requests.send(_request(GET_TABLE, flags, NFPROTO_INET))
            is_last = False
            while not is_last:
                block = requests.recv(_READ_BYTES)
                names += [event.table for event in read_events(block) if event.table]
                is_last = _ends_listing(block)
    except OSError as exc:
        if exc.errno in _NOT_THERE:
            return []
        raise _explained(exc) from exc
    return names


class TableWatch:
    """Watches a table of the family ``inet`` in this thread's network namespace.

    Args:
        table: Its name.

    Raises:
        SteeringError: The kernel has no nftables, or gives no right.
    """

    def __init__(self, table: str) -> None:
        self._table = table
        self._requests = _open()
        self._events = _open()
        self._events.setblocking(False)
        try:
            # A socket without an address of its own is passed over by the kernel's events.
            self._events.bind((0, 0))
            self._events.setsockopt(SOL_NETLINK, ADD_MEMBERSHIP, NFNLGRP_NFTABLES)
            self._seen = self._generation()
        except OSError as exc:
            self.close()
            raise _explained(exc) from exc
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
        self._events.setsockopt(SOL_NETLINK, DROP_MEMBERSHIP, NFNLGRP_NFTABLES)
        try:
            yield
        finally:
            self._events.setsockopt(SOL_NETLINK, ADD_MEMBERSHIP, NFNLGRP_NFTABLES)
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
        self._requests.send(_request(GET_GENERATION, NLM_F_REQUEST))
        return next(read_events(self._requests.recv(_READ_BYTES))).generation

    def _read(self) -> None:
        """Read all events that are there.

        The generation counts as seen when its event was: the kernel counts before it sends.
        """
        while True:
            try:
                for event in read_events(self._events.recv(_READ_BYTES)):
                    self._seen = max(self._seen, event.generation)
                    if event.family == NFPROTO_INET and event.table == self._table:
                        self._is_touched = True
            except BlockingIOError:
                return
            except OSError as exc:
                if exc.errno != errno.ENOBUFS:
                    raise _explained(exc) from exc
                # Events were lost.
                self._is_touched = True


def _request(kind: int, flags: int, family: int = 0) -> bytes:
    return _HEADER.pack(_BODY, kind, flags, 0, 0) + _FAMILY.pack(family, 0, 0)


def _ends_listing(block: bytes) -> bool:
    """Return whether a datagram of a listing has its end, which is alone or the last in it."""
    start = kind = 0
    while start + _HEADER.size <= len(block):
        size, kind, *_ = _HEADER.unpack_from(block, start)
        start += max((size + 3) & ~3, _HEADER.size)
    return kind == NLMSG_DONE


def _open() -> socket.socket:
    try:
        return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)
    except OSError as exc:
        raise _explained(exc) from exc


def _explained(exc: OSError) -> SteeringError:
    if exc.errno in (errno.EPERM, errno.EACCES):
        hint = "run as root or grant NET_ADMIN, or run with --steering=none"
    else:
        hint = "modprobe nf_tables, or take another steering"
    return SteeringError(f"cannot ask nftables: {exc.strerror}", hint=hint)
