"""A small table laid out by hand, as the kernel gives it."""

from __future__ import annotations

import struct

import pytest

from userspace_proxy.steering.iptables.blob import HOOKS, Contents, TableInfo, parse

MATCHED = {4: 84, 6: 136}
COUNTERS = {4: 16, 6: 20}
ACCEPT, RETURN = -2, -5


def entry(version: int, target: bytes, *, matched: bytes = b"", counter: int = 0) -> bytes:
    head = MATCHED[version] + 12 + COUNTERS[version]
    return (
        matched.ljust(MATCHED[version], b"\0")
        + struct.pack("=IHHI", 7, head, head + len(target), 9)
        + bytes([counter]) * COUNTERS[version]
        + target
    )


def standard(verdict: int) -> bytes:
    return struct.pack("=H30siI", 40, b"", verdict, 0)


def head(name: bytes) -> bytes:
    return struct.pack("=H30s32s", 64, b"ERROR", name)


def extension(name: bytes) -> bytes:
    return struct.pack("=H30sI", 36, name, 0x1234)


def table(version: int, *, counter: int = 0) -> Contents:
    """INPUT jumps to OURS, which refuses; OURS-2 is empty; THEIRS has a rule."""
    jump_to = len(entry(version, standard(0)) * 2 + entry(version, head(b"OURS")))
    parts = [
        entry(version, standard(jump_to), counter=counter),
        entry(version, standard(ACCEPT)),
        entry(version, head(b"OURS")),
        entry(version, extension(b"REJECT"), matched=b"one", counter=counter),
        entry(version, standard(ACCEPT), matched=b"two"),
        entry(version, standard(RETURN)),
        entry(version, head(b"THEIRS")),
        entry(version, standard(ACCEPT)),
        entry(version, standard(RETURN)),
        entry(version, head(b"OURS-2")),
        entry(version, standard(RETURN)),
        entry(version, head(b"ERROR")),
    ]
    block = b"".join(parts)
    starts = (0, 0, 0, 0, 0)
    ends = (0, len(parts[0]), 0, 0, 0)
    info = TableInfo(1 << HOOKS.index("INPUT"), starts, ends, len(parts), len(block))
    return parse(block, info, version, "OURS")


@pytest.fixture(params=[4, 6], ids=["ipv4", "ipv6"])
def version(request):
    return request.param


def test_built_in_chains_and_ours_are_found_without_their_ends(version):
    chains = table(version).chains
    assert {name: len(entries) for name, entries in chains.items()} == {
        "INPUT": 1,
        "OURS": 2,
        "OURS-2": 0,
    }


def test_what_a_rule_does_is_told_by_names(version):
    chains = table(version).chains
    assert [entry.verdict for entry in chains["INPUT"]] == ["OURS"]
    assert [entry.verdict for entry in chains["OURS"]] == ["", "ACCEPT"]
    assert chains["INPUT"][0].effect == b"OURS"
    assert chains["OURS"][0].effect == extension(b"REJECT")


def test_counters_make_no_difference(version):
    assert table(version, counter=200).chains == table(version, counter=3).chains


def test_what_a_rule_matches_makes_a_difference(version):
    one, two = table(version).chains["OURS"]
    assert one.condition.startswith(b"one")
    assert one.condition != two.condition
