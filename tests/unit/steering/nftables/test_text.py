"""Pieces of tables as text, as ``nft`` prints them."""

from __future__ import annotations

import pytest

from userspace_proxy.model import Frontend, Protocol
from userspace_proxy.steering.nftables.text import (
    COMMAND_ELEMENTS,
    frontend_key,
    printed_ip,
    without_elements,
    write_elements,
    write_removal,
    write_section,
)


@pytest.mark.parametrize(
    ("frontend", "key"),
    [
        pytest.param(Frontend("10.96.7.1", 80, Protocol.TCP), "10.96.7.1 . 6 . 80", id="tcp"),
        pytest.param(Frontend("fd00:96::a", 53, Protocol.UDP), "fd00:96::a . 17 . 53", id="udp"),
    ],
)
def test_a_frontend_is_an_element(frontend, key):
    assert frontend_key(frontend) == key


def test_an_address_with_an_old_one_inside_is_printed_as_the_kernels_tools_do():
    assert printed_ip("::ffff:a00:1") == "::ffff:10.0.0.1"


def test_a_section_has_its_lines_in_braces():
    assert write_section("chain", "guard", ["one", "two"]) == (
        "\tchain guard {\n\t\tone\n\t\ttwo\n\t}\n"
    )


def test_a_table_is_removed_be_it_there_or_not():
    assert write_removal("userspace-proxy-canary") == (
        "add table inet userspace-proxy-canary\ndelete table inet userspace-proxy-canary"
    )


def test_elements_come_by_commands_that_fit_a_socket():
    elements = [str(number) for number in range(COMMAND_ELEMENTS + 1)]
    first, second = write_elements("add", "t", "s", elements)
    assert first.count(",") + 1 == COMMAND_ELEMENTS
    assert second == f"add element inet t s {{ {COMMAND_ELEMENTS} }}"


def test_no_elements_are_no_command():
    assert list(write_elements("delete", "t", "s", [])) == []


def test_a_listing_is_the_same_with_elements_and_without():
    empty = "table inet t {\n\tset s {\n\t\ttype inet_service\n\t}\n}"
    full = empty.replace("service\n", "service\n\t\telements = { 80,\n\t\t\t     81 }\n")
    assert without_elements(full) == without_elements(empty) == empty
