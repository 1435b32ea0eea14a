"""Events as bytes, as kernel 6.18 sends them."""

from __future__ import annotations

import errno
import struct

import pytest

from userspace_proxy.steering.nftables.events import Event, read_events

NEW_TABLE = (
    bytes.fromhex("44000000 000a0000 01000000 19090000 01000002 14000100")
    + b"userspace-proxy\0"
    + bytes.fromhex("08000300 00000000 0c000400 0000000000000001 08000200 00000000")
)
NEW_GENERATION = (
    bytes.fromhex("2c000000 0f0a0000 01000000 19090000 00000002 08000100 00000002")
    + bytes.fromhex("08000200 00000919 08000300")
    + b"nft\0"
)


def test_an_event_names_its_table():
    assert list(read_events(NEW_TABLE)) == [Event(1, "userspace-proxy")]


def test_a_transaction_ends_with_the_rulesets_number():
    assert list(read_events(NEW_GENERATION)) == [Event(0, "", 2)]


def test_a_datagram_has_several():
    assert len(list(read_events(NEW_TABLE + NEW_GENERATION))) == 2


def test_messages_of_other_parts_of_the_kernel_are_passed_over():
    conntrack = NEW_TABLE[:5] + b"\x01" + NEW_TABLE[6:]
    assert list(read_events(conntrack)) == []


@pytest.mark.parametrize("size", range(0, len(NEW_GENERATION), 4))
def test_a_message_that_was_cut_ends_the_reading(size):
    assert list(read_events(NEW_GENERATION[:size])) == []


def test_a_refusal_is_an_error():
    refusal = struct.pack("=IHHIIi", 36, 2, 0, 0, 0, -errno.EPERM) + bytes(16)
    with pytest.raises(PermissionError):
        list(read_events(refusal))
