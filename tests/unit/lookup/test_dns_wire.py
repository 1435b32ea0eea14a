"""Tests of DNS messages as bytes, with dnspython as the reference."""

import struct

import dns.edns
import dns.flags
import dns.message
import dns.name
import dns.rrset
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.fuzz.cost import Bound, check_cost
from userspace_proxy.lookup.dns_messages import Responder
from userspace_proxy.lookup.dns_wire import (
    RECORDS_MAX,
    AddressAnswer,
    MalformedMessage,
    ResponseCode,
    encode_name,
    is_answer,
    is_truncated,
    make_query,
    name_of_code,
    read_answer,
    read_query,
    truncate,
)

DB = "db.example.com"
QUERY = make_query(4711, DB, "A")
LONG_NAME = b"\1a" * 115 + b"\0"
STEP = Bound(fixed_s=0.005, per_byte_s=2e-6)
"""CPU time: at most 7 ms for 1 KiB. dnspython uses 0.15 s for 512 bytes and 4 s for 8 KiB."""


def answered(*lines, query=QUERY, code=0):
    """Return a response with these lines of a zone file."""
    response = dns.message.make_response(dns.message.from_wire(query.wire))
    response.set_rcode(code)
    for line in lines:
        name, ttl, type_, data = line.split(" ", 3)
        response.answer.append(dns.rrset.from_text(name, int(ttl), "IN", type_, data))
    response.authority.append(dns.rrset.from_text("com.", 5, "IN", "NS", "a.gtld.example."))
    return response.to_wire()


def raw_answer(*records):
    """Return a response with records given as bytes."""
    head = QUERY.wire[:2] + struct.pack(">HHHHH", 0x8180, 1, len(records), 0, 0)
    return head + QUERY.question + b"".join(records)


def raw_record(name, type_, data, ttl=5):
    return name + struct.pack(">HHIH", type_, 1, ttl, len(data)) + data


names = st.lists(st.binary(min_size=1, max_size=63), min_size=0, max_size=4).filter(
    lambda labels: sum(len(label) + 1 for label in labels) < 255
)


@example([b"a" * 63] * 3 + [b"a" * 61], "A", None)
@given(names, st.sampled_from(["A", "AAAA", "SRV", "TYPE65280"]), st.none() | st.integers(0, 65535))
def test_a_query_written_by_dnspython_is_parsed(labels, type_, payload):
    name = dns.name.Name([*labels, b""])
    made = dns.message.make_query(name, type_, use_edns=0 if payload is not None else -1)
    if payload is not None:
        made.use_edns(0, 0, payload, options=[dns.edns.GenericOption(10, b"a cookie")])
    query = read_query(made.to_wire())
    assert dns.name.from_text(query.name, idna_codec=None) == name
    assert (query.type, query.class_, query.payload, query.opcode) == (type_, 1, payload, 0)


def test_dnspython_parses_a_written_query():
    made = dns.message.from_wire(make_query(4711, DB, "AAAA").wire)
    assert [str(rrset) for rrset in made.question] == [f"{DB}. IN AAAA"]
    assert (made.id, made.flags, made.payload) == (4711, dns.flags.RD, 1232)


@given(st.binary(max_size=600).map(lambda rest: QUERY.wire[:12] + rest))
def test_an_arbitrary_query_is_parsed_or_rejected_as_malformed(wire):
    try:
        query = read_query(wire)
    except MalformedMessage:
        return
    assert wire.startswith(query.question, 12)


@pytest.mark.parametrize("name", [".", "", "com.", DB, f"{DB}.", "_sip.x", f"{'a' * 63}.example"])
def test_a_name_is_encoded_as_dnspython_encodes_names(name):
    assert encode_name(name) == dns.name.from_text(name or ".").to_wire()


def test_addresses_at_the_end_of_a_cname_chain_have_the_shortest_ttl():
    wire = answered(
        f"{DB}. 30 CNAME one.example.net.",
        "one.example.net. 7 CNAME two.example.net.",
        "two.example.net. 60 A 203.0.113.2",
        "two.example.net. 60 A 203.0.113.1",
    )
    assert is_answer(wire, QUERY)
    assert read_answer(wire, QUERY) == AddressAnswer(0, ("203.0.113.1", "203.0.113.2"), 7)


def test_records_of_other_families_and_types_are_skipped():
    query = make_query(1, DB, "AAAA")
    wire = answered(
        f'{DB}. 5 TXT "text"',
        f"{DB}. 6 A 203.0.113.1",
        f"{DB}. 30 AAAA 2001:db8::1",
        f"{DB}. 40 AAAA 2001:DB8:0::2",
        query=query,
    )
    expected = AddressAnswer(0, ("2001:db8::1", "2001:db8::2"), 30)
    assert read_answer(wire, query) == expected


@pytest.mark.parametrize("code", [ResponseCode.NXDOMAIN, ResponseCode.SERVFAIL, 9])
def test_a_response_with_an_error_code_has_no_addresses(code):
    assert read_answer(answered(f"{DB}. 5 A 203.0.113.1", code=code), QUERY) == AddressAnswer(code)


def test_a_dns_response_code_is_formatted_as_its_name_or_number():
    assert (name_of_code(2), name_of_code(9)) == ("SERVFAIL", "code 9")


def test_a_negative_ttl_counts_as_zero():
    record = raw_record(b"\xc0\x0c", 1, b"\xcb\0\x71\1", ttl=0x80000000)
    assert read_answer(raw_answer(record), QUERY) == AddressAnswer(0, ("203.0.113.1",), 0)


def test_only_a_bounded_number_of_records_is_parsed():
    records = [raw_record(b"\xc0\x0c", 1, bytes([10, 0, 0, n])) for n in range(RECORDS_MAX + 1)]
    assert len(read_answer(raw_answer(*records), QUERY).addresses) == RECORDS_MAX
    damaged = raw_answer(*records[:RECORDS_MAX], b"no record")
    assert len(read_answer(damaged, QUERY).addresses) == RECORDS_MAX


@pytest.mark.parametrize(
    "record",
    [
        pytest.param(raw_record(b"\xc0\x0c", 1, bytes(4))[:-1], id="cut"),
        pytest.param(raw_record(b"\xc0\x0c", 1, bytes(16)), id="another-familys-length"),
        pytest.param(raw_record(b"\x80\x0c", 1, bytes(4)), id="label-type"),
        pytest.param(LONG_NAME[:-1], id="name-without-end"),
        pytest.param(b"", id="none"),
    ],
)
def test_a_malformed_response_is_an_error(record):
    with pytest.raises(MalformedMessage):
        read_answer(raw_answer(record), QUERY)


@given(st.binary(max_size=200), st.integers(0, 65535))
def test_an_arbitrary_response_is_parsed_or_rejected_as_malformed(rest, count):
    wire = raw_answer() + rest
    wire = wire[:6] + struct.pack(">H", count) + wire[8:]
    try:
        found = read_answer(wire, QUERY)
    except MalformedMessage:
        return
    assert len(found.addresses) <= RECORDS_MAX


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        pytest.param(lambda wire: wire, True, id="unchanged"),
        pytest.param(lambda wire: wire[:12] + wire[12:].upper(), True, id="upper-case"),
        pytest.param(lambda wire: wire[:1] + b"\0" + wire[2:], False, id="id"),
        pytest.param(lambda wire: wire[:2] + b"\1" + wire[3:], False, id="a-query"),
        pytest.param(lambda wire: wire[:2] + b"\x91" + wire[3:], False, id="operation"),
        pytest.param(lambda wire: wire[:13] + b"x" + wire[14:], False, id="question"),
        pytest.param(lambda wire: wire[:4] + b"\0\2" + wire[6:], False, id="two-questions"),
        pytest.param(lambda wire: wire[:4] + b"\0\0" + wire[6:], False, id="no-question"),
        pytest.param(lambda wire: wire[:3] + b"\5" + bytes(8), True, id="refused-unread"),
        pytest.param(lambda wire: wire[:3] + b"\3" + bytes(8), False, id="no-such-name-unread"),
        pytest.param(lambda wire: wire[:11], False, id="cut"),
    ],
)
def test_a_response_must_have_the_id_and_question_of_the_query(change, expected):
    assert is_answer(change(answered(f"{DB}. 5 A 203.0.113.1")), QUERY) is expected


def test_a_response_stripped_of_its_records_is_marked_as_truncated():
    wire = truncate(answered(f"{DB}. 5 A 203.0.113.1"), QUERY)
    assert is_answer(wire, QUERY)
    assert is_truncated(wire)
    assert dns.message.from_wire(wire).answer == []


LONG = raw_record(b"\xc0\x0c", 5, LONG_NAME)
"""The first record, to whose name the other records point."""
TO_LONG = struct.pack(">H", 0xC000 + 12 + len(QUERY.question) + 12)


def below_long(number):
    return b"\2" + struct.pack(">H", number) + TO_LONG


SHAPES = {
    "addresses-of-a-long-name": lambda n: raw_record(LONG_NAME, 1, bytes([10, 0, 0, n % 250])),
    "addresses-below-a-long-name": lambda n: raw_record(b"\1b" + TO_LONG, 1, n.to_bytes(4)),
    "servers-below-a-long-name": lambda n: raw_record(b"\xc0\x0c", 2, below_long(n)),
    "authorities-below-a-long-name": lambda n: raw_record(
        b"\xc0\x0c", 6, 2 * below_long(n) + bytes(20)
    ),
    "aliases-to-themselves": lambda _: raw_record(b"\xc0\x0c", 5, b"\xc0\x0c"),
    "pointers-in-circles": lambda _: raw_record(TO_LONG, 1, bytes(4)),
    "empty-records": lambda _: raw_record(b"\0", 1000, b""),
}


def filled(shape, size):
    records, length = [LONG], 300
    while length < size:
        records.append(shape(len(records)))
        length += len(records[-1])
    return raw_answer(*records)


@pytest.mark.parametrize("size", [512, 1232, 8192, 65535])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_parsing_a_dns_response_takes_at_most_linear_time(shape, size):
    def read(wire):
        try:
            return read_answer(wire, QUERY)
        except MalformedMessage:
            return None

    check_cost(read, filled(shape, size), STEP)


@pytest.mark.parametrize("size", [512, 1232, 16384, 65535])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_a_query_with_many_records_is_rejected_in_bounded_time(shape, size):
    wire = filled(shape, size)
    query = wire[:2] + b"\1\0" + wire[4:]
    check_cost(lambda data: Responder(lambda: None).respond(data, is_udp=False), query, STEP)
