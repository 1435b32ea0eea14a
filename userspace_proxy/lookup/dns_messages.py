"""Answers DNS messages: bytes in, bytes out.

    query ──▶ ServiceNames ──▶ answer
                  └── a name elsewhere: the upstream server, or REFUSED

Rule 1: a message that isn't a query is never answered, so two servers can't answer each other.
Rule 2: what the upstream server doesn't answer in time is SERVFAIL.
Rule 3: a record that DNS can't carry (``externalName`` with a label of more than 63 bytes) is
SERVFAIL for that query, and a log line.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Awaitable, Callable

import dns.asyncquery
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdataclass
import dns.rdatatype

from ..clocks import Clocks
from ..log_fields import FieldLogger
from ..log_limit import LogLimit
from ..model import SocketAddress
from ..names import Code, DnsAnswer, RecordType, ServiceNames
from .dns_records import encode, pick_for
from .dns_server import Answer

UPSTREAM_TIMEOUT_S = 2.0
"""CoreDNS' plugin forward reads from an upstream server for as long."""
UDP_BYTES_MAX = 1232
"""What is sent without fragments. Source: DNS flag day 2020."""
UDP_BYTES_PLAIN = 512
"""For a client without EDNS. Source: RFC 1035, section 4.2.1."""
TCP_BYTES_MAX = 65535

_HEAD = struct.Struct(">HHHHHH")
_RESPONSE = 0x8000
_NO_FLAG = dns.flags.Flag(0)
# An EDNS record without options.
_EDNS_BYTES = 11
_INVALID = (dns.exception.DNSException, OSError, ValueError, struct.error)
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
        if len(wire) < _HEAD.size or _HEAD.unpack_from(wire)[1] & _RESPONSE:
            return None
        try:
            query = dns.message.from_wire(wire)
        except _INVALID:
            return _format_error(wire)
        size = TCP_BYTES_MAX
        if is_udp:
            wanted = query.payload if query.edns >= 0 else UDP_BYTES_PLAIN
            size = min(max(wanted, UDP_BYTES_PLAIN), UDP_BYTES_MAX)
        try:
            found = self._respond(query, size)
            if isinstance(found, bytes):
                return found
        except _INVALID as exc:
            return self._cannot(query, exc, size)
        return functools.partial(self._respond_later, query, found, size)

    async def _respond_later(
        self,
        query: dns.message.Message,
        ask: Callable[[], Awaitable[dns.message.Message]],
        size: int,
    ) -> bytes:
        try:
            return _to_wire(await ask(), size)
        except _INVALID as exc:
            return self._cannot(query, exc, size)

    def _cannot(self, query: dns.message.Message, exc: Exception, size: int) -> bytes:
        if self._log_limit.take(self._clock()):
            name = query.question[0].name.to_text()
            _log.warning(
                "%(query)s: cannot answer by DNS: %(cause)s",
                extra={"query": name, "cause": str(exc)},
            )
        return _to_wire(_failed(query, dns.rcode.SERVFAIL), size)

    def _respond(
        self, query: dns.message.Message, size: int
    ) -> bytes | Callable[[], Awaitable[dns.message.Message]]:
        """Return the response, or a function that asks the upstream server for it."""
        refused = self._refuse(query)
        if refused is not None:
            return _to_wire(_failed(query, refused), size)
        names = self._names()
        if names is None:
            return _to_wire(_failed(query, dns.rcode.SERVFAIL), size)
        question = query.question[0]
        type_ = dns.rdatatype.to_text(question.rdtype)
        answer = names.answer(question.name.to_text(), type_, pick_for(type_, size))
        if self._upstream is None:
            return _response(query, answer, size)
        if answer.code is Code.REFUSED or (answer.code is Code.NXDOMAIN and _is_reverse(question)):
            return functools.partial(self._ask, query, self._upstream)
        wire = _response(query, answer, size, dns.flags.RA)
        if answer.elsewhere and type_ in (RecordType.A, RecordType.AAAA):
            target = dns.message.make_query(answer.elsewhere, question.rdtype)
            response = dns.message.from_wire(wire)
            return functools.partial(self._add_target, response, target, self._upstream)
        return wire

    def _refuse(self, query: dns.message.Message) -> dns.rcode.Rcode | None:
        """Return the code for what isn't a question that could be answered."""
        if query.opcode() != dns.opcode.QUERY:
            return dns.rcode.NOTIMP
        if len(query.question) != 1:
            return dns.rcode.FORMERR
        question = query.question[0]
        transfers = (dns.rdatatype.AXFR, dns.rdatatype.IXFR)
        if question.rdclass != dns.rdataclass.IN or question.rdtype in transfers:
            return dns.rcode.REFUSED
        return None

    async def _add_target(
        self, response: dns.message.Message, query: dns.message.Message, upstream: SocketAddress
    ) -> dns.message.Message:
        found = await self._ask(query, upstream)
        response.answer.extend(found.answer)
        return response

    async def _ask(
        self, query: dns.message.Message, upstream: SocketAddress
    ) -> dns.message.Message:
        try:
            found, _ = await dns.asyncquery.udp_with_fallback(
                query, upstream.ip, timeout=UPSTREAM_TIMEOUT_S, port=upstream.port
            )
        except (dns.exception.DNSException, OSError, EOFError):
            return _failed(query, dns.rcode.SERVFAIL)
        return found


def _is_reverse(question: dns.rrset.RRset) -> bool:
    return bool(question.name.is_subdomain(dns.name.from_text("arpa.")))


def _response(
    query: dns.message.Message, answer: DnsAnswer, size: int, flags: dns.flags.Flag = _NO_FLAG
) -> bytes:
    empty = dns.message.make_response(query)
    empty.set_rcode(dns.rcode.from_text(answer.code))
    empty.flags |= flags
    if answer.is_authoritative:
        empty.flags |= dns.flags.AA
    wire: bytes = empty.to_wire()
    end = len(wire) - (_EDNS_BYTES if empty.edns >= 0 else 0)
    return encode(wire[:end], wire[end:], query.question[0].name.to_text(), answer, size)


def _to_wire(response: dns.message.Message, size: int) -> bytes:
    wire: bytes = response.to_wire(max_size=size, prefer_truncation=True)
    return wire


def _failed(query: dns.message.Message, code: dns.rcode.Rcode) -> dns.message.Message:
    response = dns.message.make_response(query)
    response.set_rcode(code)
    return response


def _format_error(wire: bytes) -> bytes:
    number, flags, *_ = _HEAD.unpack_from(wire)
    kept = flags & 0x7900  # The opcode, and whether recursion is desired.
    return _HEAD.pack(number, _RESPONSE | kept | dns.rcode.FORMERR, 0, 0, 0, 0)
