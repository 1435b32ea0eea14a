"""Reads and writes the DNS messages that this proxy uses, as bytes.

    query of a client ──read_query──▶ name, type, room for the answer
    answer of a server ──read_answer──▶ addresses, shortest TTL, code

Rule 1: a query is a header, one question and at most one EDNS record, in at most 512 bytes. A
message with another length or other counts is refused before it is parsed.
Rule 2: at most 64 records of an answer are read, and of each only its address and TTL. Names are
skipped: the queried server decides which records answer the question, regardless of their names.
Rule 3: each byte is read once, and compression pointers aren't followed, so the time is linear.

Source: RFC 1035; RFC 6891 (EDNS); RFC 2181, section 8 (TTL); docs/adr/0088-dns-messages-by-hand.md.
"""

from __future__ import annotations

import enum
import ipaddress
import struct
from typing import NamedTuple

from ..errors import UserspaceProxyError

QUERY_BYTES_MAX = 512
"""The maximum size of a query: names are up to 255 bytes, and options such as cookies about 30."""
RECORDS_MAX = 64
"""The maximum number of records read from one answer."""
UDP_BYTES_MAX = 1232
"""The largest datagram that isn't fragmented. Source: DNS flag day 2020."""

HEADER = struct.Struct(">HHHHHH")
"""The ID, the flags, and the counts of questions, answers, authority and additional records."""
AFTER_NAME = struct.Struct(">HHIH")
"""The type, class and TTL of a record, and the length of its data."""
TYPES = {"A": 1, "CNAME": 5, "SOA": 6, "PTR": 12, "TXT": 16, "AAAA": 28, "SRV": 33}
TRANSFERS = (251, 252)
"""The query types IXFR and AXFR."""
CLASS_IN = 1
RESPONSE, AUTHORITATIVE, TRUNCATED = 0x8000, 0x0400, 0x0200
RECURSION_DESIRED, RECURSION_AVAILABLE = 0x0100, 0x0080

_OPCODE = 0x7800
_CODE = 0x000F
_NAMES = {number: name for name, number in TYPES.items()}
_QUESTION_END = struct.Struct(">HH")
_POINTER = 0xC0
_LABEL_MAX = 63
_NAME_MAX = 255
_TTL_MAX = 0x7FFFFFFF
_EDNS_TYPE = 41
_ADDRESS_BYTES = {"A": 4, "AAAA": 16}
_DOT, _BACKSLASH = b".\\"
_MALFORMED = (IndexError, struct.error)


class ResponseCode(enum.IntEnum):
    """The response codes that this proxy sends, or names in messages about servers."""

    NOERROR = 0
    FORMERR = 1
    SERVFAIL = 2
    NXDOMAIN = 3
    NOTIMP = 4
    REFUSED = 5


def name_of_code(code: int) -> str:
    """Return the name of a response code; ``code 9`` for a code without a name here."""
    return ResponseCode(code).name if code in set(ResponseCode) else f"code {code}"


class MalformedMessage(UserspaceProxyError):
    """A message or name that is invalid in DNS, or not supported here."""


class Query(NamedTuple):
    """A query: of a client, or of this proxy."""

    wire: bytes
    question: bytes
    """The question as sent: name, type and class."""
    name: str
    """The absolute name, with a trailing dot; bytes outside ASCII as ``\\200``."""
    type: str
    """The type, such as ``A`` or ``SRV``; ``TYPE65280`` for an unknown type."""
    type_number: int
    class_: int
    payload: int | None
    """The sender's UDP payload size in bytes; None without EDNS."""

    @property
    def opcode(self) -> int:
        """The opcode; 0 is a standard query."""
        return (self.wire[2] << 8 & _OPCODE) >> 11


class AddressAnswer(NamedTuple):
    """A server's answer with the addresses of a name."""

    code: int
    addresses: tuple[str, ...] = ()
    ttl_s: int = 0
    """The shortest TTL of the addresses and aliases; 0 without addresses."""


def read_query(wire: bytes) -> Query:
    """Parse a message that has a header and isn't a response.

    Raises:
        MalformedMessage: The message isn't a query as defined by Rule 1.
    """
    _, _, *counts, additional = HEADER.unpack_from(wire)
    if len(wire) > QUERY_BYTES_MAX or counts != [1, 0, 0] or additional > 1:
        raise MalformedMessage("it isn't one question")
    try:
        labels, at = _read_labels(wire)
        type_, class_ = _QUESTION_END.unpack_from(wire, at)
        at += _QUESTION_END.size
        question, payload = wire[HEADER.size : at], None
        if additional:
            kind, payload, _, length = AFTER_NAME.unpack_from(wire, at + 1)
            if wire[at] or kind != _EDNS_TYPE:
                raise MalformedMessage("it has another record")
            at += 1 + AFTER_NAME.size + length
    except _MALFORMED:
        raise MalformedMessage("it ends early") from None
    if at != len(wire):
        raise MalformedMessage("its length is wrong")
    name = "".join(f"{_text_of(label)}." for label in labels) or "."
    type_name = _NAMES.get(type_, f"TYPE{type_}")
    return Query(wire, question, name, type_name, type_, class_, payload)


def _read_labels(wire: bytes) -> tuple[list[bytes], int]:
    """Return the labels of the question, and the offset after them."""
    labels, at = [], HEADER.size
    while length := wire[at]:
        if length > _LABEL_MAX:
            raise MalformedMessage("its name is compressed")
        labels.append(wire[at + 1 : at + 1 + length])
        at += 1 + length
    at += 1
    if at - HEADER.size > _NAME_MAX:
        raise MalformedMessage("its name is too long")
    return labels, at


def _text_of(label: bytes) -> str:
    if label.isalnum():
        return label.decode()
    return "".join(map(_text_of_byte, label))


def _text_of_byte(byte: int) -> str:
    if byte in (_DOT, _BACKSLASH):
        return f"\\{byte:c}"
    return chr(byte) if 0x20 < byte < 0x7F else f"\\{byte:03}"


def encode_name(name: str) -> bytes:
    """Encode a name without escapes, with or without a trailing dot.

    Raises:
        MalformedMessage: The name isn't valid in DNS.
    """
    wire = bytearray()
    for label in name.removesuffix(".").split(".") if name.strip(".") else ():
        if not label or not label.isascii() or "\\" in label:
            raise MalformedMessage(f"{label!r} is no label of DNS")
        if len(label) > _LABEL_MAX:
            raise MalformedMessage(f"a label has more than {_LABEL_MAX} bytes")
        wire.append(len(label))
        wire += label.encode()
    wire.append(0)
    if len(wire) > _NAME_MAX:
        raise MalformedMessage(f"the name has more than {_NAME_MAX} bytes")
    return bytes(wire)


def _edns(payload: int) -> bytes:
    return b"\0" + AFTER_NAME.pack(_EDNS_TYPE, payload, 0, 0)


def make_query(number: int, name: str, type_: str) -> Query:
    """Return a recursive query for records of a name.

    Raises:
        MalformedMessage: The name isn't valid in DNS.
    """
    head = HEADER.pack(number, RECURSION_DESIRED, 1, 0, 0, 1)
    question = encode_name(name) + _QUESTION_END.pack(TYPES[type_], CLASS_IN)
    return read_query(head + question + _edns(UDP_BYTES_MAX))


def write_response(query: Query, code: ResponseCode, flags: int = 0) -> tuple[bytes, bytes]:
    """Return a response without records: the bytes before the records, and the bytes after them."""
    number, asked, *_ = HEADER.unpack_from(query.wire)
    flags |= RESPONSE | asked & (_OPCODE | RECURSION_DESIRED) | code
    end = b"" if query.payload is None else _edns(QUERY_BYTES_MAX)
    return HEADER.pack(number, flags, 1, 0, 0, bool(end)) + query.question, end


def write_format_error(wire: bytes) -> bytes:
    """Return the FORMERR response to a message, of which only the header is read."""
    number, flags, *_ = HEADER.unpack_from(wire)
    kept = flags & (_OPCODE | RECURSION_DESIRED)
    return HEADER.pack(number, RESPONSE | kept | ResponseCode.FORMERR, 0, 0, 0, 0)


def is_message(wire: bytes) -> bool:
    """Return whether the bytes have a header and aren't a response."""
    return len(wire) >= HEADER.size and not wire[2] & RESPONSE >> 8


def is_answer(wire: bytes, query: Query) -> bool:
    """Return whether the bytes answer a query: they repeat its question, or reject it."""
    if len(wire) < HEADER.size or wire[:2] != query.wire[:2]:
        return False
    _, flags, questions, *_ = HEADER.unpack_from(wire)
    if not flags & RESPONSE or (flags & _OPCODE) >> 11 != query.opcode:
        return False
    if questions == 0:
        # Some servers omit the question if they reject the query without parsing it, so accept such
        # an answer only with an error code.
        return flags & _CODE not in (ResponseCode.NOERROR, ResponseCode.NXDOMAIN)
    repeated = wire[HEADER.size : HEADER.size + len(query.question)]
    return questions == 1 and repeated.lower() == query.question.lower()


def is_truncated(answer: bytes) -> bool:
    """Return whether a server has truncated its answer."""
    return bool(answer[2] & TRUNCATED >> 8)


def truncate(answer: bytes, query: Query) -> bytes:
    """Return a server's answer without its records, marked as truncated."""
    number, flags, *_ = HEADER.unpack_from(answer)
    return HEADER.pack(number, flags | TRUNCATED, 1, 0, 0, 0) + query.question


def read_answer(wire: bytes, query: Query) -> AddressAnswer:
    """Parse an answer to a query for addresses, for which :func:`is_answer` is true.

    Raises:
        MalformedMessage: The answer ends early, or has a malformed name or address.
    """
    _, flags, _, count, *_ = HEADER.unpack_from(wire)
    code = flags & _CODE
    if code != ResponseCode.NOERROR:
        return AddressAnswer(code)
    at = HEADER.size + len(query.question)
    found: set[bytes] = set()
    ttls: list[int] = []
    try:
        for _ in range(min(count, RECORDS_MAX)):
            at = _skip_name(wire, at)
            type_, class_, ttl, length = AFTER_NAME.unpack_from(wire, at)
            data = wire[at + AFTER_NAME.size : at + AFTER_NAME.size + length]
            at += AFTER_NAME.size + length
            if type_ not in (query.type_number, TYPES["CNAME"]) or class_ != CLASS_IN:
                continue
            ttls.append(ttl if ttl <= _TTL_MAX else 0)
            if type_ == query.type_number:
                if len(data) != _ADDRESS_BYTES[query.type]:
                    raise MalformedMessage("its answer has a malformed address")
                found.add(data)
    except _MALFORMED:
        raise MalformedMessage("its answer ends early") from None
    addresses = sorted(str(ipaddress.ip_address(data)) for data in found)
    return AddressAnswer(code, tuple(addresses), min(ttls) if found else 0)


def _skip_name(wire: bytes, at: int) -> int:
    while length := wire[at]:
        if length >= _POINTER:
            return at + 2
        if length > _LABEL_MAX:
            raise MalformedMessage("its answer has a malformed name")
        at += 1 + length
    return at + 1
