"""Parsing nftables listings from the bytes that kernel 6.18 sends."""

import sys

import pytest

from userspace_proxy.kernel.netlink.messages import (
    Message,
    attribute,
    nested,
    number,
    read_messages,
    text,
)
from userspace_proxy.kernel.nf_tables import reader
from userspace_proxy.kernel.nf_tables.writer import goto_chain

# The table of ``nft add table inet userspace-proxy``.
TABLE = (
    bytes.fromhex("44000000 000a0000 01000000 19090000 01000002 14000100")
    + b"userspace-proxy\0"
    + bytes.fromhex("08000300 00000000 0c000400 0000000000000001 08000200 00000000")
)


def chain(family, *, hook=None, priority=0, policy=None):
    body = bytes([family, 0, 0, 0]) + text(1, "firewall") + text(3, "CHAIN")
    if hook is not None:
        body += nested(4, number(1, hook) + number(2, priority)) + text(7, "filter")
    if policy is not None:
        body += number(5, policy)
    return reader.read_chain(Message(0xA03, 0, 1, body))


def test_the_family_name_flags_and_handle_of_a_table_are_parsed():
    (message,) = read_messages(TABLE)
    assert reader.read_table(message) == (1, "userspace-proxy", 0, 1)


def test_the_hook_and_policy_of_a_base_chain_are_parsed():
    found = chain(2, hook=1, priority=-10, policy=0)
    assert (found.kind, found.hook, found.priority) == ("filter", "input", -10)
    assert found.policy == "drop"
    assert chain(2, hook=0, policy=1).policy == "accept"


def test_a_regular_chain_is_parsed_without_a_hook():
    found = chain(2)
    assert (found.kind, found.hook, found.policy) == ("", "", "accept")


def test_an_unknown_hook_is_shown_by_its_number():
    assert chain(1, hook=77).hook == "77"


def test_verdicts_are_read_as_written_and_a_catch_all_element_has_an_empty_key():
    verdict = goto_chain("choose")
    element = nested(1, nested(1, text(1, "key")) + nested(2, nested(2, verdict)))
    catch_all = nested(1, number(3, 2))
    body = bytes([1, 0, 0, 0]) + nested(3, element + catch_all)
    listed = list(reader.read_elements(Message(0xA0C, 0, 1, body)))
    assert listed == [(b"key\0", verdict), (b"", b"")]


def test_the_interval_end_and_the_verdict_of_a_set_element_are_read():
    ends = nested(1, number(3, 1) + nested(1, attribute(1, b"\0\x50")))
    leads = nested(1, nested(1, attribute(1, b"\0\x51")) + nested(2, nested(2, goto_chain("a"))))
    catch_all = nested(1, number(3, 2))
    body = bytes([1, 0, 0, 0]) + nested(3, ends + leads + catch_all)
    assert reader.list_elements(Message(0xA0C, 0, 1, body)) == [
        (b"\0\x50", True, b""),
        (b"\0\x51", False, nested(2, goto_chain("a"))),
        (b"", False, b""),
    ]


@pytest.mark.parametrize("read", [reader.read_table, reader.read_chain])
def test_an_nftables_message_without_a_family_is_an_error(read):
    with pytest.raises(OSError, match="malformed message"):
        read(Message(0xA00, 0, 1, b""))


def counted(*attributes):
    """Return a listing of elements that have these attributes in addition to their keys."""
    key = nested(1, attribute(1, b"\x0a\x60\x07\x01"))
    elements = b"".join(nested(1, key + one) for one in attributes)
    return Message(0xA0C, 0, 1, bytes(4) + nested(3, elements))


def with_counter(packets):
    numbers = attribute(1, bytes(8)) + attribute(2, packets.to_bytes(8, "big"))
    return nested(7, attribute(1, b"counter\0") + nested(2, numbers))


def test_element_counters_are_read_with_their_keys():
    key = b"\x0a\x60\x07\x01"
    timeout = attribute(4, bytes(8))
    assert reader.read_counts(counted(with_counter(7) + timeout, b"", with_counter(1 << 40))) == [
        (key, 7),
        (key, None),
        (key, 1 << 40),
    ]
    assert reader.read_counts(Message(0xA0C, 0, 1, bytes(4))) == []


@pytest.mark.parametrize("size", [0, 3, 500])
def test_an_element_of_an_impossible_size_is_rejected_as_malformed(size):
    element = bytearray(counted(with_counter(7)).body)
    element[8:10] = size.to_bytes(2, sys.byteorder)
    with pytest.raises(OSError, match="malformed"):
        reader.read_counts(Message(0xA0C, 0, 1, bytes(element)))
