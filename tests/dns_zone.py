"""A DNS server whose records a test changes, in the test's event loop.

A record is written as ``"db.example.com A": [ttl, "203.0.113.1", …]``. The answer is NOERROR
without records if a name has only records of other types, and NXDOMAIN if it has none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset

_SOA = "ns.example.com. admin.example.com. 1 2 3 4 60"
_CHAIN_MAX = 20


class Zone:
    """The records of one server, which a test can replace at any time."""

    def __init__(self) -> None:
        self.records: dict[str, Sequence[Any]] = {}
        self.asked: list[str] = []
        """The received questions, for example ``db.example.com A udp``."""
        self.code = dns.rcode.NOERROR
        """The response code of all answers."""
        self.is_silent = False
        self.is_truncating = False
        """Whether all UDP responses are marked as truncated."""
        self.sets_in_truncated = 0
        """The number of record sets in a truncated response."""

    def respond(self, wire: bytes, *, is_udp: bool) -> bytes | None:
        """Answer a query, as the callback of a DnsServer."""
        query = dns.message.from_wire(wire)
        question = query.question[0]
        name, kind = question.name.to_text().rstrip("."), dns.rdatatype.to_text(question.rdtype)
        self.asked.append(f"{name} {kind} {'udp' if is_udp else 'tcp'}")
        if self.is_silent:
            return None
        response = dns.message.make_response(query)
        response.set_rcode(self.code)
        if self.code == dns.rcode.NOERROR:
            self._fill(response, name, kind)
        if is_udp and self.is_truncating:
            response.flags |= dns.flags.TC
            del response.answer[self.sets_in_truncated :]
        answer: bytes = response.to_wire(max_size=65535)
        return answer

    def _fill(self, response: dns.message.Message, name: str, kind: str) -> None:
        for _ in range(_CHAIN_MAX):
            alias = self.records.get(f"{name} CNAME")
            if alias is None:
                break
            response.answer.append(
                dns.rrset.from_text(f"{name}.", alias[0], "IN", "CNAME", alias[1])
            )
            name = str(alias[1]).rstrip(".")
        found = self.records.get(f"{name} {kind}")
        if found is not None and len(found) > 1:
            response.answer.append(
                dns.rrset.from_text(f"{name}.", found[0], "IN", kind, *found[1:])
            )
            return
        if not any(key.startswith(f"{name} ") for key in self.records):
            response.set_rcode(dns.rcode.NXDOMAIN)
        response.authority.append(dns.rrset.from_text("example.com.", 300, "IN", "SOA", _SOA))
