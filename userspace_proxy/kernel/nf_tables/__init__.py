"""The kernel's nftables over nfnetlink: what a table contains, written and read as messages.

    expressions   what one rule tests and does                          ─┐
    key_types     the types of set keys                                  ├─ bytes
    writer        TableWriter: tables, chains, sets, elements, rules     │
    reader        listings of the kernel as values                      ─┘
    ruleset       Ruleset: reads, and commits messages as one transaction
    watch         TableWatch: whether another program has changed a table
    table         OurTable: one table of this proxy, read, written and watched

No library takes part, so a set of another program that a library of this node can't parse
doesn't concern us. Why: docs/adr/0012.

Rule 1: a rule, chain or set is written so that ``nft list table`` prints it.
Rule 2: the kernel's form is compared with the kernel's form, never with what was sent: the kernel
adds attributes.

Source: include/uapi/linux/netfilter/nf_tables.h, nfnetlink.h.
"""

from .errors import NftablesError
from .ruleset import Ruleset, list_tables
from .writer import BRIDGE, INET, TableWriter

__all__ = ["BRIDGE", "INET", "NftablesError", "Ruleset", "TableWriter", "list_tables"]
