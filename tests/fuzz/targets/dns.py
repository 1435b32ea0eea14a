"""Targets for DNS messages: clients' queries, and a server's answers about endpoint names."""

from __future__ import annotations

import functools
import ipaddress

from tests.unit.lookup.names import shop
from userspace_proxy.lookup.dns_messages import Responder
from userspace_proxy.lookup.dns_server import LastAnswer
from userspace_proxy.lookup.dns_wire import (
    HEADER,
    RECORDS_MAX,
    MalformedMessage,
    is_answer,
    make_query,
    read_answer,
)

QUERY = make_query(4711, "db.example.com", "A")
_FLAGS = 0x8180


@functools.cache
def responder() -> Responder:
    """Return a responder for the names of some Services."""
    names = shop()
    return Responder(lambda: names)


def check_dns_query(data: bytes) -> None:
    """Check that an answer has the query's ID, and a length that the transport allows."""
    for is_udp in (True, False):
        answer = responder().respond(data, is_udp=is_udp)
        wire = answer.wire if isinstance(answer, LastAnswer) else answer
        if wire is None:
            continue
        assert isinstance(wire, bytes)
        assert wire[:2] == data[:2]
        assert len(wire) <= (1232 if is_udp else 65535)


def check_dns_answer(data: bytes) -> None:
    """Check the bytes as an answer and as records: the number of addresses is bounded."""
    _check_answer(data)
    head = HEADER.pack(4711, _FLAGS, 1, int.from_bytes(data[:2], "big"), 0, 0)
    wire = head + QUERY.question + data[2:]
    assert is_answer(wire, QUERY)
    _check_answer(wire)


def _check_answer(wire: bytes) -> None:
    if not is_answer(wire, QUERY):
        return
    try:
        found = read_answer(wire, QUERY)
    except MalformedMessage:
        return
    assert len(found.addresses) <= RECORDS_MAX
    assert all(ipaddress.ip_address(ip).version == 4 for ip in found.addresses)
    assert found.ttl_s < 1 << 31
