"""Reads a whole legacy table from the kernel, and finds our chains in it.

python-iptables lists rules at 0.5 ms each and prints them through a pipe; the kernel gives a
table as one block of bytes in which 20,000 rules are walked in some 20 ms.

Rule 1: counters and back pointers are zeroed, so equal rules are equal bytes.
Rule 2: nothing is written here; that is libiptc's.

Source: include/uapi/linux/netfilter_ipv4/ip_tables.h and netfilter_ipv6/ip6_tables.h.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from ..names import PREFIX, ChainNames

GET_INFO = 64
GET_ENTRIES = 65
# IPT_SO_GET_REVISION_MATCH and IP6T_SO_GET_REVISION_MATCH.
GET_REVISION_MATCH = {4: 66, 6: 68}
LEVELS = {4: socket.IPPROTO_IP, 6: socket.IPPROTO_IPV6}
FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
HOOKS = ("PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING")
# Of ipt_getinfo: the name, valid hooks, five starts, five underflows, entries, bytes.
_INFO = struct.Struct("=32sI5I5III")
# Of ipt_get_entries: the name, the size, and padding to the alignment of an entry.
_ENTRIES_HEADER = 40
# Of xt_get_revision: the name and the revision.
_REVISION = struct.Struct("=29sB")
# sizeof ipt_ip and ip6t_ip6; after them nfcache, target_offset, next_offset, comefrom, counters.
_MATCHED = {4: 84, 6: 136}
_OFFSETS = struct.Struct("=HH")
# Of xt_entry_target: target_size, name[29], revision; then the verdict or, for ERROR, a name.
_TARGET_HEADER = 32
_VERDICT = struct.Struct("=i")
# Source: include/uapi/linux/netfilter.h: a verdict v is written as -v - 1; RETURN is NF_REPEAT.
_VERDICTS = {-1: "DROP", -2: "ACCEPT", -4: "QUEUE", -5: "RETURN"}
# The table may grow between asking for its size and reading it.
_ATTEMPTS = 10


# The first with "nowildcard": xt_socket_mtinfo2.
SOCKET_REVISION = 2


class TableInfo(NamedTuple):
    """What the kernel says of a table without giving its rules."""

    valid_hooks: int
    hook_entry: tuple[int, ...]
    underflow: tuple[int, ...]
    rules: int
    size_bytes: int


class Entry(NamedTuple):
    """One rule."""

    raw: bytes
    """All of it, counters and back pointer zeroed."""
    verdict: str
    """ACCEPT, DROP, RETURN or a chain that it jumps to; empty where an extension decides."""
    target_offset: int

    @property
    def condition(self) -> bytes:
        """What it matches, without what it does then."""
        return self.raw[: self.target_offset]

    @property
    def effect(self) -> bytes:
        """What it does then; a jump is told by its chain's name, wherever that stands."""
        return self.verdict.encode() or self.raw[self.target_offset :]

    @property
    def key(self) -> bytes:
        """Both, as bytes that are the same in another table and in a new process."""
        if not self.verdict:
            return self.raw
        return self.raw[: self.target_offset] + self.verdict.encode()


@dataclass(frozen=True, slots=True)
class Contents:
    """A table's chains, without policies and the markers that begin and end them."""

    info: TableInfo
    chains: dict[str, list[Entry]] = field(default_factory=dict)


class TableReader:
    """Reads the tables of one IP family of the thread's network namespace.

    Args:
        version: 4 or 6.
        names: Which chains are ours.

    Raises:
        OSError: No right to open a raw socket.
    """

    def __init__(self, version: int, names: ChainNames) -> None:
        self._version = version
        self._names = names
        self._socket = socket.socket(FAMILIES[version], socket.SOCK_RAW, socket.IPPROTO_RAW)
        self._libc = ctypes.CDLL(None, use_errno=True)

    def info(self, table: str) -> TableInfo:
        """Return a table's size and layout: the cheap way to see that it changed.

        Raises:
            OSError: ENOENT or ENOPROTOOPT: the kernel has no such table; EPERM: no right.
        """
        buffer = ctypes.create_string_buffer(table.encode(), _INFO.size)
        self._ask(GET_INFO, buffer)
        fields = _INFO.unpack(buffer.raw)
        return TableInfo(fields[1], fields[2:7], fields[7:12], fields[12], fields[13])

    def read(self, table: str, prefix: str) -> Contents:
        """Return a table's built-in chains, and those of ours whose name begins with ``prefix``."""
        return rename(self.read_everybodys(table, prefix), self._names)

    def read_everybodys(self, table: str, prefix: str) -> Contents:
        """As :meth:`read`, with the chains of all proxies by their names in the kernel."""
        return parse(*self.read_block(table), self._version, prefix)

    def read_block(self, table: str) -> tuple[bytes, TableInfo]:
        """Return a table's entries as they are, and where its built-in chains stand in them."""
        for _ in range(_ATTEMPTS):
            info = self.info(table)
            buffer = ctypes.create_string_buffer(_ENTRIES_HEADER + info.size_bytes)
            struct.pack_into("=32sI", buffer, 0, table.encode(), info.size_bytes)
            try:
                self._ask(GET_ENTRIES, buffer)
            except OSError as exc:
                if exc.errno != errno.EAGAIN:
                    raise
                continue
            return buffer.raw[_ENTRIES_HEADER:], info
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    def has_match(self, name: str, revision: int) -> bool:
        """Return whether the kernel has a match, which it loads if it must and can."""
        buffer = ctypes.create_string_buffer(
            _REVISION.pack(name.encode(), revision), _REVISION.size
        )
        try:
            self._ask(GET_REVISION_MATCH[self._version], buffer)
        except OSError:
            return False
        return True

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def _ask(self, option: int, buffer: ctypes.Array[ctypes.c_char]) -> None:
        size = ctypes.c_uint32(len(buffer))
        level = LEVELS[self._version]
        result = self._libc.getsockopt(
            self._socket.fileno(), level, option, buffer, ctypes.byref(size)
        )
        if result != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))


def has_socket_match() -> bool:
    """Return whether the kernel can look up sockets (xt_socket); True where it can't be asked."""
    try:
        reader = TableReader(4, ChainNames())
    except OSError:
        return True
    try:
        return reader.has_match("socket", SOCKET_REVISION)
    finally:
        reader.close()


def parse(block: bytes, info: TableInfo, version: int, prefix: str) -> Contents:
    """Cut a table's block of entries into chains.

    Args:
        block: The entries, as the kernel gives them.
        info: Where the built-in chains begin and end.
        version: 4 or 6.
        prefix: User chains whose name begins otherwise are left out.
    """
    starts = {info.hook_entry[i]: name for i, name in enumerate(HOOKS) if info.valid_hooks >> i & 1}
    ends = {info.underflow[i] for i in range(len(HOOKS)) if info.valid_hooks >> i & 1}
    found: dict[str, list[tuple[int, int]]] = {}
    first_rule: dict[int, str] = {}
    current: list[tuple[int, int]] | None = None
    offset = 0
    while offset < info.size_bytes:
        target, after = _OFFSETS.unpack_from(block, offset + _MATCHED[version] + 4)
        if offset in starts:
            current = found.setdefault(starts[offset], [])
        name = _error_name(block, offset + target)
        if name is not None:
            # A user chain's head; after the last chain comes one named ERROR.
            current = found.setdefault(name, []) if name.startswith(prefix) else None
            first_rule[offset + after] = name
        elif current is not None and offset not in ends:
            current.append((offset, offset + after))
        offset += after
    chains = {
        name: [read_entry(block[start:stop], version, first_rule) for start, stop in spans]
        for name, spans in found.items()
    }
    for name in set(chains) - set(starts.values()):
        # The last rule of a user chain is its RETURN.
        del chains[name][-1]
    return Contents(info, chains)


def rename(contents: Contents, names: ChainNames) -> Contents:
    """Return a table with our chains as we know them, and without those of other proxies."""
    chains = {}
    for name, entries in contents.chains.items():
        known = names.known(name)
        if not known.startswith("("):
            chains[known] = [
                entry._replace(verdict=names.known(entry.verdict))
                if entry.verdict.startswith(PREFIX)
                else entry
                for entry in entries
            ]
    return Contents(contents.info, chains)


def _error_name(block: bytes, target: int) -> str | None:
    if block[target + 2 : target + 8] != b"ERROR\0":
        return None
    start = target + _TARGET_HEADER
    return block[start : block.index(b"\0", start)].decode("ascii", "replace")


def read_entry(raw: bytes, version: int, first_rule: Mapping[int, str]) -> Entry:
    """Read one rule.

    Args:
        raw: All of it; counters and back pointers don't matter.
        version: 4 or 6.
        first_rule: Which chain's first rule stands where in the table.
    """
    matched = _MATCHED[version]
    target = _OFFSETS.unpack_from(raw, matched + 4)[0]
    verdict = ""
    if raw[target + 2] == 0:
        # The standard target has no name; a verdict that isn't negative is an offset.
        number = _VERDICT.unpack_from(raw, target + _TARGET_HEADER)[0]
        verdict = _VERDICTS.get(number) or first_rule.get(number, "?")
    return Entry(_normal(raw, version), verdict, target)


def _normal(raw: bytes, version: int) -> bytes:
    """Return a rule with nfcache, comefrom and counters (aligned to 8) zeroed."""
    cache = _MATCHED[version]
    back = cache + 8
    end = back + (24 if version == 6 else 20)
    return raw[:cache] + bytes(4) + raw[cache + 4 : back] + bytes(end - back) + raw[end:]
