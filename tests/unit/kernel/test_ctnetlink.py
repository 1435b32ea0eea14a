"""Encoding requests about conntrack entries, and parsing the replies of kernel 6.18."""

from __future__ import annotations

import socket
import struct

import pytest

from userspace_proxy.kernel.ctnetlink import (
    IPS_DST_NAT,
    IPS_SEEN_REPLY,
    ConntrackEntry,
    EntryFilter,
    Volume,
    list_request,
    pack_address,
    read_entries,
    remove_request,
)
from userspace_proxy.kernel.netlink.messages import NESTED, attribute

TCP, UDP = socket.IPPROTO_TCP, socket.IPPROTO_UDP
# conntrack -L: udp src=10.1.0.2 dst=10.96.0.10 sport=40000 dport=53 [UNREPLIED] src=127.0.0.1 …
DNS = bytes.fromhex(
    "a4000000000122000000000002280000020000003400018014000180080001000a010002080002000a60000a"
    "1c0002800500010011000000060002009c40000006000300003500003400028014000180080001007f000001"
    "080002000a0100021c0002800500010011000000060002008ca20000060003009c40000008000300000001a8"
    "080008000000000008000c00f26d6fec08000b0000000001080007000000001d"
)
# tcp SYN_SENT src=10.1.0.2 dst=10.96.7.1 sport=40001 dport=80 [UNREPLIED] src=10.96.7.1 …
WEB = bytes.fromhex(
    "d4000000000122000000000002280000020000003400018014000180080001000a010002080002000a600701"
    "1c0002800500010006000000060002009c41000006000300005000003400028014000180080001000a600701"
    "080002000a0100021c00028005000100060000000600020000500000060003009c4100000800030000000188"
    "080008000000000008000c00c8e0edb208000b00000000020800070000000077300004802c00018005000100"
    "01000000050002000a000000050003000000000006000400030000000600050000000000"
)
# udp src=fd00:1::2 dst=fd00:96::a sport=40000 dport=53 [UNREPLIED] src=::1 … sport=36002
DNS_6 = bytes.fromhex(
    "d40000000001220000000000022800000a0000004c0001802c00018014000300fd0000010000000000000000"
    "0000000214000400fd00009600000000000000000000000a1c0002800500010011000000060002009c400000"
    "06000300003500004c0002802c00018014000300000000000000000000000000000000011400"
    "0400fd0000010000000000000000000000021c0002800500010011000000060002008ca20000060003009c40"
    "000008000300000001a8080008000000000008000c000ae9409808000b0000000001080007000000001d"
)
DONE = bytes.fromhex("1400000003000200000000000228000000000000")
NUMBER = bytes.fromhex("08000c00f26d6fec")
ORIGIN = DNS[20:72]


def read(block: bytes, version: int = 4, protocol: int = UDP) -> list[ConntrackEntry]:
    return list(read_entries(block, version, protocol))


@pytest.mark.parametrize(
    ("message", "version", "protocol", "addresses"),
    [
        pytest.param(
            DNS,
            4,
            UDP,
            [("10.1.0.2", 40000), ("10.96.0.10", 53), ("127.0.0.1", 36002)],
            id="udp-redirected",
        ),
        pytest.param(
            WEB,
            4,
            TCP,
            [("10.1.0.2", 40001), ("10.96.7.1", 80), ("10.96.7.1", 80)],
            id="tcp-past-the-proxy",
        ),
        pytest.param(
            DNS_6, 6, UDP, [("fd00:1::2", 40000), ("fd00:96::a", 53), ("::1", 36002)], id="ipv6"
        ),
    ],
)
def test_the_client_the_dialled_address_and_the_reply_source_of_an_entry_are_parsed(
    message, version, protocol, addresses
):
    (entry,) = read(message, version, protocol)
    assert [entry.client, entry.dialled, entry.answered_from] == [
        pack_address(*address) for address in addresses
    ]


def test_only_entries_of_the_requested_protocol_are_read():
    block = DNS + WEB + DNS + DONE
    assert [entry.message for entry in read(block)] == [DNS, DNS]
    assert [entry.message for entry in read(block, protocol=TCP)] == [WEB]


def test_conntrack_entries_with_another_layout_are_skipped():
    ping = DNS.replace(b"\x06\0\x02\0\x9c\x40", b"\x06\0\x04\0\x9c\x40")
    short = struct.pack("=IH", 40, 0x100) + DNS[6:40]
    assert read(ping + DNS_6 + DNS + short) == read(DNS)


def test_the_status_shows_whether_an_entry_is_translated_and_answered():
    (dns,), (web,) = read(DNS), read(WEB, protocol=TCP)
    bits = IPS_DST_NAT | IPS_SEEN_REPLY
    assert (dns.status & bits, web.status & bits) == (IPS_DST_NAT, 0)


@pytest.mark.parametrize(
    ("message", "protocol", "status", "state", "has_answered"),
    [
        pytest.param(WEB, TCP, 0x188, 1, False, id="tcp-nothing-came-back"),
        pytest.param(WEB, TCP, 0x18A, 2, False, id="tcp-the-answer-was-dropped-on-its-way"),
        pytest.param(WEB, TCP, 0x18E, 3, True, id="tcp-established"),
        pytest.param(WEB, TCP, 0x18A, 8, True, id="tcp-refused"),
        pytest.param(DNS, UDP, 0x1A8, 0, False, id="udp-nothing-came-back"),
        pytest.param(DNS, UDP, 0x1AA, 0, True, id="udp-answered"),
    ],
)
def test_a_client_is_answered_by_a_completed_handshake_a_refusal_or_a_datagram(
    message, protocol, status, state, has_answered
):
    header = b"\x08\0\x03\0"
    place = message.index(header) + len(header)
    changed = message[:place] + struct.pack(">I", status) + message[place + 4 :]
    (entry,) = read(changed.replace(b"\x05\0\x01\0\x01", b"\x05\0\x01\0%c" % state), 4, protocol)
    assert entry.has_answered_client is has_answered


@pytest.mark.parametrize("zone", [b"", bytes.fromhex("0600120000070000")], ids=["none", "seven"])
def test_an_entry_is_removed_by_its_origin_id_and_zone(zone):
    size = struct.pack("=I", len(DNS + zone))
    (entry,) = read(size + DNS[4:] + zone)
    header = struct.pack("=IHHII", 80 + len(zone), 0x102, 1, 0, 0) + b"\x02\0\0\0"
    assert remove_request(entry) == header + ORIGIN + NUMBER + zone


def test_requests_for_the_same_entry_are_equal_at_different_times():
    (entry,), (later,) = read(DNS), read(DNS[:-1] + b"\x05")
    assert entry != later
    assert remove_request(entry) == remove_request(later)


@pytest.mark.parametrize(
    ("version", "wanted", "body"),
    [
        (
            4,
            EntryFilter(UDP, "10.96.0.10", 53),
            "24000180 0c000180 080002000a60000a 14000280 0500010011000000 0600030000350000"
            "0c001980 080001002a000000",
        ),
        (
            6,
            EntryFilter(UDP, "fd00:96::a", 53),
            "18000180 14000280 0500010011000000 0600030000350000 0c001980 0800010028000000",
        ),
        (
            4,
            EntryFilter(TCP, without=IPS_DST_NAT | IPS_SEEN_REPLY),
            "10000180 0c000280 0500010006000000 0c001980 0800010008000000"
            "0800030000000000 08001a0000000022",
        ),
    ],
    ids=["ipv4-address", "ipv6-address", "without-status"],
)
def test_a_list_request_is_encoded_as_by_libnetfilter(version, wanted, body):
    attributes = bytes.fromhex(body.replace(" ", ""))
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    header = struct.pack("=IHHIIBBH", 20 + len(attributes), 0x101, 0x301, 0, 0, family, 0, 0)
    assert list_request(version, wanted) == header + attributes


def test_a_truncated_status_is_an_error():
    (entry,) = read_entries(DNS, 4, UDP)
    # The length covers only one of the attribute's four bytes.
    cut = entry._replace(message=entry.message.replace(b"\x08\0\x03\0", b"\x05\0\x03\0"))
    with pytest.raises(OSError, match="malformed message"):
        assert cut.status


def test_bytes_and_packets_of_both_directions_are_read():
    (entry,) = read(DNS)
    assert entry.volume == Volume()

    def counters(kind, packets, sent):
        parts = (attribute(1, packets.to_bytes(8, "big")), attribute(2, sent.to_bytes(8, "big")))
        return attribute(kind | NESTED, b"".join(parts))

    more = counters(9, 3, 400) + counters(10, 2, 1 << 40)
    counted = entry._replace(message=entry.message + more)
    assert counted.volume == Volume(400, 1 << 40, 3, 2)
    assert counted.volume.plus(Volume(1, 1, 1, 1)) == Volume(401, (1 << 40) + 1, 4, 3)
