"""Rules of other programs in the kernel's tables: read, never written.

    iptables.read_legacy ── iptables-legacy-save ─┐
    nft ── rules ── netlink ──────────────────────┴─▶ Chain, Step ─▶ chains.following ─▶ firewalls

Rule 1: all chains are listed, but rules are read of a few chains only.
"""

from .firewalls import FIREWALLD, Firewall, find_firewalls
from .nft import read_generation, read_input_chains

__all__ = [
    "FIREWALLD",
    "Firewall",
    "find_firewalls",
    "read_generation",
    "read_input_chains",
]
