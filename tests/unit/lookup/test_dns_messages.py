"""Tests of the responses to DNS messages, as bytes."""

import asyncio
import struct
from dataclasses import replace

import dns.edns
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdatatype
import dns.rrset
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.model.samples import service, slice_of
from userspace_proxy.cluster import Store
from userspace_proxy.lookup.dns_messages import Responder, encode, pick_for
from userspace_proxy.lookup.dns_server import LastAnswer
from userspace_proxy.lookup.dns_wire import MalformedMessage
from userspace_proxy.model import ServiceKey, ServicePort, ServiceType, SocketAddress
from userspace_proxy.names import Code, DnsAnswer, NameIndex, Record, RecordType, ServiceNames

from .names import shop
from .servers import serving

NAME = "web.shop.svc.cluster.local."
A_RECORD = b"\xc0\x0c\0\1\0\1\0\0\0\5\0\4\x0a\0\0\1"
EDNS = b"\0\0\x29\x04\xd0\0\0\0\0\0\0"


async def answer(query, *, names=shop, upstream=None, is_udp=True):
    wire = query if isinstance(query, bytes) else query.to_wire()
    found = Responder(names, upstream).respond(wire, is_udp=is_udp)
    if isinstance(found, LastAnswer):
        found = found.wire
    elif callable(found):
        found = await found()
    return None if found is None else dns.message.from_wire(found)


async def code(query, **options):
    return dns.rcode.to_text((await answer(query, **options)).rcode())


async def test_a_name_resolves_to_its_records():
    query = dns.message.make_query(NAME, "A")
    found = await answer(query)
    assert query.is_response(found)
    assert [str(rrset) for rrset in found.answer] == [f"{NAME} 5 IN A 127.64.0.10"]
    assert found.flags == dns.flags.QR | dns.flags.AA | dns.flags.RD


async def test_a_nonexistent_name_returns_nxdomain_with_the_soa():
    found = await answer(dns.message.make_query("none.shop.svc.cluster.local", "A"))
    assert found.rcode() == dns.rcode.NXDOMAIN
    assert [rrset.name.to_text() for rrset in found.authority] == ["cluster.local."]


@pytest.mark.parametrize(
    ("name", "type_", "class_", "expected"),
    [
        pytest.param(NAME, "A", "CH", "REFUSED", id="another-class"),
        pytest.param("cluster.local", "AXFR", "IN", "REFUSED", id="transfer"),
        pytest.param(NAME, "TYPE65280", "IN", "NOERROR", id="unknown-type"),
    ],
)
async def test_only_other_classes_and_zone_transfers_are_refused(name, type_, class_, expected):
    assert await code(dns.message.make_query(name, type_, class_)) == expected


async def test_a_query_before_the_first_snapshot_returns_servfail():
    assert await code(dns.message.make_query(NAME, "A"), names=lambda: None) == "SERVFAIL"


async def test_a_query_with_an_unknown_opcode_returns_notimp():
    query = dns.message.make_query(NAME, "A")
    query.set_opcode(dns.opcode.STATUS)
    assert await code(query) == "NOTIMP"


async def test_a_query_with_two_questions_returns_formerr():
    query = dns.message.make_query(NAME, "A")
    query.question *= 2
    query.question[1] = dns.rrset.RRset(query.question[0].name, 1, 28)
    assert await code(query) == "FORMERR"


def asked(name=NAME, **options):
    return dns.message.make_query(name, "A", **options).to_wire()


def with_counts(*counts, rest=b""):
    return asked()[:4] + struct.pack(">HHHH", *counts) + asked()[12:] + rest


REFUSED_UNREAD = {
    "cut": asked()[:-3],
    "no-question": with_counts(0, 0, 0, 0),
    "an-answer": with_counts(1, 1, 0, 0, rest=A_RECORD),
    "an-authority": with_counts(1, 0, 1, 0, rest=A_RECORD),
    "another-record": with_counts(1, 0, 0, 1, rest=A_RECORD),
    "two-records": with_counts(1, 0, 0, 2, rest=2 * EDNS),
    "long-name": asked()[:12] + 4 * (b"\x3f" + bytes(63)) + b"\0\0\1\0\1",
    "bytes-after-the-question": asked() + b"x",
    "pointer": asked()[:12] + b"\xc0\x0c\0\1\0\1",
    "513-bytes": asked(use_edns=0, pad=513)[:513],
    "http": b"ST / HTTP/1.1\r\nHost: localhost:5353\r\n",
    "signature": with_counts(1, 0, 0, 1, rest=b"\0\0\xfa\0\xff\0\0\0\0\0\0"),
}


@pytest.mark.parametrize("wire", REFUSED_UNREAD.values(), ids=REFUSED_UNREAD)
@pytest.mark.parametrize("is_udp", [True, False])
async def test_a_message_other_than_a_plain_query_returns_formerr_with_its_id(wire, is_udp):
    def no_names():
        raise AssertionError("names are asked")

    found = Responder(no_names).respond(wire, is_udp=is_udp)
    assert isinstance(found, LastAnswer)
    assert len(found.wire) == 12
    assert (found.wire[:2], found.wire[3] & 15) == (wire[:2], dns.rcode.FORMERR)


@pytest.mark.parametrize("wire", [b"short", dns.message.make_response(
    dns.message.make_query(NAME, "A")).to_wire()], ids=["short", "a-response"])  # fmt: skip
async def test_a_short_message_or_a_response_gets_no_response(wire):
    assert await answer(wire) is None


WIRE = dns.message.make_query(NAME, "A", use_edns=True, want_dnssec=True).to_wire()


@given(
    st.one_of(
        st.binary(max_size=64),
        st.binary(max_size=64).map(lambda rest: WIRE[:12] + rest),
        st.tuples(st.integers(0, len(WIRE) - 1), st.integers(0, 255)).map(
            lambda at: WIRE[: at[0]] + bytes([at[1]]) + WIRE[at[0] + 1 :]
        ),
    )
)
def test_an_arbitrary_message_is_handled_without_an_exception(wire):
    found = Responder(shop).respond(wire, is_udp=True)
    found = found.wire if isinstance(found, LastAnswer) else found
    assert found is None or found[:2] == wire[:2]


@given(st.lists(st.binary(min_size=1, max_size=63), max_size=3))
def test_a_query_for_labels_of_arbitrary_bytes_is_answered(labels):
    name = dns.name.Name([*labels, b"web", b"shop", b"svc", b"cluster", b"local", b""])
    query = dns.message.make_query(name, "A")
    found = asyncio.run(answer(query))
    assert query.is_response(found)


def many():
    """Return the names of a headless Service with 100 endpoints."""
    key, store = ServiceKey("shop", "web"), Store()
    store.put_service(service(key, cluster_ips=(), is_headless=True))
    store.put_slice(slice_of(*(f"10.0.0.{i}" for i in range(100)), of=key))
    return ServiceNames(store.snapshot())


@pytest.mark.parametrize(
    ("payload", "is_udp", "is_truncated"),
    [
        pytest.param(None, True, True, id="without-edns"),
        pytest.param(4096, True, True, id="more-than-is-sent"),
        pytest.param(100, True, True, id="below-the-minimum"),
        pytest.param(None, False, False, id="tcp"),
    ],
)
async def test_a_response_too_large_for_a_datagram_is_truncated(payload, is_udp, is_truncated):
    query = dns.message.make_query(NAME, "A", use_edns=payload is not None, payload=payload or 0)
    found = await answer(query, names=many, is_udp=is_udp)
    assert bool(found.flags & dns.flags.TC) is is_truncated
    assert len(found.answer[0]) == 100 if not is_truncated else 20 < len(found.answer[0]) < 80


@pytest.mark.parametrize(("count", "is_truncated"), [(1_300, False), (2_600, True)])
async def test_a_tcp_response_contains_all_ports_of_both_families_if_they_fit(count, is_truncated):
    store = Store()
    ports = [ServicePort(f"p{number}", number + 1, "TCP") for number in range(count)]
    store.put_service(service(ServiceKey("shop", "web"), ports, ("10.96.0.10", "fd00:96::10")))
    names = ServiceNames(store.snapshot())
    query = dns.message.make_query(NAME, "SRV")
    found = await answer(query, names=lambda: names, is_udp=False)
    assert bool(found.flags & dns.flags.TC) is is_truncated
    assert is_truncated or len(found.answer[0]) == count


@pytest.mark.parametrize(
    ("name", "type_", "found"),
    [
        pytest.param(NAME, "SRV", 1000, id="ports"),
        pytest.param(f"10-0-0-1.{NAME}", "A", 1, id="endpoint"),
        pytest.param("1.0.0.10.in-addr.arpa.", "PTR", 1, id="address"),
        pytest.param("9.9.9.9.in-addr.ARPA.", "PTR", 2, id="address-outside-the-cluster"),
    ],
)
async def test_an_expensive_query_is_prepared_in_a_thread(upstream, name, type_, found):
    """A query for a Service with 400,000 endpoints once blocked the event loop for 1.7 s."""
    store, names = Store(), NameIndex()
    web = ServiceKey("shop", "web")
    store.put_service(service(web, cluster_ips=(), is_headless=True))
    for s in range(60):
        ips = [f"10.0.{s}.{i}" for i in range(1, 101)]
        store.put_slice(slice_of(*ips, key=f"s{s:02}", of=web))
    current = ServiceNames(store.snapshot(), index=names)
    wire = dns.message.make_query(name, type_).to_wire()
    later = Responder(lambda: current, upstream).respond(wire, is_udp=False)
    counts = dns.message.from_wire(await later()).section_count(dns.message.ANSWER)
    assert counts >= found
    store.put_slice(slice_of("10.0.0.1", key="s00", of=web))
    current = ServiceNames(store.snapshot(), index=names)
    assert isinstance(Responder(lambda: current).respond(wire, is_udp=False), bytes)


class Counted:
    """Names of a headless Service with 200,000 endpoints; it counts the records it creates."""

    def __init__(self):
        self.made = 0

    def preparation(self, name, type_): ...

    def answer(self, name, type_, pick):
        ips = [f"10.{i >> 16}.{i >> 8 & 255}.{i & 255}" for i in pick(200_000)]
        self.made += len(ips)
        records = tuple(Record(name, RecordType.A, ip, 5) for ip in ips)
        return DnsAnswer(Code.NOERROR, records, is_partial=True)


@pytest.mark.parametrize(("is_udp", "most"), [(True, 78), (False, 4096)])
async def test_the_responder_creates_only_as_many_records_as_fit(is_udp, most):
    names = Counted()
    query = dns.message.make_query(NAME, "A", use_edns=True, payload=1232)
    found = await answer(query, names=lambda: names, is_udp=is_udp)
    assert 0.9 * most < len(found.answer[0]) <= names.made <= most
    assert found.flags & dns.flags.TC


async def test_clients_with_truncated_responses_get_different_endpoints():
    query = dns.message.make_query(NAME, "A")
    seen = set()
    for _ in range(20):
        seen.update(str(rdata) for rdata in (await answer(query, names=many)).answer[0])
    assert len(seen) > 90


@pytest.fixture
async def upstream():
    """The address of a DNS server that answers for localhost, 9.9.9.9 and names in .example."""

    def respond(wire, *, is_udp):
        query = dns.message.from_wire(wire)
        response = dns.message.make_response(query)
        name = query.question[0].name
        if name.to_text() == "silent.example.":
            return None
        if name.to_text() in ("localhost.", "9.9.9.9.in-addr.ARPA."):
            is_v6 = query.question[0].rdtype == dns.rdatatype.AAAA
            found = ("AAAA", "2001:db8::1") if is_v6 else ("A", "203.0.113.1")
            response.answer = [
                dns.rrset.from_text(name, 60, "IN", "CNAME", "real.example."),
                dns.rrset.from_text("real.example.", 30, "IN", *found),
            ]
        if name.to_text() == "large.example.":
            texts = [f"text {number}" for number in range(300)]
            response.answer = [dns.rrset.from_text(name, 60, "IN", "TXT", *texts)]
            if is_udp:
                return response.to_wire(max_size=512, prefer_truncation=True)
        if name.to_text() == "other.example.":
            response.question = dns.message.make_query("else.example.", "A").question
        return response.to_wire()

    async with serving(respond) as address:
        yield address


@pytest.mark.parametrize("name", ["localhost", "9.9.9.9.in-addr.ARPA"])
async def test_names_outside_the_cluster_are_forwarded_to_the_upstream_server(upstream, name):
    found = await answer(dns.message.make_query(name, "PTR"), upstream=upstream)
    assert [str(rrset) for rrset in found.answer] == [
        f"{name}. 60 IN CNAME real.example.",
        "real.example. 30 IN A 203.0.113.1",
    ]


async def test_a_large_upstream_response_is_truncated_over_udp_and_complete_over_tcp(upstream):
    query = dns.message.make_query("large.example", "TXT")
    assert (await answer(query, upstream=upstream)).flags & dns.flags.TC
    found = await answer(query, upstream=upstream, is_udp=False)
    assert len(found.answer[0]) == 300


async def test_an_upstream_response_is_truncated_to_the_size_that_the_client_accepts():
    query = dns.message.make_query("large.example", "TXT")
    response = dns.message.make_response(query)
    texts = [f"text {number}" for number in range(100)]
    response.answer = [dns.rrset.from_text("large.example.", 60, "IN", "TXT", *texts)]
    async with serving(lambda _wire, *, is_udp: response.to_wire()) as address:
        found = await answer(query, upstream=address)
    assert query.is_response(found)
    assert (found.answer, found.flags & dns.flags.TC) == ([], dns.flags.TC)


async def test_an_upstream_response_is_forwarded_unparsed():
    query = dns.message.make_query("www.example.com", "A").to_wire()
    head = query[:2] + b"\x81\x80" + query[4:6] + b"\0\x09\0\0\0\0"
    malformed = head + query[12:] + b"\xc0\xff no record"
    async with serving(lambda _wire, *, is_udp: malformed) as address:
        assert await Responder(shop, address).respond(query, is_udp=True)() == malformed


async def test_an_upstream_response_to_another_question_is_rejected(upstream, monkeypatch):
    monkeypatch.setattr("userspace_proxy.lookup.dns_messages.UPSTREAM_TIMEOUT_S", 0.05)
    query = dns.message.make_query("other.example", "A")
    assert await code(query, upstream=upstream) == "SERVFAIL"


@pytest.mark.parametrize(("type_", "ip"), [("A", "203.0.113.1"), ("AAAA", "2001:db8::1")])
async def test_the_target_of_an_external_name_service_is_resolved_upstream(upstream, type_, ip):
    query = dns.message.make_query("db.shop.svc.cluster.local", type_)
    found = await answer(query, upstream=upstream)
    assert [str(rrset) for rrset in found.answer] == [
        "db.shop.svc.cluster.local. 5 IN CNAME localhost.",
        f"localhost. 30 IN {type_} {ip}",
    ]
    assert found.flags & dns.flags.RA


async def test_an_external_name_without_an_upstream_response_returns_a_cname():
    query = dns.message.make_query("db.shop.svc.cluster.local", "A")
    found = await answer(query, upstream=SocketAddress("127.0.0.1", 1))
    assert [str(rrset) for rrset in found.answer] == [
        "db.shop.svc.cluster.local. 5 IN CNAME localhost."
    ]


async def test_names_outside_the_cluster_return_servfail_if_the_upstream_is_unreachable(upstream):
    nobody = SocketAddress("127.0.0.1", 1)
    assert await code(dns.message.make_query("example.com", "A"), upstream=nobody) == "SERVFAIL"


def far():
    """Return names of two ExternalName Services; a label of one target is too long for DNS."""
    store = Store()
    for name, host in (("far", f"{'a' * 126}.example"), ("near", "near.example")):
        given = service(ServiceKey("shop", name), (), (), type=ServiceType.EXTERNAL_NAME)
        store.put_service(replace(given, external_name=host))
    return ServiceNames(store.snapshot())


async def test_an_overlong_label_returns_servfail_and_is_logged_once(caplog):
    now = [0.0]
    responder = Responder(far, clock=lambda: now[0])
    for name, expected in (("far", "SERVFAIL"), ("far", "SERVFAIL"), ("near", "NOERROR")):
        query = dns.message.make_query(f"{name}.shop.svc.cluster.local", "A")
        found = dns.message.from_wire(responder.respond(query.to_wire(), is_udp=True))
        assert (dns.rcode.to_text(found.rcode()), found.id) == (expected, query.id)
    assert [record.getMessage() for record in caplog.records] == [
        "far.shop.svc.cluster.local.: cannot answer DNS query: a label has more than 63 bytes"
    ]


async def test_an_overlong_label_returns_servfail_with_an_upstream_server(upstream):
    query = dns.message.make_query("far.shop.svc.cluster.local", "A")
    assert await code(query, names=far, upstream=upstream) == "SERVFAIL"


HOST = "web.shop.svc.cluster.local."
UDP, TCP = 1232, 65535


def encoded(*records, name=HOST, size=UDP, edns=b"", **sections):
    head = dns.message.make_response(dns.message.make_query(name, "A")).to_wire()
    answer = DnsAnswer(Code.NOERROR, records, **sections)
    wire = encode(head, edns, name, answer, size)
    assert len(wire) <= size
    return dns.message.from_wire(wire)


def record(type_, data, name=HOST):
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
        ("PTR", HOST),
        ("SRV", f"0 100 80 {HOST}"),
        ("SRV", "0 100 80 other.shop.svc.cluster.local."),
        ("SOA", "ns.dns.cluster.local. hostmaster.cluster.local. 7 7200 1800 86400 5"),
        ("TXT", '"1.1.0"'),
    ],
)
@pytest.mark.parametrize("name", [HOST, "Web.Shop.svc.cluster.local.", "x\\.y.cluster.local."])
def test_encoded_records_equal_their_zone_file_text(type_, data, name):
    given = record(type_, data, name)
    found = encoded(given, given, name=name)
    expected = dns.rrset.from_text(name, 5, "IN", type_, data)
    assert [rrset.to_text() for rrset in found.answer] == [expected.to_text()]


def test_names_are_compressed_across_all_sections_of_a_message():
    to = [f"db-{i}.{HOST}" for i in range(3)]
    found = encoded(
        *(record("SRV", f"0 33 80 {each}") for each in to),
        additional=tuple(record("A", "10.0.0.1", each) for each in to),
        authority=(record("PTR", to[0]),),
        edns=bytes.fromhex("0000291000000000000000"),
    )
    assert texts(found.answer) == [f"{HOST} 5 IN SRV 0 33 80 {each}" for each in to]
    assert texts(found.additional) == [f"{each} 5 IN A 10.0.0.1" for each in to]
    assert texts(found.authority) == [f"{HOST} 5 IN PTR {to[0]}"]
    assert (found.edns, found.payload) == (0, 4096)


@pytest.mark.parametrize(("size", "fitting"), [(1228, 74), (1239, 74), (512, 29), (TCP, 4093)])
def test_all_fitting_records_are_sent_and_the_tc_flag_is_set_if_any_is_omitted(size, fitting):
    size += len(EDNS)
    found = encoded(*addresses(fitting), size=size, edns=EDNS)
    assert (len(found.answer[0]), found.flags & dns.flags.TC) == (fitting, 0)
    found = encoded(*addresses(fitting + 1), size=size, edns=EDNS)
    assert len(found.answer[0]) == fitting
    assert found.flags & dns.flags.TC


def test_no_records_follow_the_first_record_that_does_not_fit():
    found = encoded(
        *addresses(99), authority=(record("TXT", '"a"'),), additional=(record("A", "::"),)
    )
    assert (found.authority, found.additional) == ([], [])


def test_a_response_without_all_additional_records_is_not_truncated():
    more = tuple(record("A", f"10.0.0.{i}", f"db-{i}.{HOST}") for i in range(99))
    found = encoded(*addresses(1), additional=more)
    assert 0 < len(found.additional) < 99
    assert not found.flags & dns.flags.TC


def test_a_partial_response_is_marked_as_truncated():
    assert encoded(*addresses(1), is_partial=True).flags & dns.flags.TC


def test_names_beyond_the_range_of_compression_pointers_are_not_compressed():
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
        pytest.param("SRV", f"0 100 65536 {HOST}", struct.error, id="port"),
        pytest.param("SRV", "0 100", ValueError, id="parts"),
    ],
)
def test_a_record_that_dns_cannot_encode_raises_an_error(type_, data, error):
    with pytest.raises(error):
        encoded(record(type_, data))


@pytest.mark.parametrize("size", [512, UDP, TCP])
@pytest.mark.parametrize("type_", ["A", "AAAA", "SRV", "PTR"])
def test_a_random_pick_is_bounded_by_the_message_size_and_reaches_any_record(type_, size):
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
def test_a_random_pick_contains_more_records_than_fit_the_message(type_, data):
    count = len(pick_for(type_, UDP)(1_000_000))
    found = encoded(*[record(type_, data, "w.s.svc.x.")] * count, name="w.s.svc.x.")
    assert found.flags & dns.flags.TC
