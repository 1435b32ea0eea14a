"""Encodes records after the head of a response, until one doesn't fit.

    header, question │ answer │ authority │ additional │ EDNS
                     └─── the first record that doesn't fit ends the message

A record takes 1 to 3 µs, and a client gets the records that fit of a set that doesn't.

Rule 1: records of a set are sent in random order, so clients that use the first are balanced.
Rule 2: a response without all records of its answer or authority is marked as truncated.

Source: RFC 1035, RFC 2181 section 9 (truncation), RFC 2782 (names in SRV records are not
compressed).
"""

from __future__ import annotations

import functools
import itertools
import operator
import random
import socket
import struct
from collections.abc import Iterable
from typing import assert_never

from ..names import DnsAnswer, Pick, Record, RecordType
from .dns_wire import AFTER_NAME, CLASS_IN, HEADER, TRUNCATED, TYPES, encode_name

_POINTER = 0xC000
_POINTED_MAX = 0x3FFF
_U16 = struct.Struct(">H")
_SRV = struct.Struct(">HHH")
_SOA = struct.Struct(">5I")
# With a pointer of 2 bytes as its name. A name in an SRV record is at least w.s.svc.x.
_LEAST_BYTES = {"AAAA": 28, "SRV": 29}
_LEAST_BYTES_OF_OTHERS = 16
_NAME_TEXT_MAX = 254
_LABEL_MAX = 63

_set_of = operator.attrgetter("name", "type")


def pick_for(type_: str, size: int) -> Pick:
    """Return a choice of at least as many records of a type as fit, at random."""
    most = size // _LEAST_BYTES.get(type_, _LEAST_BYTES_OF_OTHERS) + 1
    return lambda count: range(count) if count <= most else random.sample(range(count), most)


def encode(head: bytes, edns: bytes, name: str, answer: DnsAnswer, size: int) -> bytes:
    """Return a response with as many of the records as fit.

    Args:
        head: The header and the question.
        edns: The record that ends the message; may be empty.
        name: That of the question.

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
        """Where names are that others may point to."""
        at = HEADER.size
        while name.strip("."):
            self._offsets[name] = at
            # Labels with other bytes are written with escapes, and aren't pointed to singly.
            if "\\" in name:
                break
            label, _, name = name.partition(".")
            at += len(label) + 1

    def add_all(self, records: Iterable[Record]) -> int:
        """Add records until one doesn't fit; return their number."""
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
        if not (0 < len(label) <= _LABEL_MAX and _is_plain(text)):
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


def _is_plain(name: str) -> bool:
    return name.isascii() and "\\" not in name and len(name) <= _NAME_TEXT_MAX


_encoded = functools.lru_cache(maxsize=1024)(encode_name)
