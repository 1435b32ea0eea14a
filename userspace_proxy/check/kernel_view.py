"""Reads the rules of other programs in this network namespace once, for all checks."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..errors import SteeringError
from ..filters.chains import Tables
from ..filters.kube_proxy import read_links
from ..filters.pod_links import read_client_links
from ..filters.reading import read_chains
from ..policy.locality import PodLink
from ..steering.iptables import FILTERING, read_legacy
from ..steering.names import is_own_table


@dataclass(frozen=True, slots=True)
class KernelView:
    """The tables of other programs, and the interfaces."""

    nft: Tables = field(default_factory=dict)
    """All chains, with rules only for those that packets to this node traverse."""
    legacy_nat: Tables = field(default_factory=dict)
    legacy_filter: Tables = field(default_factory=dict)
    links: tuple[str, ...] = ()
    """Names of the interfaces."""
    clients: tuple[PodLink, ...] = ()
    """The links by which clients come in."""
    unread: tuple[str, ...] = ()
    """Why something couldn't be read, one line each."""


def read_kernel() -> KernelView:
    """Read this thread's network namespace: some 50 ms, or seconds with 100,000 rules."""
    unread: list[str] = []
    nft: Tables = {}
    nat: Tables = {}
    filters: Tables = {}
    try:
        nft = read_chains(is_own_table, "input", "forward")
    except SteeringError as exc:
        unread.append(exc.message)
    try:
        nat, filters = read_legacy("nat"), read_legacy(*FILTERING)
    except SteeringError as exc:
        unread.append(exc.message)
    return KernelView(nft, nat, filters, read_links(), read_client_links(), tuple(unread))
