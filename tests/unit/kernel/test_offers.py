from __future__ import annotations

import errno
from collections.abc import Callable, Mapping, Sequence

import pytest

from userspace_proxy.errors import SteeringError
from userspace_proxy.kernel.nf_tables import NftablesError, Ruleset
from userspace_proxy.kernel.nf_tables.writer import NEW_TABLE
from userspace_proxy.kernel.nft_probes import PROBES
from userspace_proxy.kernel.offers import (
    FOR_GUARD,
    FOR_NFTABLES,
    NEEDS,
    KernelOffers,
    read_kernel_offers,
    try_parts,
)

OTHERS = [name for name in NEEDS if name not in PROBES and name != "nf_tables"]


def kernel_without(name: bytes, code: int) -> Callable[[Sequence[bytes]], int]:
    """Return the probe of a kernel that lacks an expression or a kind of chain."""
    return lambda messages: code if any(name in message for message in messages) else 0


def answering(code: int) -> Callable[[Sequence[str]], Mapping[str, int]]:
    """Return a value for ``try_others``: a probe with the same result for all features."""
    return lambda names: dict.fromkeys(names, code)


@pytest.mark.parametrize(
    ("expression", "part"),
    [
        (b"nat\0", "nat"),
        (b"redir\0", "redirect"),
        (b"reject\0", "reject"),
        (b"socket\0", "socket"),
        (b"tproxy\0", "tproxy"),
        (b"fib\0", "fib"),
        (b"masq\0", "masquerade"),
        (b"numgen\0", "numgen"),
        (b"hash\0", "hash"),
        (b"counter\0", "counters"),
        (b"dynset\0", "sets"),
    ],
)
def test_a_feature_counts_as_missing_if_the_kernel_rejects_its_expression(expression, part):
    trial = kernel_without(b"\1\0" + expression, errno.ENOENT)
    assert part in read_kernel_offers(try_out=trial, try_others=answering(0)).lacks


def test_an_unneeded_missing_feature_is_not_reported():
    trial = kernel_without(b"numgen\0", errno.ENOENT)
    found = read_kernel_offers(try_out=trial, try_others=answering(0))
    assert found.lacks == {"numgen": errno.ENOENT}
    assert found.words(FOR_NFTABLES) == ""


def test_only_the_first_of_dependent_missing_features_is_reported():
    found = read_kernel_offers(
        FOR_NFTABLES, try_out=lambda _messages: errno.EPROTONOSUPPORT, try_others=answering(0)
    )
    assert found.lacks.keys() == {*FOR_NFTABLES} - {"conntrack netlink"}
    assert found.words(FOR_GUARD) == (
        "this kernel lacks nf_tables (modprobe nf_tables, CONFIG_NF_TABLES)"
    )
    assert KernelOffers(dict.fromkeys(("inet tables", "nat", "ct"), errno.ENOENT)).missing() == [
        "inet tables"
    ]


def test_a_forbidden_probe_is_an_obstacle_but_not_a_missing_feature():
    found = read_kernel_offers(
        try_out=lambda _messages: errno.EPERM, try_others=answering(errno.EPERM)
    )
    assert found.lacks == {}
    assert found.untried == set(NEEDS)
    assert found.obstacle(FOR_GUARD, "nftables") == "cannot query nftables: Operation not permitted"


def test_running_out_of_memory_is_not_a_missing_feature():
    found = read_kernel_offers(
        try_out=lambda _messages: errno.ENOMEM, try_others=answering(errno.ENOMEM)
    )
    assert (found.lacks, found.untried) == ({}, frozenset())


def test_only_requested_features_are_probed():
    tried: list[str] = []

    def note(names: Sequence[str]) -> Mapping[str, int]:
        tried.extend(names)
        return {}

    def refuse(_messages: Sequence[bytes]) -> int:
        raise AssertionError("nftables was probed")

    read_kernel_offers(["IPv6", "sock_diag"], try_out=refuse, try_others=note)
    assert tried == ["IPv6", "sock_diag"]


def test_the_message_about_a_missing_feature_names_its_kernel_modules():
    found = read_kernel_offers(
        ("legacy tables", "IPv6"), try_others=lambda _names: {"legacy tables": errno.ENOPROTOOPT}
    )
    assert found.words(NEEDS) == (
        "this kernel lacks legacy tables "
        "(modprobe -a ip_tables iptable_nat iptable_filter, CONFIG_NETFILTER_XTABLES_LEGACY)"
    )


def test_every_kernel_part_except_ipv6_is_listed_before_the_parts_that_depend_on_it():
    names = list(NEEDS)
    for name, need in NEEDS.items():
        if need.within and need.within != "IPv6":
            assert names.index(need.within) < names.index(name)


def test_probing_finds_all_features_here_and_leaves_no_tables_behind(node):
    assert read_kernel_offers().lacks == {}
    assert node.run("nft list tables") == ""
    assert node.run("cat /proc/net/ip_tables_names /proc/net/ip6_tables_names") == ""


def test_every_feature_is_probed():
    assert set(try_parts(OTHERS)) == set(OTHERS)
    assert {"nf_tables", *PROBES, *OTHERS} == set(NEEDS)


@pytest.mark.parametrize("what", ["try_out", "generation"])
def test_an_error_for_an_unsupported_operation_means_a_missing_feature(node, monkeypatch, what):
    def refuse(*_args):
        if what == "try_out":
            raise NftablesError(errno.EOPNOTSUPP, NEW_TABLE)
        raise SteeringError("cannot query nftables: Invalid argument")

    monkeypatch.setattr(Ruleset, what, refuse)
    assert "inet tables" in read_kernel_offers(FOR_GUARD).lacks


def test_a_modprobe_remedy_for_several_modules_uses_the_all_flag():
    # Without -a, modprobe takes the second name as a parameter of the first module.
    for need in NEEDS.values():
        command = need.brings.partition(",")[0].split()
        if command[0] == "modprobe" and len(command) > 2:
            assert command[1] == "-a"
