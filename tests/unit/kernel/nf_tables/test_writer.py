"""Changes of a table as messages, parsed back; tests/node applies them to a kernel."""

import pytest

from userspace_proxy.kernel.netlink.messages import read_all, read_messages, text_in
from userspace_proxy.kernel.nf_tables import expressions as x
from userspace_proxy.kernel.nf_tables import writer as w
from userspace_proxy.kernel.nf_tables.reader import read_chain, read_elements, read_set


def messages(table):
    return [message for block in table.messages for message in read_messages(block)]


def test_a_table_that_does_not_exist_can_be_replaced():
    table = w.TableWriter("ours")
    table.create()
    assert [one.kind for one in messages(table)] == [w.NEW_TABLE, w.DELETE_TABLE, w.NEW_TABLE]


def test_base_chains_are_written_with_their_hook_and_priority():
    table = w.TableWriter("ours", w.BRIDGE)
    table.add_base_chain("input", "filter", w.INPUT, -10)
    (chain,) = map(read_chain, messages(table))
    assert (chain.family, chain.table, chain.name) == (w.BRIDGE, "ours", "input")
    assert (chain.kind, chain.hook, chain.priority) == ("filter", "input", -10)


def test_elements_exceeding_an_attribute_are_split_into_several_messages():
    table = w.TableWriter("ours")
    many = {number.to_bytes(16, "big"): b"\x8c\xa1" for number in range(5000)}
    table.add_elements("frontends", many)
    assert len(messages(table)) > 1
    assert max(map(len, table.messages)) < 1 << 16
    assert dict(one for message in messages(table) for one in read_elements(message)) == many


def test_a_verdict_map_may_contain_values_of_different_lengths():
    table = w.TableWriter("ours")
    many = {n.to_bytes(16, "big"): w.goto_chain("x" * (1 + n % 9)) for n in range(2000)}
    table.change_elements(["m"], (), {("m", key, value) for key, value in many.items()})
    assert len(messages(table)) > 1
    assert max(map(len, table.messages)) < 1 << 16
    assert dict(one for message in messages(table) for one in read_elements(message)) == many


def test_without_elements_no_message_is_written():
    table = w.TableWriter("ours")
    table.delete_elements("frontends", ())
    table.change_elements(["frontends"], (), ())
    assert table.messages == []


def test_elements_are_removed_in_order_of_sets_and_added_in_the_reverse_order():
    table = w.TableWriter("ours")
    removed = {("map", b"old", b"1"), ("set", b"old", b"")}
    table.change_elements(["map", "set"], removed, {("map", b"new", b"2"), ("set", b"new", b"")})
    assert [
        (one.kind, text_in(read_all(one.body, 4), w.SET_NAME), *read_elements(one))
        for one in messages(table)
    ] == [
        (w.DELETE_ELEMENT, "map", (b"old", b"")),
        (w.DELETE_ELEMENT, "set", (b"old", b"")),
        (w.NEW_ELEMENT, "set", (b"new", b"")),
        (w.NEW_ELEMENT, "map", (b"new", b"2")),
    ]


def test_an_anonymous_set_precedes_its_rule():
    table = w.TableWriter("ours")
    table.add_rule("input", x.one_of(x.L4PROTO, x.INET_PROTO, 6, 17), x.verdict(x.ACCEPT))
    made = messages(table)
    assert [one.kind for one in made] == [w.NEW_SET, w.NEW_ELEMENT, w.NEW_RULE]
    assert dict(read_elements(made[1])) == {b"\6": b"", b"\x11": b""}


def test_equally_named_sets_of_different_writers_have_different_ids():
    writers = [w.TableWriter("ours"), w.TableWriter("ours")]
    for table in writers:
        table.add_map("same", x.INET_PROTO, x.INET_SERVICE)
    assert writers[0].messages != writers[1].messages
    assert len({read_set(one) for table in writers for one in messages(table)}) == 1


def test_interval_sets_declare_their_flags_and_key_lengths():
    table = w.TableWriter("ours")
    table.add_interval_set("ranges", (x.IPV4_ADDR, x.INET_PROTO, x.INET_SERVICE), x.INET_SERVICE)
    table.add_interval_set("choices", (x.IPV4_ADDR, x.INET_SERVICE), w.VERDICTS)
    table.add_interval_set("counted", (x.IPV4_ADDR, x.INET_SERVICE), counts=True)
    sets = [read_set(message) for message in messages(table)]
    assert [(one.name, one.flags, one.shape[1]) for one in sets] == [
        ("ranges", 0x8C, 12),
        ("choices", 0x8C, 8),
        ("counted", 0x84, 8),
    ]


@pytest.mark.parametrize("value", [b"", b"\x8c\xa1", w.goto_chain("to")])
def test_nftables_intervals_round_trip(value):
    table = w.TableWriter("ours")
    many = {
        w.Interval(n.to_bytes(12, "big") + (n + 9).to_bytes(12, "big")): value for n in range(3000)
    }
    table.add_elements("ranges", many)
    assert max(map(len, table.messages)) < 1 << 16
    found = dict(one for message in messages(table) for one in read_elements(message))
    assert found == many
    key = next(iter(found))
    assert isinstance(key, w.Interval)
    assert (key.first, key.last) == (bytes(12), bytes(11) + bytes([9]))
