"""Records as bytes, until one doesn't fit."""

import struct

import dns.flags
import dns.message
import dns.rrset
import pytest

from userspace_proxy.lookup.dns_records import encode, pick_for
from userspace_proxy.lookup.dns_wire import MalformedMessage
from userspace_proxy.names import Code, DnsAnswer, Record, RecordType

NAME = "web.shop.svc.cluster.local."
UDP, TCP = 1232, 65535


def encoded(*records, name=NAME, size=UDP, edns=b"", **sections):
    head = dns.message.make_response(dns.message.make_query(name, "A")).to_wire()
    answer = DnsAnswer(Code.NOERROR, records, **sections)
    wire = encode(head, edns, name, answer, size)
    assert len(wire) <= size
    return dns.message.from_wire(wire)


def record(type_, data, name=NAME):
    return Record(name, RecordType(type_), data, 5)


def texts(section):
    return sorted(line for rrset in section for line in rrset.to_text().splitlines())


def addresses(count):
    return [record("A", f"10.0.{i // 250}.{i % 250}") for i in range(count)]


@pytest.mark.parametrize(
    ("type_", "data"),
    [
        ("A", "10.96.0.10"),
        ("AAAA", "fd00::10"),
        ("CNAME", "search.example.com."),
        ("CNAME", "com."),
        ("PTR", NAME),
        ("SRV", f"0 100 80 {NAME}"),
        ("SRV", "0 100 80 other.shop.svc.cluster.local."),
        ("SOA", "ns.dns.cluster.local. hostmaster.cluster.local. 7 7200 1800 86400 5"),
        ("TXT", '"1.1.0"'),
    ],
)
@pytest.mark.parametrize("name", [NAME, "Web.Shop.svc.cluster.local.", "x\\.y.cluster.local."])
def test_each_record_is_what_a_zone_file_with_its_text_contains(type_, data, name):
    given = record(type_, data, name)
    found = encoded(given, given, name=name)
    expected = dns.rrset.from_text(name, 5, "IN", type_, data)
    assert [rrset.to_text() for rrset in found.answer] == [expected.to_text()]


def test_records_of_all_sections_share_their_names():
    to = [f"db-{i}.{NAME}" for i in range(3)]
    found = encoded(
        *(record("SRV", f"0 33 80 {each}") for each in to),
        additional=tuple(record("A", "10.0.0.1", each) for each in to),
        authority=(record("PTR", to[0]),),
        edns=bytes.fromhex("0000291000000000000000"),
    )
    assert texts(found.answer) == [f"{NAME} 5 IN SRV 0 33 80 {each}" for each in to]
    assert texts(found.additional) == [f"{each} 5 IN A 10.0.0.1" for each in to]
    assert texts(found.authority) == [f"{NAME} 5 IN PTR {to[0]}"]
    assert (found.edns, found.payload) == (0, 4096)


@pytest.mark.parametrize(("size", "fitting"), [(UDP, 74), (512, 29), (TCP, 4093)])
def test_records_that_fit_are_sent_and_the_response_is_marked_as_truncated(size, fitting):
    found = encoded(*addresses(fitting), size=size)
    assert (len(found.answer[0]), found.flags & dns.flags.TC) == (fitting, 0)
    found = encoded(*addresses(fitting + 1), size=size)
    assert len(found.answer[0]) == fitting
    assert found.flags & dns.flags.TC


def test_after_the_first_record_that_does_not_fit_nothing_follows():
    found = encoded(
        *addresses(99), authority=(record("TXT", '"a"'),), additional=(record("A", "::"),)
    )
    assert (found.authority, found.additional) == ([], [])


def test_a_response_without_all_additional_records_is_complete():
    more = tuple(record("A", f"10.0.0.{i}", f"db-{i}.{NAME}") for i in range(99))
    found = encoded(*addresses(1), additional=more)
    assert 0 < len(found.additional) < 99
    assert not found.flags & dns.flags.TC


def test_an_answer_of_which_a_part_was_picked_is_truncated():
    assert encoded(*addresses(1), is_partial=True).flags & dns.flags.TC


def test_names_at_the_end_of_a_long_message_are_not_pointed_to():
    names = [f"a{i}.b{i}.example.com." for i in range(2000)]
    found = encoded(*(record("CNAME", each, f"x.{each}") for each in names), size=TCP)
    answered = texts(found.answer)
    assert len(answered) > 1000
    assert set(answered) <= {f"x.{each} 5 IN CNAME {each}" for each in names}


def test_records_of_a_set_are_sent_in_random_order():
    orders = {tuple(str(rdata) for rdata in encoded(*addresses(20)).answer[0]) for _ in range(3)}
    assert len(orders) > 1


@pytest.mark.parametrize(
    ("type_", "data", "error"),
    [
        pytest.param("CNAME", f"{'a' * 64}.example.", MalformedMessage, id="label"),
        pytest.param("CNAME", "a..example.", MalformedMessage, id="empty-label"),
        pytest.param("CNAME", f"{'a.' * 130}", MalformedMessage, id="name"),
        pytest.param("CNAME", "b\\032c.example.", MalformedMessage, id="escape"),
        pytest.param("CNAME", "bücher.example.", MalformedMessage, id="beyond-ascii"),
        pytest.param("A", "example", OSError, id="address"),
        pytest.param("SRV", f"0 100 65536 {NAME}", struct.error, id="port"),
        pytest.param("SRV", "0 100", ValueError, id="parts"),
    ],
)
def test_what_dns_cannot_carry_is_an_error(type_, data, error):
    with pytest.raises(error):
        encoded(record(type_, data))


@pytest.mark.parametrize("size", [512, UDP, TCP])
@pytest.mark.parametrize("type_", ["A", "AAAA", "SRV", "PTR"])
def test_a_pick_is_bounded_by_what_fits_and_each_position_may_be_in_it(type_, size):
    pick = pick_for(type_, size)
    most = size // 16 + 1
    assert len(pick(1_000_000)) == len(set(pick(1_000_000))) <= most
    assert list(pick(10)) == list(range(10))
    chosen = set()
    while len(chosen) < 2 * most:
        chosen.update(pick(2 * most))


@pytest.mark.parametrize(
    ("type_", "data"),
    [("A", "10.0.0.1"), ("AAAA", "::1"), ("SRV", "0 1 80 w.s.svc.x.")],
)
def test_a_pick_is_of_more_records_than_fit(type_, data):
    count = len(pick_for(type_, UDP)(1_000_000))
    found = encoded(*[record(type_, data, "w.s.svc.x.")] * count, name="w.s.svc.x.")
    assert found.flags & dns.flags.TC
