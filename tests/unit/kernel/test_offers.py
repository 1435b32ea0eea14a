from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from types import SimpleNamespace

import pytest

from userspace_proxy.errors import SteeringError
from userspace_proxy.kernel import offers
from userspace_proxy.kernel.nf_tables import NftablesError, Ruleset
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
    found = read_kernel_offers(try_out=trial, read_tables=lambda _version: 0)
    assert found.lacks == {"numgen": errno.ENOENT}
    assert found.words(FOR_NFTABLES) == ""


def test_without_nftables_all_its_parts_are_missing():
    found = read_kernel_offers(FOR_NFTABLES, try_out=lambda _messages: errno.EPROTONOSUPPORT)
    assert found.lacks.keys() == {*FOR_NFTABLES}
    assert found.words(FOR_GUARD) == (
        "this kernel lacks nf_tables (modprobe nf_tables, CONFIG_NF_TABLES)"
    )


def test_what_may_not_be_tried_is_no_lack():
    found = read_kernel_offers(
        try_out=lambda _messages: errno.EPERM, read_tables=lambda _version: errno.EPERM
    )
    assert found.lacks == {}
    assert found.untried == set(NEEDS)


def test_a_shortage_is_no_lack():
    found = read_kernel_offers(
        try_out=lambda _messages: errno.ENOMEM, read_tables=lambda _version: errno.ENOMEM
    )
    assert (found.lacks, found.untried) == ({}, frozenset())


def test_the_words_name_what_brings_a_part():
    found = read_kernel_offers(
        LEGACY.values(),
        read_tables=lambda version: errno.ENOPROTOOPT if version == 4 else 0,
    )
    assert found.words(NEEDS) == (
        "this kernel lacks legacy tables "
        "(modprobe ip_tables iptable_nat iptable_filter, CONFIG_NETFILTER_XTABLES_LEGACY)"
    )


def test_this_kernel_lacks_nothing_and_trying_it_changes_nothing(node):
    assert read_kernel_offers().lacks == {}
    assert node.run("nft list tables") == ""
    assert node.run("cat /proc/net/ip_tables_names /proc/net/ip6_tables_names") == ""


@pytest.mark.parametrize(
    ("code", "lacks"),
    [
        pytest.param(0, set(), id="there"),
        pytest.param(errno.ENOENT, set(), id="without-the-match"),
        pytest.param(errno.ENOPROTOOPT, set(LEGACY.values()), id="missing"),
        pytest.param(errno.EPERM, set(), id="not-allowed"),
    ],
)
def test_without_a_namespace_an_option_tells_of_legacy_tables(monkeypatch, code, lacks):
    def ask(_version, _option, _given):
        if code:
            raise OSError(code, os.strerror(code))

    monkeypatch.setattr(offers, "_libc", SimpleNamespace(unshare=lambda _flags: -1))
    monkeypatch.setattr(offers, "ask_legacy", ask)
    assert read_kernel_offers(LEGACY.values()).lacks.keys() == lacks


@pytest.mark.parametrize("what", ["try_out", "generation"])
def test_the_kernels_refusal_is_a_lack(node, monkeypatch, what):
    def refuse(*_args):
        if what == "try_out":
            raise NftablesError(errno.EOPNOTSUPP, "add table")
        raise SteeringError("cannot query nftables: Invalid argument")

    monkeypatch.setattr(Ruleset, what, refuse)
    assert "inet tables" in read_kernel_offers(FOR_GUARD).lacks


def test_legacy_tables_that_cannot_be_read_are_missing(monkeypatch):
    def ask(_version, _option, _given):
        raise FileNotFoundError(errno.ENOENT, "no such table")

    monkeypatch.setattr(offers, "ask_legacy", ask)
    assert read_kernel_offers(LEGACY.values()).lacks.keys() == set(LEGACY.values())
