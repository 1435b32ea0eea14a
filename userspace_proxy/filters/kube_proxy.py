"""Finds kube-proxy's rules and interface in the kernel, in any of its modes; pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence

from .chains import ChainTable, Tables

# Chains that only kube-proxy creates, in any of its modes. The kubelet's chains aren't included:
# KUBE-FIREWALL, KUBE-KUBELET-CANARY, KUBE-MARK-DROP, KUBE-MARK-MASQ, KUBE-POSTROUTING.
_CHAINS = re.compile(
    r"KUBE-(SERVICES|NODEPORTS?|PORTALS-(CONTAINER|HOST)|NODEPORT-(CONTAINER|HOST)|PROXY-CANARY"
    r"|(SVC|SVL|SEP|EXT|XLB|FW)-.*|LOAD-BALANCER|CLUSTER-IP|EXTERNAL-IP)"
)
_TABLES = (ChainTable("ip", "kube-proxy"), ChainTable("ip6", "kube-proxy"))
IPVS_LINK = "kube-ipvs0"
"""The interface to which kube-proxy assigns the Services' addresses in ``ipvs`` mode."""


def kube_proxy_chains(tables: Tables) -> Iterator[tuple[ChainTable, Sequence[str]]]:
    """Yield tables with kube-proxy's chains, and the names of these chains, KUBE-SERVICES first."""
    for table, chains in tables.items():
        if names := [name for name in chains if _CHAINS.fullmatch(name)]:
            # KUBE-SERVICES comes first, because it jumps to the other chains.
            yield table, sorted(names, key=lambda name: (name != "KUBE-SERVICES", name))


def kube_proxy_tables(nft: Tables) -> Sequence[ChainTable]:
    """Return the tables that kube-proxy creates in ``nftables`` mode."""
    return [table for table in nft if table in _TABLES]


def nat_tables(nft: Tables) -> Tables:
    """Return the ``nat`` tables, in which kube-proxy creates chains through iptables-nft."""
    return {table: chains for table, chains in nft.items() if table.name == "nat"}


def find_kube_proxy(nft: Tables, legacy_nat: Tables, links: Collection[str]) -> tuple[str, ...]:
    """Describe where kube-proxy's rules and its interface are; empty if there are none.

    Args:
        links: The names of the interfaces.
    """
    places = [f"nftables table {table}" for table in kube_proxy_tables(nft)]
    for tables in (nat_tables(nft), legacy_nat):
        for table, names in kube_proxy_chains(tables):
            places.append(f"chain {names[0]} of table {table}")
    if IPVS_LINK in links:
        places.append(f"interface {IPVS_LINK}")
    return tuple(places)
