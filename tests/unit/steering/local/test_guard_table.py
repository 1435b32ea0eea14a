"""The guard's table as messages, parsed back; tests/node compares it with ``nft``'s output."""

from __future__ import annotations

import pytest

from userspace_proxy.kernel.netlink.messages import read_messages
from userspace_proxy.kernel.nf_tables import TableWriter, reader
from userspace_proxy.kernel.nf_tables.writer import DELETE_ELEMENT, NEW_CHAIN, NEW_RULE, NEW_SET
from userspace_proxy.model import Frontend, Protocol
from userspace_proxy.steering.local.guard_table import (
    SETS,
    address_element,
    all_elements,
    frontend_element,
    read_frontends,
    write_guard,
)

WEB = Frontend("10.96.7.1", 80, Protocol.TCP)
DNS_6 = Frontend("fd00:96::a", 53, Protocol.UDP)


def messages(blocks):
    return [message for block in blocks for message in read_messages(block)]


def rules(blocks, chain):
    listed = [reader.read_rule(one) for one in messages(blocks) if one.kind == NEW_RULE]
    found = [rule for rule in listed if rule.chain == chain]
    return [[one.name for one in rule.expressions()] for rule in found]


def test_elements_of_both_families_are_written():
    assert address_element("10.96.7.1/32") == ("addresses4", bytes([10, 96, 7, 1]), b"")
    key = bytes([10, 96, 7, 1, 6, 0, 0, 0, 0, 80, 0, 0])
    assert frontend_element(WEB) == ("frontends4", key, b"")
    name, key, _ = frontend_element(DNS_6)
    assert (name, key[-8:]) == ("frontends6", bytes([17, 0, 0, 0, 0, 53, 0, 0]))


def test_frontends_are_read_from_their_elements():
    elements = all_elements((), [WEB, DNS_6]) | {("frontends4", b"of another program", b"")}
    assert set(read_frontends(elements)) == {WEB, DNS_6}


def test_elements_are_removed_before_new_elements_are_added():
    old, new = all_elements(["10.96.7.1/32"], [WEB]), all_elements(["fd00:96::a/128"], [DNS_6])
    table = TableWriter("ours")
    table.change_elements(SETS, old, new)
    kinds = [one.kind for one in messages(table.messages)]
    assert kinds == sorted(kinds, reverse=True)
    assert kinds.count(DELETE_ELEMENT) == 2


def test_the_guard_table_has_a_set_per_kind_and_family_and_two_chains():
    made = messages(write_guard("ours", ()))
    sets = [reader.read_set(one).name for one in made if one.kind == NEW_SET]
    chains = [reader.read_chain(one).name for one in made if one.kind == NEW_CHAIN]
    assert sets[:4] == ["addresses4", "addresses6", "frontends4", "frontends6"]
    assert chains == ["guard", "input"]


@pytest.mark.parametrize(("ranges", "expected"), [((), 2), (("10.96.0.0/16", "fd00::/112"), 4)])
def test_the_input_chain_jumps_to_the_guard_for_single_addresses_and_ranges(ranges, expected):
    assert len(rules(write_guard("ours", ranges), "input")) == expected
