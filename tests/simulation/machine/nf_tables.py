"""A simulated nf_tables, which reads and writes netlink messages, and which can be made to fail.

    send ── batch ──▶ Transaction ── all of it ──▶ ruleset, generation + 1, events
                                  └─ refused ────▶ as it was
    send ── get ────▶ listing in parts, interrupted if the generation changes

Source: net/netfilter/nfnetlink.c, nfnetlink_rcv_batch(); nf_tables_api.c.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from random import Random
from typing import NamedTuple

from . import netlink_wire as wire
from . import nf_tables_listing as listing
from .conntrack_entries import SUBSYSTEM as CONNTRACK
from .conntrack_entries import Conntrack
from .netlink_kernel import NETFILTER, NetlinkKernel
from .netlink_sockets import Listing, NetlinkSocket
from .nf_tables_batch import GET_ELEMENT, GET_GENERATION, NEW_GENERATION, Event, Transaction
from .nf_tables_state import Ruleset

_BATCH_BEGIN, _BATCH_END = 0x10, 0x11
_EVENTS_GROUP = 7


class Fault(NamedTuple):
    """The error with which a transaction fails, and the message that fails."""

    code: int
    """An error number; 0 if this transaction doesn't fail, so that a later one can."""
    at_end: bool = False
    """Whether the last message fails, not the transaction as a whole."""
    answer_is_lost: bool = False
    """Whether the transaction is applied, but its ACK is lost for lack of memory."""


class NfTables:
    """nf_tables and connection tracking of one network namespace."""

    def __init__(self, kernel: NetlinkKernel, rng: Random) -> None:
        self._kernel = kernel
        self._rng = rng
        self.ruleset = Ruleset()
        # The ruleset whose listings are cached, except those of elements.
        self._listed_of = self.ruleset
        self._listed: dict[tuple[int, int, bytes, bytes], listing.Bodies] = {}
        self.conntrack = Conntrack(kernel)
        self.faults: list[Fault] = []
        """Faults of the next transactions, the next one last."""
        self.query_faults: list[int] = []
        """Error numbers for the next queries."""
        self.lacks: set[str] = set()
        """Expressions that this kernel lacks, and ``owner`` or ``set counter`` likewise."""
        self.elements_per_message = 3
        self._rehashed = ("", "")
        self.rehashes = 0
        """The number of next element listings that omit some elements without an indication."""
        self.lacked = 0
        """The number of listings that have omitted elements."""
        self.changed: Callable[[int, list[Event]], None] = lambda _port, _events: None
        """Called after each transaction with the port ID of its socket, and its events."""
        self.refused: Callable[[int, set[str], int], None] = lambda _port, _tables, _code: None
        """Called with the tables of a transaction that fails or has no batch end, and the error
        number; 0 if the transaction fails only because of a fault."""
        kernel.add(NETFILTER, self)

    def receive(self, sock: NetlinkSocket, data: bytes) -> None:
        all_requests = list(wire.requests(data))
        if all_requests and all_requests[0].kind == _BATCH_BEGIN:
            self._receive_batch(sock, all_requests)
            return
        for request in all_requests:
            if request.kind >> 8 == CONNTRACK:
                self.conntrack.receive(sock, request)
            else:
                self._receive_query(sock, request)

    def forget(self, sock: NetlinkSocket) -> None:
        """Delete the tables that a closed socket owns."""
        owned = [p for p, one in self.ruleset.tables.items() if one.owner == sock.port]
        if owned:
            self.ruleset = self.ruleset.copy()
        for place in owned:
            del self.ruleset.tables[place]

    def _receive_query(self, sock: NetlinkSocket, request: wire.Request) -> None:
        code = self.query_faults.pop() if self.query_faults else 0
        if request.kind == GET_GENERATION and not code:
            body = listing.generation(self.ruleset)
            sock.put(wire.message(NEW_GENERATION, 0, request.number, sock.port, body))
            return
        if not code and request.flags & wire.F_DUMP != wire.F_DUMP:
            code = errno.EOPNOTSUPP
        if not code and sock.listing is not None:
            code = errno.EBUSY
        family = request.body[0] if request.body else 0
        found = wire.table_of(request.body, wire.NETFILTER_BYTES)
        if not code:
            try:
                self._items(request.kind, family, found)
            except listing.Absent:
                code = errno.ENOENT
        if code:
            sock.put(wire.answer(request, code, sock.port))
            return
        items = self._source(request.kind, family, found)
        # The kernel doesn't detect changes of elements during a listing.
        is_noted = request.kind != GET_ELEMENT
        sequence = (lambda: self.ruleset.generation) if is_noted else None
        sock.begin(Listing(request.number, sock.port, items, sequence))

    def _source(
        self, kind: int, family: int, found: dict[int, bytes]
    ) -> Callable[[], listing.Bodies]:
        lost = -1
        place = wire.name(found.get(1)), wire.name(found.get(2))
        # Two listings in a row never omit elements of the same set.
        if self.rehashes and kind == GET_ELEMENT and self._rehashed != place:
            self.rehashes -= 1
            self.lacked += 1
            lost = self._rng.randrange(4)
            self._rehashed = place
        elif kind == GET_ELEMENT:
            self._rehashed = ("", "")

        def items() -> listing.Bodies:
            try:
                whole = self._items(kind, family, found)
            except listing.Absent:
                return []
            return [one for index, one in enumerate(whole) if index != lost]

        return items

    def _items(self, kind: int, family: int, found: dict[int, bytes]) -> listing.Bodies:
        if self._listed_of is not self.ruleset:
            self._listed_of, self._listed = self.ruleset, {}
        now, most = self._kernel.now(), self.elements_per_message
        if kind == GET_ELEMENT:
            return listing.items(self.ruleset, kind, family, found, now, most)
        place = kind, family, found.get(1, b""), found.get(2, b"")
        if place not in self._listed:
            self._listed[place] = listing.items(self.ruleset, kind, family, found, now, most)
        return self._listed[place]

    def _receive_batch(self, sock: NetlinkSocket, batch: list[wire.Request]) -> None:
        begin, changes = batch[0], batch[1:]
        is_whole = bool(changes) and changes[-1].kind == _BATCH_END
        changes = [one for one in changes if one.kind != _BATCH_END]
        fault = self.faults.pop() if self.faults and changes else None
        fault = fault if fault and fault.code else None
        tables = {wire.name(wire.table_of(one.body, 4).get(1)) for one in changes}
        if fault and not fault.at_end and not fault.answer_is_lost:
            self.refused(sock.port, tables, 0)
            sock.put(wire.answer(begin, fault.code, sock.port))
            return
        transaction = Transaction(self.ruleset, sock.port, self.lacks)
        answers: list[bytes] = []
        is_refused, first_code = False, 0
        for request in changes:
            code = transaction.apply(request)
            first_code = first_code or code
            if fault and fault.at_end and request is changes[-1]:
                code = code or fault.code
            is_refused |= bool(code)
            if code or request.flags & wire.F_ACK:
                answers.append(wire.answer(request, code, sock.port))
        if not is_refused and is_whole:
            if code := transaction.validate():
                is_refused, first_code = True, code
                sock.put(wire.answer(begin, code, sock.port))
            elif transaction.events:
                self._commit(transaction, sock.port)
        if is_refused or not is_whole:
            self.refused(sock.port, tables, first_code)
        if fault and fault.answer_is_lost:
            sock.lose()
            return
        for one in answers:
            sock.put(one)

    def _commit(self, transaction: Transaction, port: int) -> None:
        generation = self.ruleset.generation
        self.ruleset = transaction.ruleset
        self.ruleset.generation = generation + 1
        self._tell(transaction.events, port)
        self.changed(port, transaction.events)

    def _tell(self, events: list[Event], port: int) -> None:
        block = b"".join(
            wire.message(kind, 0, 0, port, listing.event(kind, family, table))
            for kind, family, table in events
        )
        kind, body = listing.new_generation(self.ruleset)
        last = wire.message(kind, 0, 0, port, body)
        self._kernel.multicast(NETFILTER, _EVENTS_GROUP, [block, last], port)
