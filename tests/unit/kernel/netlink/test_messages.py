"""Encoding and parsing netlink messages and their attributes."""

from __future__ import annotations

import errno
import struct

import pytest

from userspace_proxy.kernel.netlink.messages import (
    ACK,
    DUMP,
    NESTED,
    Message,
    attribute,
    checked,
    ip_of,
    is_last,
    nested,
    number,
    number_in,
    number_of,
    numbered,
    read_all,
    read_attributes,
    read_message,
    read_messages,
    request,
    text,
    text_in,
)
from userspace_proxy.model import pack_ip

from .datagrams import INTERRUPTED, done, error, message

ODD = message(20, b"abc", number=7)
EVEN = message(24, b"defg", number=7, flags=INTERRUPTED)


def test_a_datagram_contains_several_messages_padded_to_four_bytes():
    assert list(read_messages(ODD + EVEN)) == [
        Message(20, 2, 7, b"abc"),
        Message(24, INTERRUPTED, 7, b"defg"),
    ]


@pytest.mark.parametrize("size", range(len(EVEN)))
def test_parsing_ends_at_a_truncated_message(size):
    assert [one.kind for one in read_messages(ODD + EVEN[:size])] == [20]


def test_parsing_ends_at_a_message_shorter_than_its_header():
    assert list(read_messages(struct.pack("=IHHII", 8, 20, 0, 0, 0) + ODD)) == []


def test_attributes_after_a_fixed_part_round_trip():
    body = b"head" + attribute(1, b"eth0\0") + attribute(8 | NESTED, b"1234") + attribute(3, b"")
    assert list(read_attributes(body, 4)) == [(1, b"eth0\0"), (8, b"1234"), (3, b"")]


@pytest.mark.parametrize("size", [0, 3, 4, 7])
def test_parsing_ends_at_a_truncated_attribute(size):
    body = attribute(1, b"1234") + attribute(2, b"5678")[:size]
    assert list(read_attributes(body)) == [(1, b"1234")]


def test_parsing_ends_at_an_attribute_without_a_length():
    assert list(read_attributes(bytes(8))) == []


def test_sending_assigns_a_sequence_number_and_adds_flags():
    sent = numbered(request(26, DUMP, b"body"), 9, ACK)
    assert sent == struct.pack("=IHHII", 20, 26, 0x1 | DUMP | ACK, 9, 0) + b"body"
    assert number_of(sent) == 9


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        pytest.param(ODD + EVEN, False, id="more-to-come"),
        pytest.param(ODD + done(), True, id="with-the-end"),
        pytest.param(done(), True, id="the-end-alone"),
        pytest.param(message(3), True, id="an-end-without-a-code"),
        pytest.param(b"", False, id="empty"),
    ],
)
def test_the_last_datagram_of_a_listing_is_recognized(block, expected):
    assert is_last(block) is expected


@pytest.mark.parametrize(
    ("block", "cause"),
    [
        pytest.param(error(1), "Operation not permitted", id="refused"),
        pytest.param(ODD + done(code=12), "Cannot allocate memory", id="broke-off"),
        pytest.param(error(2**31), "Unknown error", id="least-integer"),
    ],
)
def test_a_failed_listing_raises_the_kernels_error(block, cause):
    with pytest.raises(OSError, match=cause):
        is_last(block)


@pytest.mark.parametrize("size", [0, 15, 17])
def test_a_datagram_without_a_complete_message_is_an_error(size):
    with pytest.raises(OSError, match="malformed message"):
        read_message(EVEN[:size])


def test_a_datagram_without_a_header_has_no_sequence_number():
    with pytest.raises(OSError, match="malformed message") as raised:
        number_of(EVEN[:7])
    assert raised.value.errno == errno.EBADMSG


def test_a_message_that_is_too_short_raises_a_malformed_message_error():
    @checked
    def first_byte(body):
        return body[0]

    assert first_byte(b"\7") == 7
    with pytest.raises(OSError, match="malformed message"):
        first_byte(b"")


def test_numbers_are_encoded_in_network_byte_order():
    assert number(2, 16) == bytes.fromhex("08000200 00000010")
    assert number(2, -110) == bytes.fromhex("08000200 ffffff92")


def test_attribute_values_round_trip():
    found = read_all(text(1, "ours") + number(2, -5) + nested(3, number(1, 7)))
    assert text_in(found, 1) == "ours"
    assert number_in(found, 2, is_signed=True) == -5
    assert number_in(read_all(found[3]), 1) == 7


def test_missing_attributes_are_read_as_0_or_an_empty_string():
    assert (number_in({}, 1), text_in({}, 1)) == (0, "")


@pytest.mark.parametrize("ip", ["10.1.0.1", "fd00:1::1", "::a00:1"])
def test_an_address_is_packed_and_printed_in_canonical_form(ip):
    assert ip_of(pack_ip(ip)) == ip


def test_a_missing_address_is_formatted_as_empty():
    assert ip_of(b"") == ""
