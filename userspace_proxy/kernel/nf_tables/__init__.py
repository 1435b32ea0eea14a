"""Reads and writes nftables tables as netlink messages.

    expressions   the tests and actions of one rule, and the types of set keys  ─┐
    writer        TableWriter: tables, chains, sets, elements, rules             ├─ bytes
    reader        listings of the kernel as values                              ─┘
    ruleset       Ruleset: reads, and commits messages as one transaction
    nft_table     NftTable: one table of this proxy, read, written and watched
    kept_table    KeptTable: such a table, kept equal to its contents
    owned         OwnedTable: a table that ends with this process

No library is used, because an installed library may fail to parse other programs' sets
(docs/adr/0012).

Rule 1: a rule, chain or set is written so that ``nft list table`` prints it.
Rule 2: listings are compared with listings, never with sent messages, because the kernel adds
attributes.

Source: include/uapi/linux/netfilter/nf_tables.h, nfnetlink.h.
"""

from .ruleset import NftablesError, Ruleset, list_tables
from .writer import BRIDGE, INET, TableWriter

__all__ = ["BRIDGE", "INET", "NftablesError", "Ruleset", "TableWriter", "list_tables"]
