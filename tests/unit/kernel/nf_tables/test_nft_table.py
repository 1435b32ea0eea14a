"""Parsing nftables events from the bytes that kernel 6.18 sends."""

from __future__ import annotations

import socket
from contextlib import closing

from userspace_proxy.kernel.netlink.messages import read_messages
from userspace_proxy.kernel.nf_tables import Ruleset
from userspace_proxy.kernel.nf_tables.nft_table import (
    Listing,
    NftTable,
    RulesetEvent,
    TableWatch,
    read_event,
)

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


def read(block: bytes) -> list[RulesetEvent | None]:
    return [read_event(message) for message in read_messages(block)]


def test_the_table_of_an_nftables_event_is_parsed():
    assert read(NEW_TABLE) == [RulesetEvent(1, "userspace-proxy")]


def test_the_last_event_of_a_transaction_contains_the_ruleset_generation():
    assert read(NEW_TABLE + NEW_GENERATION)[1:] == [RulesetEvent(0, "", 2)]


def test_messages_of_other_netlink_subsystems_are_ignored():
    conntrack = NEW_TABLE[:5] + b"\x01" + NEW_TABLE[6:]
    assert read(conntrack) == [None]


def test_a_message_without_a_table_name_belongs_to_no_table():
    assert read(b"\x14\0\0\0" + NEW_TABLE[4:20]) == [RulesetEvent(1, "")]


def test_elements_of_returns_no_entry_for_a_set_missing_from_the_listing():
    listing = Listing(
        is_owned=False, definitions=(), elements={"s": {b"k": b"v"}, "more": {b"": b""}}
    )
    assert listing.elements_of(["s", "u"]) == {("s", b"k", b"v")}


def test_a_table_with_another_name_is_not_listed(node):
    node.run("nft add table inet other")
    with closing(NftTable("ours")) as table:
        assert table.look() is None


def test_after_lost_events_a_table_counts_as_changed_until_settle(node):
    with closing(Ruleset()) as ruleset, closing(TableWatch(ruleset, "ours")) as watch:
        watch._events._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        node.run("; ".join(f"nft add table inet other{number}" for number in range(50)))
        assert watch.is_affected()
        # This event arrives, but the lost ones may have been about the table.
        node.run("nft add table inet last")
        assert (watch.is_affected(), watch.has_lost) == (True, True)
        watch.settle()
        assert (watch.is_affected(), watch.has_lost) == (False, False)
