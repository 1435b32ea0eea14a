"""Finds the features of this kernel by trying them (``trials``), never by its version.

Each process tries the features once, before it makes any choice, and passes the result on. The
steering modes (including ``auto``), the kernel path, client addresses, the commands ``check`` and
``status``, and the status page use that result.

A feature that can't be tried for lack of permission isn't reported as missing.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from . import trials
from .bpf.calls import try_programs
from .nft_probes import PROBES
from .trials import Ask, try_nftables

Trial = Callable[[Sequence[bytes]], int]
"""Lets the kernel check an nftables transaction; returns the errno of a refusal, or 0."""
PartsTrial = Callable[[Sequence[str]], Mapping[str, int]]
"""Tries parts outside nftables; returns, by the part's name, the errno of a refusal, or 0."""

# Errors of a kernel that lacks a part; other errors, such as ENOMEM, don't show what it supports.
LACKS = frozenset(
    {
        errno.ENOENT,
        errno.ENOSYS,
        errno.EOPNOTSUPP,
        errno.EAFNOSUPPORT,
        errno.EPROTONOSUPPORT,
        errno.ENOPROTOOPT,
        errno.EINVAL,
    }
)
_FORBIDDEN = (errno.EPERM, errno.EACCES)


class Need(NamedTuple):
    """What a missing kernel part prevents, and what provides it."""

    fails: str
    """Features that don't work without the part; empty if there are none yet."""
    instead: str
    """What this proxy or the user can use instead."""
    brings: str
    """The modules or the kernel option that provide the part."""
    within: str = ""
    """The part on which this part depends; empty for none."""
    trial: Ask | None = None
    """Tries the part; None if ``nft_probes`` or ``trials`` tries it."""


SOCKET_MATCH = "legacy socket match"
_NFT, _INET, _LEGACY = "nf_tables", "inet tables", "legacy tables"
_NO_SANDBOX = (
    "run outside a sandbox such as gVisor, with a seccomp profile that allows setsockopt()"
)
_BY_NFTABLES = "steering nftables, the guard of steering local"

NEEDS: Mapping[str, Need] = {
    _NFT: Need(
        f"{_BY_NFTABLES}, client addresses",
        "steering iptables",
        "modprobe nf_tables, CONFIG_NF_TABLES",
    ),
    _INET: Need(
        f"{_BY_NFTABLES}, client addresses",
        "steering iptables",
        "CONFIG_NF_TABLES_INET",
        _NFT,
    ),
    "sets": Need(_BY_NFTABLES, "steering iptables", "CONFIG_NF_TABLES", _INET),
    "nat": Need(
        "steering nftables", "steering iptables", "modprobe -a nft_chain_nat nft_nat", _INET
    ),
    "redirect": Need("steering nftables", "steering iptables", "modprobe nft_redir", _INET),
    "ct": Need("steering nftables", "steering iptables", "modprobe nft_ct", _INET),
    "reject": Need(_BY_NFTABLES, "steering iptables", "modprobe nft_reject_inet", _INET),
    "socket": Need(
        "keeping other programs from proxy ports after a crash, client addresses",
        "nothing keeps them off, and endpoints see this node's address",
        "modprobe nft_socket",
        _INET,
    ),
    "tproxy": Need("client addresses", "this node's address", "modprobe nft_tproxy", _INET),
    "fib": Need("the kernel path", "the proxy", "modprobe nft_fib_inet", _INET),
    "masquerade": Need("the kernel path", "the proxy", "modprobe nft_masq", _INET),
    "numgen": Need("the kernel path", "the proxy", "modprobe nft_numgen", _INET),
    "hash": Need("the kernel path with source-hash", "the proxy", "modprobe nft_hash", _INET),
    "counters": Need(
        "counts of connections on the kernel path", "nothing", "modprobe nft_counter", _INET
    ),
    "bridge tables": Need(
        "client addresses of pods on the endpoint's bridge",
        "this node's address",
        "CONFIG_NF_TABLES_BRIDGE",
        _NFT,
    ),
    "table owner": Need(
        "keeping open connections when another program flushes the node's rules, and health probes "
        "while the conntrack table is full",
        "repair of the rules, within a second",
        "Linux 5.12",
        _INET,
    ),
    _LEGACY: Need(
        "steering iptables",
        "steering nftables",
        "modprobe -a ip_tables iptable_nat iptable_filter, CONFIG_NETFILTER_XTABLES_LEGACY",
    ),
    "legacy extensions": Need(
        "steering iptables",
        "steering nftables",
        "modprobe -a xt_tcpudp xt_comment xt_conntrack xt_multiport xt_nat xt_REDIRECT ipt_REJECT",
        _LEGACY,
    ),
    SOCKET_MATCH: Need(
        "keeping other programs from proxy ports after a crash, with steering iptables",
        "nothing",
        "modprobe xt_socket",
        _LEGACY,
    ),
    "legacy tables of IPv6": Need(
        "steering iptables for IPv6",
        "steering nftables",
        "modprobe -a ip6_tables ip6table_nat ip6table_filter, CONFIG_NETFILTER_XTABLES_LEGACY",
        "IPv6",
    ),
    "conntrack netlink": Need(
        "steering nftables and iptables, which must end flows that lead elsewhere",
        "steering local",
        "modprobe nf_conntrack_netlink, CONFIG_NF_CT_NETLINK",
    ),
    "IPv6": Need("Services of IPv6", "IPv4", "CONFIG_IPV6, without ipv6.disable=1"),
    "socket filters": Need(
        "Services with source ranges", "nothing: they aren't served", _NO_SANDBOX
    ),
    "reuseport filters": Need("session affinity with several workers", "--workers=1", _NO_SANDBOX),
    "sock_diag": Need(
        "telling users of this node apart: whose proxy answers, and shares of its streams",
        "nothing",
        "modprobe -a inet_diag tcp_diag, CONFIG_INET_DIAG",
    ),
    "namespaces of sockets": Need(
        "leaving sockets of another network namespace alone when workers of the previous run are "
        "found",
        "nothing",
        "Linux 5.14",
    ),
    "sock_diag destroy": Need("", "", "CONFIG_INET_DIAG_DESTROY", "sock_diag"),
    "connect hooks": Need(
        "translating connections at connect() (--socket-lb)",
        "the kernel path's rules",
        "CONFIG_BPF_SYSCALL, CONFIG_CGROUP_BPF",
        trial=try_programs,
    ),
}
"""Every part that is tried, in the order of reports."""

FOR_NFTABLES = (_NFT, _INET, "sets", "nat", "redirect", "ct", "reject", "conntrack netlink")
"""Required for ``nftables`` steering."""
FOR_IPTABLES = (_LEGACY, "legacy extensions", "conntrack netlink")
FOR_IPTABLES_IPV6 = ("legacy tables of IPv6",)
FOR_GUARD = (_NFT, _INET, "sets", "reject")
"""Required for the guard of ``local`` steering."""
FOR_KERNEL_PATH = ("fib", "masquerade", "numgen")
"""Required for the kernel path, besides :data:`FOR_NFTABLES`."""
FOR_SOURCE_HASH = ("hash",)
FOR_REPLIES = (_NFT, _INET, "sets", "socket", "tproxy")
"""Required to preserve client addresses."""
FOR_BRIDGES = ("bridge tables",)
FOR_OWNER = (_NFT, _INET, "table owner")
FOR_SOCKET_LB = ("connect hooks",)
"""Required by ``--socket-lb``."""
FOR_SOCKETS = (
    *("IPv6", "socket filters", "reuseport filters"),
    *("sock_diag", "namespaces of sockets"),
)
"""Used by the data plane in every steering mode."""


@dataclass(frozen=True, slots=True)
class KernelOffers:
    """The parts in :data:`NEEDS` that the kernel lacks, among those that could be tried."""

    lacks: Mapping[str, int] = field(default_factory=dict)
    """Missing parts, each with the kernel's errno."""
    untried: frozenset[str] = frozenset()
    """Parts that this process isn't allowed to try."""
    unasked: frozenset[str] = frozenset()
    """Parts that weren't tried, because nothing here depends on them."""

    def missing(self, names: Iterable[str] = tuple(NEEDS)) -> list[str]:
        """Return the missing parts, each replaced by the outermost missing part that it needs."""
        return list(dict.fromkeys(self._root(name) for name in names if name in self.lacks))

    def words(self, names: Iterable[str]) -> str:
        """Return a description of the missing parts among these; empty if none is missing."""
        lacks = [f"{name} ({NEEDS[name].brings})" for name in self.missing(names)]
        return f"this kernel lacks {', '.join(lacks)}" if lacks else ""

    def obstacle(self, names: Sequence[str], what: str) -> str:
        """Return why a feature can't work here (a missing part or permission); empty if it can.

        Args:
            names: The parts that the feature requires.
            what: The feature, for the message.
        """
        if self.untried.intersection(names):
            return f"cannot query {what}: {os.strerror(errno.EPERM)}"
        return self.words(names)

    def _root(self, name: str) -> str:
        while (within := NEEDS[name].within) in self.lacks:
            name = within
        return name


LACKS_NOTHING = KernelOffers()


def read_kernel_offers(
    names: Iterable[str] = tuple(NEEDS),
    *,
    try_out: Trial | None = None,
    try_others: PartsTrial | None = None,
) -> KernelOffers:
    """Try kernel parts, by default all, without changing anything in this network namespace.

    Args:
        try_out: Tries a transaction; the default asks the kernel.
        try_others: Tries parts outside nftables; the default asks the kernel.
    """
    try_out, try_others = try_out or try_nftables, try_others or try_parts
    wanted = list(names)
    nft = [name for name in wanted if name in PROBES or name == _NFT]
    # Try nftables first: its rules load modules that other parts need.
    codes = _nft_codes(nft, try_out)
    if others := [name for name in wanted if name not in nft]:
        codes |= try_others(others)
    return KernelOffers(
        {name: code for name in wanted if (code := codes.get(name, 0)) in LACKS},
        frozenset(name for name in wanted if codes.get(name) in _FORBIDDEN),
        frozenset(NEEDS).difference(wanted),
    )


def try_parts(names: Sequence[str]) -> dict[str, int]:
    """Try kernel parts outside nftables; return, by name, the errno of a refusal, or 0."""
    more = {name: need.trial for name, need in NEEDS.items() if need.trial}
    return trials.try_parts(names, more)


def _nft_codes(names: Sequence[str], try_out: Trial) -> dict[str, int]:
    """Return the errno, or 0, for each nftables feature; empty if none is missing."""
    if not names:
        return {}
    probes = {name: PROBES[name]() for name in names if name in PROBES}
    # Cost: the kernel takes about 15 ms to discard a transaction, and usually no part is missing.
    if try_out([message for probe in probes.values() for message in probe]) == 0:
        return {}
    if code := try_out([]):
        # Without nftables, or without permission, all answers are the same.
        return dict.fromkeys(names, code)
    return {name: try_out(probe) for name, probe in probes.items()}
