"""Firewalls of others that would drop what is steered to us; pure.

    client ─▶ frontend ─▶ our translation ─▶ INPUT: ours accepts ─▶ INPUT of others: each may drop

In the table that an ``accept`` stands in it is the end; the other tables are asked all the
same. So our legacy chains, first in ``filter``, end that table only, and our nftables chain ends
nothing but itself.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from .chains import Chain, Tables, base_chains, ends_in_drop

FIREWALLD = "inet firewalld"
# What words there are for a packet whose socket here is transparent, as those of listeners are.
_TRANSPARENT = "socket transparent"
_PORTS = re.compile(r"(?:meta l4proto )?(?:tcp|udp|th) dport (\d+)-(\d+)")


@dataclass(frozen=True, slots=True)
class Firewall:
    """A chain of another program that drops what is steered to the proxy."""

    chain: str
    """Family, table and chain."""
    why: str
    """What drops it: a rule, or the chain's policy."""
    way_out: str
    """The command, or the setting, that lets it in."""

    def __str__(self) -> str:
        return f"packets to Services may be dropped on their way in: {self.why}"


def find_firewalls(
    nft: Tables, legacy_filter: Tables, steering: str, proxy_ports: tuple[int, int]
) -> list[Firewall]:
    """Return the chains that drop what is steered to the proxy.

    Args:
        nft: Chains of nftables; with the rules of those that packets to this node meet.
        legacy_filter: As :func:`~.legacy.read_legacy` reads the table ``filter``.
        steering: The name of ours.
        proxy_ports: First and last.
    """
    if steering in ("none", ""):
        return []
    passes = _passes(steering, proxy_ports)
    return [
        *_judge(nft, passes, steering),
        *(() if steering == "iptables" else _judge(legacy_filter, passes, steering)),
    ]


def _passes(steering: str, proxy_ports: tuple[int, int]) -> Callable[[str], bool]:
    """Return whether a packet that begins a connection through us surely meets a condition."""
    is_translated = steering != "local"

    def passes(condition: str) -> bool:
        states = condition.removeprefix("ct state ")
        if states != condition:
            return "new" in states.split(",")
        if condition == ("ct status dnat" if is_translated else _TRANSPARENT):
            return True
        span = _PORTS.fullmatch(condition)
        if span is None or not is_translated:
            return False
        return int(span[1]) <= proxy_ports[0] and proxy_ports[1] <= int(span[2])

    return passes


def _judge(tables: Tables, passes: Callable[[str], bool], steering: str) -> Iterator[Firewall]:
    for chain in base_chains(tables, kind="filter", hook="input"):
        why = ends_in_drop(chain, tables[chain.table].get, passes)
        if why:
            yield Firewall(str(chain), why, _way_out(chain, steering))


def _way_out(chain: Chain, steering: str) -> str:
    if steering == "local":
        return _way_out_of_sockets(chain)
    if chain.table == FIREWALLD:
        return "update firewalld to 0.9 or later, which admits translated packets"
    if chain.table.startswith("legacy "):
        tool = "ip6tables-legacy" if " ip6 " in chain.table else "iptables-legacy"
        return f"{tool} -I INPUT -m conntrack --ctstate DNAT -j ACCEPT; or --steering=iptables"
    return f"nft insert rule {chain.table} {chain.name} ct status dnat accept"


def _way_out_of_sockets(chain: Chain) -> str:
    """Return what lets in what reaches listeners on the frontends' own addresses."""
    if chain.table.startswith("legacy "):
        tool = "ip6tables-legacy" if " ip6 " in chain.table else "iptables-legacy"
        return f"{tool} -I INPUT -m socket --transparent -j ACCEPT"
    return f"nft insert rule {chain.table} {chain.name} socket transparent 1 accept"
