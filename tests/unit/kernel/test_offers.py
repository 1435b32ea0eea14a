from __future__ import annotations

import errno
from collections.abc import Callable, Sequence

import pytest

from userspace_proxy.kernel.offers import FOR_GUARD, FOR_NFTABLES, LEGACY, NEEDS, read_kernel_offers


def kernel_without(name: bytes, code: int) -> Callable[[Sequence[bytes]], int]:
    """Return the trial of a kernel that lacks an expression, or a kind of chain."""
    return lambda messages: code if any(name in message for message in messages) else 0


@pytest.mark.parametrize(
    ("expression", "part"),
    [
        (b"nat\0", "nat"),
        (b"redir\0", "redirect"),
        (b"reject\0", "reject"),
        (b"socket\0", "socket"),
        (b"fib\0", "fib"),
        (b"masq\0", "masquerade"),
        (b"numgen\0", "numgen"),
        (b"hash\0", "hash"),
    ],
)
def test_a_part_is_missing_where_the_kernel_refuses_its_expression(expression, part):
    trial = kernel_without(b"\1\0" + expression, errno.ENOENT)
    assert part in read_kernel_offers(try_out=trial, read_tables=lambda _version: 0).lacks


def test_other_parts_are_not_missing():
    trial = kernel_without(b"numgen\0", errno.ENOENT)
    offers = read_kernel_offers(try_out=trial, read_tables=lambda _version: 0)
    assert offers.lacks == {"numgen": errno.ENOENT}
    assert offers.words(FOR_NFTABLES) == ""


def test_without_nftables_all_its_parts_are_missing():
    offers = read_kernel_offers(FOR_NFTABLES, try_out=lambda _messages: errno.EPROTONOSUPPORT)
    assert offers.lacks.keys() == {*FOR_NFTABLES}
    assert offers.words(FOR_GUARD) == (
        "this kernel lacks nf_tables (modprobe nf_tables, CONFIG_NF_TABLES)"
    )


def test_what_may_not_be_tried_is_no_lack():
    offers = read_kernel_offers(
        try_out=lambda _messages: errno.EPERM, read_tables=lambda _version: errno.EPERM
    )
    assert offers.lacks == {}
    assert offers.untried == set(NEEDS)


def test_a_shortage_is_no_lack():
    offers = read_kernel_offers(
        try_out=lambda _messages: errno.ENOMEM, read_tables=lambda _version: errno.ENOMEM
    )
    assert (offers.lacks, offers.untried) == ({}, frozenset())


def test_the_words_name_what_brings_a_part():
    offers = read_kernel_offers(
        LEGACY.values(),
        read_tables=lambda version: errno.ENOPROTOOPT if version == 4 else 0,
    )
    assert offers.words(NEEDS) == (
        "this kernel lacks legacy tables "
        "(modprobe ip_tables iptable_nat iptable_filter, CONFIG_NETFILTER_XTABLES_LEGACY)"
    )


def test_this_kernel_lacks_nothing_and_trying_it_changes_nothing(node):
    assert read_kernel_offers().lacks == {}
    assert node.run("nft list tables") == ""
    assert node.run("cat /proc/net/ip_tables_names /proc/net/ip6_tables_names") == ""
