"""Expressions as names and attributes; tests/node compares them with ``nft``'s output."""

import socket

import pytest

from userspace_proxy.kernel.nf_tables import expressions as x
from userspace_proxy.kernel.nf_tables.reader import ListedRule


def names(part):
    return [one.name for one in ListedRule("", part).expressions()]


def registers(part, kind):
    """Return the registers in this attribute of a match's expressions."""
    found = (one.attributes().get(kind) for one in ListedRule("", part).expressions())
    return [int.from_bytes(value, "big") for value in found if value]


def test_a_match_loads_a_field_and_compares_its_bits():
    assert names(x.match(x.MARK, 1)) == ["meta", "cmp"]
    assert names(x.match(x.MARK, 1, mask=3)) == ["meta", "bitwise", "cmp"]
    assert names(x.within(x.DPORT, 1, 2)) == ["payload", "cmp", "cmp"]


def test_a_number_too_large_for_a_field_is_an_error():
    with pytest.raises(OverflowError):
        x.match(x.DPORT, 65536)


def test_the_fields_of_a_key_are_loaded_into_consecutive_registers():
    fields = (x.IP6_DADDR, x.L4PROTO, x.DPORT)
    assert registers(x.in_set(fields, "frontends"), 1)[:3] == [1, 2, 13]
    fields = (x.IP_DADDR, x.L4PROTO, x.DPORT)
    assert registers(x.look_up(fields, "frontends", 2), 1)[:3] == [2, 13, 14]


def test_a_network_is_compared_up_to_its_prefix_length():
    assert bytes([255, 240, 0, 0]) in x.match_network("10.96.0.0/12")
    packed = socket.inet_pton(socket.AF_INET6, "fd00:96::")
    assert packed in x.match_network("fd00:96::/108")


def test_packet_and_metadata_fields_can_be_assigned():
    assert names(x.assign(x.ETHER_DADDR, 0x020000000001)) == ["immediate", "payload"]
    assert names(x.assign(x.PACKET_TYPE, x.THIS_HOST)) == ["immediate", "meta"]
    assert names(x.set_bits(x.MARK, 0x40)) == ["meta", "bitwise", "meta"]


def test_an_anonymous_set_is_encoded_in_its_rule():
    inline = x.one_of(x.L4PROTO, x.INET_PROTO, 6, 17, is_inverted=True)
    assert names(x.look_up_inline(inline, "__set%d", 7)) == ["meta", "lookup"]


def test_an_anonymous_verdict_map_is_encoded_in_its_rule():
    inline = x.go_by(0, [b"verdict"])
    assert (inline.slot, inline.verdicts) == (0, (b"verdict",))
    assert names(x.go_by_inline(inline, "__map%d", 7)) == ["lookup"]


def test_a_goto_verdict_contains_its_target_chain():
    assert b"guard\0" in x.verdict(x.GOTO, "guard")
    assert names(x.verdict(x.ACCEPT)) == ["immediate"]


def test_the_fields_of_a_key_are_aligned_to_four_bytes():
    key = x.joined(x.IPV4_ADDR, x.INET_PROTO, x.INET_SERVICE)
    assert key.width == 12
    # The type number that nft 1.0.6 uses for "ipv4_addr . inet_proto . inet_service".
    assert key.number == 0x730D


def test_register_bytes_are_hashed_into_another_register():
    (hashed,) = ListedRule("", x.pick_by(8, 16, 128, 6, seed=7, first=3)).expressions()
    numbers = {kind: int.from_bytes(value, "big") for kind, value in hashed.attributes().items()}
    # Source register, destination register, length, modulus, seed, offset, type (Jenkins).
    assert numbers == {1: 16, 2: 14, 3: 16, 4: 128, 5: 7, 6: 3, 7: 0}
