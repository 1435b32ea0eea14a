"""Answers DNS messages: bytes in, bytes out.

    query ──▶ ServiceNames ──▶ answer
                  └── a name elsewhere: the upstream server, or REFUSED

Rule 1: a message that isn't a query is never answered, so two servers can't answer each other.
Rule 2: what isn't one question of at most 512 bytes is FORMERR, and ends a connection: a browser
can send a request of HTTP here, whose later bytes must not be a query.
Rule 3: the upstream server gets the client's bytes, and the client that server's, unread but for
their number and question. What it doesn't answer in time is SERVFAIL.
Rule 4: a record that DNS can't carry (``externalName`` with a label of more than 63 bytes) is
SERVFAIL for that query, and a log line.
"""

from __future__ import annotations

import functools
import secrets
import struct
from collections.abc import Callable
from dataclasses import replace

from ..clocks import Clocks
from ..log_fields import FieldLogger
from ..log_limit import LogLimit
from ..model import SocketAddress
from ..names import Code, DnsAnswer, Record, RecordType, ServiceNames
from .dns_client import ask_by_tcp, ask_by_udp, ask_for_addresses
from .dns_records import encode, pick_for
from .dns_server import Answer, LastAnswer, Later
from .dns_wire import (
    AUTHORITATIVE,
    CLASS_IN,
    RECURSION_AVAILABLE,
    TRANSFERS,
    UDP_BYTES_MAX,
    MalformedMessage,
    Query,
    ResponseCode,
    is_message,
    is_truncated,
    make_query,
    read_query,
    truncate,
    write_format_error,
    write_response,
)

UPSTREAM_TIMEOUT_S = 2.0
"""CoreDNS' plugin forward reads from an upstream server for as long."""
UDP_BYTES_PLAIN = 512
"""For a client without EDNS. Source: RFC 1035, section 4.2.1."""
TCP_BYTES_MAX = 65535

# TimeoutError is an OSError.
_UNANSWERED = (OSError, EOFError, MalformedMessage)
_INVALID = (OSError, ValueError, struct.error, MalformedMessage)
_log = FieldLogger(__name__)


class Responder:
    """Answers messages for the Services of one proxy.

    Args:
        names: Returns the current names; None before the first Services were read.
        upstream: The server for names elsewhere; None: they are refused.
        clock: Monotonic seconds, for the log.
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
        """Part of the server: what is known here is answered at once."""
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
                "%(query)s: cannot answer by DNS: %(cause)s",
                extra={"query": query.name, "cause": str(exc)},
            )
        return _failed(query, ResponseCode.SERVFAIL)

    def _respond(self, query: Query, size: int, *, is_udp: bool) -> bytes | Later:
        """Return the response, or a function that asks the upstream server for it."""
        if query.opcode:
            return _failed(query, ResponseCode.NOTIMP)
        if query.class_ != CLASS_IN or query.type_number in TRANSFERS:
            return _failed(query, ResponseCode.REFUSED)
        names = self._names()
        if names is None:
            return _failed(query, ResponseCode.SERVFAIL)
        answer = names.answer(query.name, query.type, pick_for(query.type, size))
        upstream = self._upstream
        if upstream is None:
            return _response(query, answer, size)
        if answer.code is Code.REFUSED or (answer.code is Code.NXDOMAIN and _is_reverse(query)):
            return functools.partial(_forward, query, upstream, size, is_udp=is_udp)
        wire = _response(query, answer, size, RECURSION_AVAILABLE)
        if answer.elsewhere and query.type in (RecordType.A, RecordType.AAAA):
            target = make_query(secrets.randbits(16), answer.elsewhere, query.type)
            return functools.partial(_add_target, query, answer, target, upstream, size)
        return wire


async def _add_target(
    query: Query, answer: DnsAnswer, target: Query, upstream: SocketAddress, size: int
) -> bytes:
    """Return the response with the addresses of its alias, as if it had no aliases itself."""
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
    """Return the upstream server's answer, cut to the client's room by UDP."""
    try:
        found = await ask_by_udp(upstream, query, UPSTREAM_TIMEOUT_S)
        if is_truncated(found) and not is_udp:
            found = await ask_by_tcp(upstream, query, UPSTREAM_TIMEOUT_S)
    except _UNANSWERED:
        return _failed(query, ResponseCode.SERVFAIL)
    return found if len(found) <= size else truncate(found, query)


def _is_reverse(query: Query) -> bool:
    return f".{query.name.lower()}".endswith(".arpa.")


def _response(query: Query, answer: DnsAnswer, size: int, flags: int = 0) -> bytes:
    if answer.is_authoritative:
        flags |= AUTHORITATIVE
    head, end = write_response(query, ResponseCode[answer.code], flags)
    return encode(head, end, query.name, answer, size)


def _failed(query: Query, code: ResponseCode) -> bytes:
    return b"".join(write_response(query, code))
