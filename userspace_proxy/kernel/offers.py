"""What this kernel offers to steering, found by trying, never by its version.

    a table of its own ──▶ kernel checks it, and discards it ──▶ no other program sees it
    a network namespace of its own ──▶ legacy tables are read, which creates them ──▶ gone

Without permission nothing can be tried, which is not the same as a lack.

Source: nfnetlink_rcv_batch(); xt_request_find_table_lock().
"""

from __future__ import annotations

import ctypes
import errno
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

from ..errors import SteeringError
from .legacy_options import GET_INFO, GET_REVISION_MATCH, SOCKET_REVISION, ask_legacy, info_of
from .nf_tables import BRIDGE, INET, NftablesError, Ruleset, TableWriter
from .nf_tables import expressions as x
from .nf_tables.writer import INPUT, POSTROUTING, PREROUTING

Trial = Callable[[Sequence[bytes]], int]
"""Has the kernel check a transaction of nftables; returns why it refuses, as an errno, or 0."""
TableReader = Callable[[int], int]
"""Reads the legacy tables of an IP version; returns an errno, or 0."""

PROBE_TABLE = "userspace-proxy-check"
_CLONE_NEWNET = 0x40000000
# The answers of a kernel that lacks something; others, such as ENOMEM, say nothing about it.
LACKS = frozenset(
    {
        errno.ENOENT,
        errno.EOPNOTSUPP,
        errno.EAFNOSUPPORT,
        errno.EPROTONOSUPPORT,
        errno.ENOPROTOOPT,
        errno.EINVAL,
    }
)
_FORBIDDEN = (errno.EPERM, errno.EACCES)
_libc = ctypes.CDLL(None, use_errno=True)


class Need(NamedTuple):
    """What a missing part of the kernel means."""

    fails: str
    """What doesn't work without it."""
    instead: str
    """What is used then, or can be."""
    brings: str
    """The modules or the kernel's option that bring it."""


NEEDS: Mapping[str, Need] = {
    "nf_tables": Need(
        "steering nftables, the guard of steering local, client addresses",
        "steering iptables",
        "modprobe nf_tables, CONFIG_NF_TABLES",
    ),
    "inet tables": Need(
        "steering nftables, the guard of steering local, client addresses",
        "steering iptables",
        "CONFIG_NF_TABLES_INET",
    ),
    "nat": Need("steering nftables", "steering iptables", "modprobe nft_chain_nat nft_nat"),
    "redirect": Need("steering nftables", "steering iptables", "modprobe nft_redir"),
    "ct": Need("steering nftables", "steering iptables", "modprobe nft_ct"),
    "reject": Need(
        "steering nftables, the guard of steering local",
        "steering iptables",
        "modprobe nft_reject_inet",
    ),
    "socket": Need(
        "keeping other programs from proxy ports after a crash", "nothing", "modprobe nft_socket"
    ),
    "fib": Need("the kernel path", "the proxy", "modprobe nft_fib_inet"),
    "masquerade": Need("the kernel path", "the proxy", "modprobe nft_masq"),
    "numgen": Need("the kernel path", "the proxy", "modprobe nft_numgen"),
    "hash": Need("the kernel path with source-hash", "the proxy", "modprobe nft_hash"),
    "bridge tables": Need(
        "client addresses of pods on the endpoint's bridge",
        "this node's address",
        "CONFIG_NF_TABLES_BRIDGE",
    ),
    "table owner": Need(
        "keeping open connections when another program flushes the node's rules",
        "repair, within a second",
        "Linux 5.12",
    ),
    "legacy tables": Need(
        "steering iptables",
        "steering nftables",
        "modprobe ip_tables iptable_nat iptable_filter, CONFIG_NETFILTER_XTABLES_LEGACY",
    ),
    "legacy tables of IPv6": Need(
        "steering iptables for IPv6",
        "steering nftables",
        "modprobe ip6_tables ip6table_nat ip6table_filter, CONFIG_NETFILTER_XTABLES_LEGACY",
    ),
}
"""Every part that is tried, in the order in which it is told."""

FOR_NFTABLES = ("nf_tables", "inet tables", "nat", "redirect", "ct", "reject")
"""What steering nftables can't do without."""
FOR_GUARD = ("nf_tables", "inet tables", "reject")
"""What the guard of steering local can't do without."""
LEGACY = {4: "legacy tables", 6: "legacy tables of IPv6"}


@dataclass(frozen=True, slots=True)
class KernelOffers:
    """What the kernel lacks of :data:`NEEDS`, as far as it could be tried."""

    lacks: Mapping[str, int] = field(default_factory=dict)
    """Each with the kernel's errno."""
    untried: frozenset[str] = frozenset()
    """What this process isn't allowed to try."""

    def words(self, names: Iterable[str]) -> str:
        """Return what it lacks of some parts, in words; empty where it lacks nothing."""
        missing = [name for name in names if name in self.lacks]
        # It brings all others.
        missing = missing[:1] if "nf_tables" in missing[:1] else missing
        lacks = [f"{name} ({NEEDS[name].brings})" for name in missing]
        return f"this kernel lacks {', '.join(lacks)}" if lacks else ""


def _tables(fill: Callable[[TableWriter], None], family: int = INET) -> list[bytes]:
    table = TableWriter(PROBE_TABLE, family)
    table.create()
    fill(table)
    return table.messages


def _rule(kind: str, hook: int, *parts: bytes) -> list[bytes]:
    def fill(table: TableWriter) -> None:
        table.add_base_chain("chain", kind, hook, 10)
        table.add_rule("chain", *parts)

    return _tables(fill)


def _owned() -> list[bytes]:
    table = TableWriter(PROBE_TABLE)
    table.create(is_owned=True)
    return table.messages


_PROBES: Mapping[str, Callable[[], list[bytes]]] = {
    "inet tables": lambda: _tables(lambda table: table.add_chain("chain")),
    "nat": partial(
        _rule,
        "nat",
        PREROUTING,
        x.IPV4 + x.TCP + x.put(bytes(4)) + x.put(bytes(2), 2) + x.dnat(1, 2),
    ),
    "redirect": partial(_rule, "nat", PREROUTING, x.TCP + x.put(b"\0\1") + x.redirect()),
    "ct": partial(_rule, "filter", INPUT, x.match(x.CT_STATUS, 0, mask=x.STATUS_DNAT)),
    "reject": partial(_rule, "filter", INPUT, x.UDP + x.reject()),
    "socket": partial(_rule, "filter", INPUT, x.TCP + x.match(x.SOCKET_TRANSPARENT, 0)),
    "fib": partial(_rule, "filter", PREROUTING, x.match(x.DADDR_TYPE, x.LOCAL)),
    "masquerade": partial(_rule, "nat", POSTROUTING, x.TCP + x.masquerade()),
    "numgen": partial(_rule, "filter", INPUT, x.pick(2, 0)),
    "hash": partial(
        _rule, "filter", INPUT, x.put_slot(bytes(4), 1) + x.pick_by(1, 4, 2, 0, seed=1)
    ),
    "bridge tables": lambda: _tables(lambda table: table.add_chain("chain"), BRIDGE),
    "table owner": _owned,
}


def read_kernel_offers(
    names: Iterable[str] = tuple(NEEDS),
    *,
    try_out: Trial | None = None,
    read_tables: TableReader | None = None,
) -> KernelOffers:
    """Try out some parts of the kernel, or all; changes nothing in this network namespace.

    Args:
        try_out: Tries a transaction; the default asks the kernel.
        read_tables: Reads legacy tables, likewise.
    """
    try_out, read_tables = try_out or try_nftables, read_tables or _read_tables
    wanted = list(names)
    codes = _nft_codes([name for name in wanted if name not in LEGACY.values()], try_out)
    for version, name in LEGACY.items():
        if name in wanted:
            codes[name] = read_tables(version)
    return KernelOffers(
        {name: code for name in wanted if (code := codes.get(name, 0)) in LACKS},
        frozenset(name for name in wanted if codes.get(name) in _FORBIDDEN),
    )


def _nft_codes(names: Sequence[str], try_out: Trial) -> dict[str, int]:
    """Return the kernel's answer to each part of nftables."""
    if not names:
        return {}
    probes = {name: _PROBES[name]() for name in names if name in _PROBES}
    # To discard a transaction takes the kernel some 15 ms, and usually nothing is missing.
    if try_out([message for probe in probes.values() for message in probe]) == 0:
        return {}
    if code := try_out([]):
        # Without nftables, or without permission, one answer is that to all.
        return dict.fromkeys(names, code)
    return {name: try_out(probe) for name, probe in probes.items()}


def try_nftables(messages: Sequence[bytes]) -> int:
    """Have the kernel check a transaction, and discard it; return its errno, or 0."""
    try:
        with Ruleset() as ruleset:
            ruleset.try_out(messages)
    except NftablesError as exc:
        return exc.code
    except SteeringError as exc:
        cause = exc.__cause__
        return (isinstance(cause, OSError) and cause.errno) or errno.EPROTONOSUPPORT
    return 0


def _read_tables(version: int) -> int:
    """Read the tables in a namespace of a thread; where there can be none, ask for an option."""
    codes: list[int] = []

    def read() -> None:
        is_apart = _libc.unshare(_CLONE_NEWNET) == 0
        codes.append(_ask_for_tables(version) if is_apart else _ask_for_option(version))

    # The namespace ends with the thread.
    thread = threading.Thread(target=read, name="kernel-offers")
    thread.start()
    thread.join()
    return codes[0] if codes else 0


def _ask_for_tables(version: int) -> int:
    try:
        for table in ("nat", "filter"):
            ask_legacy(version, GET_INFO, info_of(table))
    except OSError as exc:
        return exc.errno or errno.EIO
    return 0


def _ask_for_option(version: int) -> int:
    try:
        ask_legacy(version, GET_REVISION_MATCH, SOCKET_REVISION)
    except OSError as exc:
        # ENOENT: the tables' code is there, that match isn't.
        return 0 if exc.errno == errno.ENOENT else exc.errno or errno.EIO
    return 0
