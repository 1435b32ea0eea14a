from userspace_proxy.kernel.nf_tables.attributes import (
    nested,
    number,
    number_in,
    read_all,
    text,
    text_in,
)


def test_numbers_are_in_network_order():
    assert number(2, 16) == bytes.fromhex("08000200 00000010")
    assert number(2, -110) == bytes.fromhex("08000200 ffffff92")


def test_values_are_read_as_they_were_written():
    found = read_all(text(1, "ours") + number(2, -5) + nested(3, number(1, 7)))
    assert text_in(found, 1) == "ours"
    assert number_in(found, 2, is_signed=True) == -5
    assert number_in(read_all(found[3]), 1) == 7


def test_missing_attributes_are_0_or_empty():
    assert (number_in({}, 1), text_in({}, 1)) == (0, "")
