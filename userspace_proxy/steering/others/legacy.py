"""Everybody's chains in the legacy tables, as bytes from the kernel: no library, no program.

Source: include/uapi/linux/netfilter/x_tables.h and xt_conntrack.h.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

from ..iptables.blob import HOOKS, Entry, TableInfo, TableReader, read_entry
from ..names import ChainNames
from .chains import Chain, Step, Tables

# Each names the tables in use, one a line; absent where the kernel has no legacy tables.
_IN_USE = {4: "ip_tables_names", 6: "ip6_tables_names"}
_NET = Path("/proc/thread-self/net")
FAMILIES = {4: "ip", 6: "ip6"}
# Where a kernel's built-in chains of a table stand. Source: NF_IP_PRI_NAT_DST, NF_IP_PRI_FILTER.
_PRIORITIES = {"nat": -100, "filter": 0, "mangle": -150, "raw": -300, "security": 50}
# sizeof ipt_ip and ip6t_ip6; the offsets of target and next entry follow after nfcache.
_MATCHED = {4: 84, 6: 136}
_HEAD = {4: 112, 6: 168}
_OFFSETS = struct.Struct("=HH")
_ERROR_NAME = 32
# Of xt_entry_match: its size, and 29 characters and a revision.
_MATCH_HEADER = 32
# Of xt_conntrack_mtinfo3; XT_CONNTRACK_STATE (bit 0 of match_flags), and DNAT is bit 7.
_CONNTRACK = struct.Struct("=146x3H")
_STATE, _DNAT = 1, 1 << 7
# Of xt_socket_mtinfo1: XT_SOCKET_TRANSPARENT.
_TRANSPARENT = 1


def read_legacy(table: str) -> Tables:
    """Return the chains of a legacy table of both families, with their rules.

    A table that isn't in use isn't touched, and gives nothing.

    Raises:
        OSError: There is no right to look.
    """
    tables: Tables = {}
    for version in _IN_USE:
        if table in tables_in_use(version):
            reader = TableReader(version, ChainNames())
            try:
                block, info = reader.read_block(table)
            finally:
                reader.close()
            title = f"legacy {FAMILIES[version]} {table}"
            tables[title] = parse_block(block, info, version, title, _PRIORITIES.get(table, 0))
    return tables


def tables_in_use(version: int) -> list[str]:
    """Return the legacy tables of an IP family that there are in this thread's namespace."""
    try:
        return (_NET / _IN_USE[version]).read_text(encoding="ascii").split()
    except FileNotFoundError:
        return []


def has_legacy_tables_in_kernel() -> bool:
    """Return whether the kernel has the legacy tables' code loaded."""
    return any((_NET / name).exists() for name in _IN_USE.values())


def parse_block(
    block: bytes, info: TableInfo, version: int, title: str, priority: int
) -> dict[str, Chain]:
    """Cut a table's entries into chains.

    Args:
        block: The entries, as the kernel gives them.
        info: Where the built-in chains begin and end.
        version: 4 or 6.
        title: The table's, for the chains.
        priority: Where its built-in chains stand at their hooks.
    """
    built_in = [i for i in range(len(HOOKS)) if info.valid_hooks >> i & 1]
    starts = {info.hook_entry[i]: HOOKS[i] for i in built_in}
    policies = {info.underflow[i]: HOOKS[i] for i in built_in}
    spans: dict[str, list[bytes]] = {}
    policy: dict[str, str] = {}
    first_rule: dict[int, str] = {}
    current = ""
    for offset, raw in _entries(block, version):
        target = _OFFSETS.unpack_from(raw, _MATCHED[version] + 4)[0]
        current = starts.get(offset, current)
        if raw[target + 2 : target + 8] == b"ERROR\0":
            current = _text(raw[target + _ERROR_NAME :])
            first_rule[offset + len(raw)] = current
        elif offset in policies:
            policy[policies[offset]] = read_entry(raw, version, {}).verdict.lower()
        else:
            spans.setdefault(current, []).append(raw)
    # After the last chain comes the end, which is named like an error.
    names = [*starts.values(), *(n for n in first_rule.values() if n != "ERROR")]
    chains = {}
    for name in names:
        raws = spans.get(name, [])
        if name in first_rule.values():
            # The last rule of a user chain is its RETURN.
            raws = raws[:-1]
        steps = tuple(_step(read_entry(raw, version, first_rule), version) for raw in raws)
        is_base = name in starts.values()
        chains[name] = Chain(
            title,
            name,
            kind=title.rpartition(" ")[2] if is_base else "",
            hook=name.lower() if is_base else "",
            priority=priority if is_base else 0,
            policy=policy.get(name, "accept"),
            steps=steps,
        )
    return chains


def _entries(block: bytes, version: int) -> Iterator[tuple[int, bytes]]:
    offset = 0
    while offset + _HEAD[version] <= len(block):
        after = _OFFSETS.unpack_from(block, offset + _MATCHED[version] + 4)[1]
        yield offset, block[offset : offset + after]
        offset += after


def _step(entry: Entry, version: int) -> Step:
    verdict = entry.verdict
    if not verdict:
        name = _text(entry.raw[entry.target_offset + 2 : entry.target_offset + 31])
        verdict = "reject" if name == "REJECT" else ""
    elif verdict in ("ACCEPT", "DROP", "QUEUE", "RETURN"):
        verdict = verdict.lower()
    else:
        verdict = f"jump {verdict}"
    return Step(verdict, _condition(entry, version))


def _condition(entry: Entry, version: int) -> str:
    """Return what a rule asks for: ``ct state dnat`` and the like are told, others are ``…``."""
    asked = []
    if any(entry.raw[: _MATCHED[version]]):
        asked.append("…")
    offset = _HEAD[version]
    while offset < entry.target_offset:
        size = struct.unpack_from("=H", entry.raw, offset)[0]
        name = _text(entry.raw[offset + 2 : offset + 31])
        if name != "comment":
            asked.append(
                condition_of_match(name, entry.raw[offset + _MATCH_HEADER : offset + size])
            )
        offset += size
    return " ".join(asked)


def condition_of_match(name: str, data: bytes) -> str:
    """Return what a match of xtables asks for, in words of nft; ``…`` where that isn't known.

    Args:
        name: The match's.
        data: What it was given, as its kernel module has it.
    """
    if name == "conntrack" and len(data) >= _CONNTRACK.size:
        flags, inverted, states = _CONNTRACK.unpack_from(data)
        if flags == _STATE and not inverted and states & _DNAT:
            return "ct status dnat"
    if name == "socket" and data[:1] and data[0] & _TRANSPARENT:
        return "socket transparent"
    return f"…{name}"


def _text(raw: bytes) -> str:
    return raw.partition(b"\0")[0].decode("ascii", "replace")
