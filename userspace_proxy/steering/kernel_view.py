"""Reads other programs' rules and all interfaces in this network namespace."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from ..errors import SteeringError
from ..filters.chains import Tables
from ..filters.reading import read_chains
from ..kernel.nf_tables import list_tables
from ..policy.locality import PodLink
from .iptables import FILTERING, read_legacy
from .names import is_own_table
from .pod_links import read_client_links

_INTERFACES = Path("/proc/thread-self/net/dev")


@dataclass(frozen=True, slots=True)
class KernelView:
    """The rules of other programs, and the interfaces."""

    nft: Tables = field(default_factory=dict)
    """Other programs' nftables chains; only chains reached from the requested hooks have rules."""
    legacy_nat: Tables = field(default_factory=dict)
    legacy_filter: Tables = field(default_factory=dict)
    links: tuple[str, ...] = ()
    """Names of the interfaces."""
    clients: tuple[PodLink, ...] = ()
    """The links on which clients' packets arrive."""
    unread: tuple[str, ...] = ()
    """One line for each part that couldn't be read, with the reason."""
    is_nft_read: bool = True
    inet_tables: tuple[str, ...] = ()
    """Names of all nftables tables of the ``inet`` family, including this program's."""


def read_kernel(*hooks: str, has_nat: bool = True) -> KernelView:
    """Read this thread's network namespace; takes about 50 ms, or seconds with 100,000 rules.

    Args:
        hooks: Hooks whose nftables chains are read with their rules.
        has_nat: Whether to read the legacy ``nat`` table.
    """
    unread: list[str] = []
    nft: Tables = {}
    inet: list[str] = []
    nat: Tables = {}
    filters: Tables = {}
    try:
        nft, inet = read_chains(is_own_table, *hooks), list_tables()
    except SteeringError as exc:
        unread.append(exc.message)
    is_nft_read = not unread
    try:
        nat = read_legacy("nat") if has_nat else {}
        filters = read_legacy(*FILTERING)
    except SteeringError as exc:
        # The other rules are useful even if legacy tables can't be read.
        unread.append(exc.message)
    lines = _INTERFACES.read_text(encoding="ascii", errors="replace").splitlines()
    links = tuple(line.partition(":")[0].strip() for line in lines[2:])
    clients = read_client_links()
    return KernelView(nft, nat, filters, links, clients, tuple(unread), is_nft_read, tuple(inet))
