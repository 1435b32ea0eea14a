"""Rules of other programs in the kernel's tables: read, never written.

    legacy  ── iptables-legacy-save ─┐
    nft     ── rules ── netlink ─────┴─▶ kernel.nf_tables.chains ─▶ the verdict on a packet

Rule 1: reading creates nothing: a legacy table that isn't in use isn't accessed, because the kernel
would create it.
Rule 2: all chains are listed, but rules are read of a few chains only.
"""

from .firewalls import FIREWALLD, Firewall, find_firewalls
from .legacy import read_legacy
from .nft import read_generation, read_input_chains

__all__ = [
    "FIREWALLD",
    "Firewall",
    "find_firewalls",
    "read_generation",
    "read_input_chains",
    "read_legacy",
]
