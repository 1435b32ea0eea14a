"""Rules of other programs in the kernel's tables: read, never written.

    iptables.read_legacy ── iptables-legacy-save ─┐
    nft ── rules ── netlink ──────────────────────┴─▶ Chain, Step ─▶ chains.following ─▶ firewalls

Rule 1: all chains are listed, but rules are read of a few chains only.
"""

from .firewalls import Firewall, find_firewalls, find_forward_firewalls, find_unfollowed
from .nft import read_chains, read_generation

__all__ = [
    "Firewall",
    "find_firewalls",
    "find_forward_firewalls",
    "find_unfollowed",
    "read_chains",
    "read_generation",
]
