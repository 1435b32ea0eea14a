"""Answers DNS messages; converts bytes to bytes.

    query ──▶ ServiceNames ──▶ answer
                  └── other names: the upstream server, or REFUSED

Rule 1: a message that isn't a query is never answered, so two servers can't answer each other.
Rule 2: any message other than a single question of at most 512 bytes gets FORMERR, and its
connection ends: a browser can send an HTTP request, of which later bytes must not be read as a
query.
Rule 3: messages between client and upstream server aren't parsed, except for ID and question. If
the upstream server doesn't answer in time, the client gets SERVFAIL.
Rule 4: a record that DNS can't carry (``externalName`` with a label of more than 63 bytes) causes
SERVFAIL for that query, and a log line.
Rule 5: the records of a set are shuffled to balance clients that use only the first record.
Rule 6: the first record that doesn't fit ends the message, which is marked as truncated if that
record belongs to the answer or authority section. A record takes 1 to 3 µs.

Source: RFC 1035, RFC 2181 section 9 (truncation), RFC 2782 (names in SRV records are not
compressed).
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import operator
import random
import secrets
import socket
import struct
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import assert_never

from ..clocks import Clocks
from ..log_fields import FieldLogger
from ..log_limit import LogLimit
from ..model import SocketAddress
from ..names import Code, DnsAnswer, Pick, Record, RecordType, ServiceNames
from .dns_client import ask_by_tcp, ask_by_udp, ask_for_addresses
from .dns_server import Answer, LastAnswer, Later
from .dns_wire import (
    AFTER_NAME,
    AUTHORITATIVE,
    CLASS_IN,
    HEADER,
    RECURSION_AVAILABLE,
    TRANSFERS,
    TRUNCATED,
    TYPES,
    UDP_BYTES_MAX,
    MalformedMessage,
    Query,
    ResponseCode,
    encode_name,
    is_message,
    is_truncated,
    make_query,
    read_query,
    truncate,
    write_format_error,
    write_response,
)

UPSTREAM_TIMEOUT_S = 2.0
"""The read timeout of CoreDNS's forward plugin."""
UDP_BYTES_PLAIN = 512
"""The limit for a client without EDNS. Source: RFC 1035, section 4.2.1."""
TCP_BYTES_MAX = 65535

# The errors raised without a usable answer; TimeoutError is a subclass of OSError.
_UNANSWERED = (OSError, EOFError, MalformedMessage)
_INVALID = (OSError, ValueError, struct.error, MalformedMessage)
_log = FieldLogger(__name__)


class Responder:
    """Answers messages for the Services of one proxy.

    Args:
        names: Returns the current names; None until the first Services have been read.
        upstream: The server for all other names; None to refuse queries for them.
        clock: Returns monotonic seconds, for the log.
    """

    def __init__(
        self,
        names: Callable[[], ServiceNames | None],
        upstream: SocketAddress | None = None,
        clock: Callable[[], float] = Clocks.monotonic,
    ) -> None:
        self._names = names
        self._upstream = upstream
        self._clock = clock
        self._log_limit = LogLimit()

    def respond(self, wire: bytes, *, is_udp: bool) -> Answer:
        """Return the answer, or a function that fetches it; None if the message isn't a query."""
        if not is_message(wire):
            return None
        try:
            query = read_query(wire)
        except MalformedMessage:
            return LastAnswer(write_format_error(wire))
        size = TCP_BYTES_MAX
        if is_udp:
            size = min(max(query.payload or 0, UDP_BYTES_PLAIN), UDP_BYTES_MAX)
        try:
            return self._respond(query, size, is_udp=is_udp)
        except _INVALID as exc:
            return self._cannot(query, exc)

    def _cannot(self, query: Query, exc: Exception) -> bytes:
        if self._log_limit.take(self._clock()):
            _log.warning(
                "%(query)s: cannot answer DNS query: %(cause)s",
                extra={"query": query.name, "cause": str(exc)},
            )
        return _failed(query, ResponseCode.SERVFAIL)

    def _respond(self, query: Query, size: int, *, is_udp: bool) -> bytes | Later:
        """Return the response, or a function that gets it by slow work or from the upstream."""
        if query.opcode:
            return _failed(query, ResponseCode.NOTIMP)
        if query.class_ != CLASS_IN or query.type_number in TRANSFERS:
            return _failed(query, ResponseCode.REFUSED)
        names = self._names()
        if names is None:
            return _failed(query, ResponseCode.SERVFAIL)
        if (prepare := names.preparation(query.name, query.type)) is not None:
            return functools.partial(self._prepared, prepare, query, size, is_udp=is_udp)
        answer = names.answer(query.name, query.type, pick_for(query.type, size))
        upstream = self._upstream
        if upstream is None:
            return _response(query, answer, size)
        is_reverse = f".{query.name.lower()}".endswith(".arpa.")
        if answer.code is Code.REFUSED or (answer.code is Code.NXDOMAIN and is_reverse):
            return functools.partial(_forward, query, upstream, size, is_udp=is_udp)
        wire = _response(query, answer, size, RECURSION_AVAILABLE)
        if answer.elsewhere and query.type in (RecordType.A, RecordType.AAAA):
            target = make_query(secrets.randbits(16), answer.elsewhere, query.type)
            return functools.partial(_add_target, query, answer, target, upstream, size)
        return wire

    async def _prepared(
        self, prepare: Callable[[], None], query: Query, size: int, *, is_udp: bool
    ) -> bytes | None:
        """Do slow work, and return the response; the records may have changed in between."""
        await asyncio.to_thread(prepare)
        try:
            answer = self._respond(query, size, is_udp=is_udp)
        except _INVALID as exc:
            return self._cannot(query, exc)
        return answer if isinstance(answer, bytes) else await answer()


async def _add_target(
    query: Query, answer: DnsAnswer, target: Query, upstream: SocketAddress, size: int
) -> bytes:
    """Return the response, with the target's addresses if the upstream server returns any."""
    try:
        found = await ask_for_addresses(upstream, target, UPSTREAM_TIMEOUT_S)
    except _UNANSWERED:
        return _response(query, answer, size, RECURSION_AVAILABLE)
    records = (
        Record(answer.elsewhere, RecordType(target.type), ip, found.ttl_s) for ip in found.addresses
    )
    whole = replace(answer, records=(*answer.records, *records))
    return _response(query, whole, size, RECURSION_AVAILABLE)


async def _forward(query: Query, upstream: SocketAddress, size: int, *, is_udp: bool) -> bytes:
    """Return the upstream server's answer, truncated if it doesn't fit; SERVFAIL without one."""
    try:
        found = await ask_by_udp(upstream, query, UPSTREAM_TIMEOUT_S)
        if is_truncated(found) and not is_udp:
            found = await ask_by_tcp(upstream, query, UPSTREAM_TIMEOUT_S)
    except _UNANSWERED:
        return _failed(query, ResponseCode.SERVFAIL)
    return found if len(found) <= size else truncate(found, query)


def _response(query: Query, answer: DnsAnswer, size: int, flags: int = 0) -> bytes:
    if answer.is_authoritative:
        flags |= AUTHORITATIVE
    head, end = write_response(query, ResponseCode[answer.code], flags)
    return encode(head, end, query.name, answer, size)


def _failed(query: Query, code: ResponseCode) -> bytes:
    return b"".join(write_response(query, code))


_POINTER = 0xC000
_POINTED_MAX = 0x3FFF
_U16 = struct.Struct(">H")
_SRV = struct.Struct(">HHH")
_SOA = struct.Struct(">5I")
# The minimum size of a record whose name is a compression pointer of 2 bytes. The shortest target
# of an SRV record is w.s.svc.x.
_LEAST_BYTES = {"AAAA": 28, "SRV": 29}
_LEAST_BYTES_OF_OTHERS = 16
_NAME_TEXT_MAX = 254
_LABEL_MAX = 63

_set_of = operator.attrgetter("name", "type")


def pick_for(type_: str, size: int) -> Pick:
    """Return a function that picks indexes of records: all, or a random sample of more than fit."""
    most = size // _LEAST_BYTES.get(type_, _LEAST_BYTES_OF_OTHERS) + 1
    return lambda count: range(count) if count <= most else random.sample(range(count), most)


def encode(head: bytes, edns: bytes, name: str, answer: DnsAnswer, size: int) -> bytes:
    """Return a response with as many records as fit.

    Args:
        head: The header and the question.
        edns: The OPT record that ends the message; may be empty.
        name: The name in the question.

    Raises:
        OSError, ValueError, struct.error, MalformedMessage: DNS can't carry a record.
    """
    number, flags, questions, *_ = HEADER.unpack_from(head)
    records = _Records(head, name, size - len(edns))
    counts = [records.add_all(answer.records), records.add_all(answer.authority)]
    if answer.is_partial or not records.has_room:
        flags |= TRUNCATED
    counts.append(records.add_all(answer.additional) + bool(edns))
    HEADER.pack_into(records.wire, 0, number, flags, questions, *counts)
    return bytes(records.wire) + edns


class _Records:
    """A message to which records are added."""

    def __init__(self, head: bytes, name: str, size: int) -> None:
        self.wire = bytearray(head)
        self.has_room = True
        self._size = size
        self._offsets: dict[str, int] = {}
        """Offsets of names that compression pointers may refer to."""
        at = HEADER.size
        while name.strip("."):
            self._offsets[name] = at
            # Labels with other bytes contain escapes, so no compression pointer can refer to their
            # suffixes.
            if "\\" in name:
                break
            label, _, name = name.partition(".")
            at += len(label) + 1

    def add_all(self, records: Iterable[Record]) -> int:
        """Add records, each set in random order, until one doesn't fit; return their number."""
        count = 0
        for _, grouped in itertools.groupby(records, _set_of):
            together = list(grouped)
            random.shuffle(together)
            for record in together:
                if not self.has_room:
                    return count
                start = len(self.wire)
                self._add(record)
                if len(self.wire) > self._size:
                    del self.wire[start:]
                    self.has_room = False
                    return count
                count += 1
        return count

    def _add(self, record: Record) -> None:
        self._name(record.name)
        self.wire += AFTER_NAME.pack(TYPES[record.type], CLASS_IN, record.ttl_s, 0)
        start = len(self.wire)
        self._data(record.type, record.data)
        _U16.pack_into(self.wire, start - _U16.size, len(self.wire) - start)

    def _data(self, type_: RecordType, data: str) -> None:
        match type_:
            case RecordType.A:
                self.wire += socket.inet_pton(socket.AF_INET, data)
            case RecordType.AAAA:
                self.wire += socket.inet_pton(socket.AF_INET6, data)
            case RecordType.CNAME | RecordType.PTR:
                self._name(data)
            case RecordType.SRV:
                priority, weight, port, to = data.split(" ", 3)
                self.wire += _SRV.pack(int(priority), int(weight), int(port))
                self._name(to, is_compressed=False)
            case RecordType.SOA:
                server, mailbox, *numbers = data.split(" ")
                self._name(server)
                self._name(mailbox)
                self.wire += _SOA.pack(*map(int, numbers))
            case RecordType.TXT:
                text = data.strip('"').encode()
                self.wire.append(len(text))
                self.wire += text
            case _:
                assert_never(type_)

    def _name(self, text: str, *, is_compressed: bool = True) -> None:
        label, _, rest = text.partition(".")
        if is_compressed and self._point_to(text):
            return
        is_plain = text.isascii() and "\\" not in text and len(text) <= _NAME_TEXT_MAX
        if not (is_plain and 0 < len(label) <= _LABEL_MAX):
            self.wire += _encoded(text)
        else:
            self._offsets.setdefault(text, len(self.wire))
            self.wire.append(len(label))
            self.wire += label.encode()
            if not (is_compressed and self._point_to(rest)):
                self._offsets.setdefault(rest, len(self.wire))
                self.wire += _encoded(rest)

    def _point_to(self, name: str) -> bool:
        offset = self._offsets.get(name, _POINTED_MAX + 1)
        if offset > _POINTED_MAX:
            return False
        self.wire += _U16.pack(_POINTER | offset)
        return True


_encoded = functools.lru_cache(maxsize=1024)(encode_name)
