"""Rules of other programs in the kernel's tables: read, never written.

    legacy  ── iptables-legacy-save ─┐
    nft     ── rules ── netlink ─────┴─▶ chains: Chain, Step ─▶ what becomes of a packet

Rule 1: nothing is made by looking: a legacy table that isn't in use isn't asked for, since the
kernel would make it.
Rule 2: only chains are listed; rules are read of the few chains that callers ask about.
"""

from .chains import Chain, Step, Tables, ends_in_drop
from .firewalls import FIREWALLD, Firewall, find_firewalls
from .legacy import read_legacy
from .nft import (
    NftReader,
    nft_lacks_for_bridges,
    nft_lacks_for_guard,
    nft_lacks_for_replies,
    nft_offers,
    read_input_chains,
)
from .reach import Path, find_path, list_links

__all__ = [
    "FIREWALLD",
    "Chain",
    "Firewall",
    "NftReader",
    "Path",
    "Step",
    "Tables",
    "ends_in_drop",
    "find_firewalls",
    "find_path",
    "list_links",
    "nft_lacks_for_bridges",
    "nft_lacks_for_guard",
    "nft_lacks_for_replies",
    "nft_offers",
    "read_input_chains",
    "read_legacy",
]
