"""Firewalls of others that would drop what is steered to us; pure.

    client ─▶ frontend ─▶ our translation ─▶ INPUT: ours accepts ─▶ INPUT of others: each may drop

In the table that an ``accept`` stands in it is the end; the other tables are asked all the
same. So our legacy chains, first in ``filter``, end that table only, and our nftables chain ends
nothing but itself.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from ...steering.others import Chain, Tables, ends_in_drop
from .finding import Finding, error, ok
from .kernel import KernelView, base_chains

_TOPIC = "firewall"
_PORTS = re.compile(r"(?:meta l4proto )?(?:tcp|udp|th) dport (\d+)-(\d+)")
_FIREWALLD = "inet firewalld"


def judge_firewalls(
    kernel: KernelView, steering: str, proxy_ports: tuple[int, int]
) -> list[Finding]:
    """Say which firewall drops what.

    Args:
        kernel: What was read.
        steering: What ours would be.
        proxy_ports: First and last.
    """
    if steering in ("none", ""):
        return []
    passes = _passes(steering, proxy_ports)
    found = [
        *_judge(kernel.nft, passes, steering),
        *(() if steering == "iptables" else _judge(kernel.legacy_filter, passes, steering)),
    ]
    if found or kernel.unread:
        return found
    return [ok(_TOPIC, _well(kernel))]


def _well(kernel: KernelView) -> str:
    if _FIREWALLD in kernel.nft:
        return "firewalld runs, and lets in what was translated"
    return "nobody drops what is steered to the proxy"


def _passes(steering: str, proxy_ports: tuple[int, int]) -> Callable[[str], bool]:
    """Return whether a packet that begins a connection through us surely meets a condition."""
    is_translated = steering != "local"

    def passes(condition: str) -> bool:
        states = condition.removeprefix("ct state ")
        if states != condition:
            return "new" in states.split(",")
        if is_translated and condition == "ct status dnat":
            return True
        span = _PORTS.fullmatch(condition)
        if span is None or not is_translated:
            return False
        return int(span[1]) <= proxy_ports[0] and proxy_ports[1] <= int(span[2])

    return passes


def _judge(tables: Tables, passes: Callable[[str], bool], steering: str) -> Iterator[Finding]:
    for chain in base_chains(tables, kind="filter", hook="input"):
        why = ends_in_drop(chain, tables[chain.table].get, passes)
        if why:
            yield error(
                _TOPIC,
                f"packets to Services may be dropped on their way in: {why}",
                f"chain {chain}",
                _way_out(chain, steering),
            )


def _way_out(chain: Chain, steering: str) -> str:
    if steering == "local":
        return "let the Service range in there, or use --steering=nftables"
    if chain.table == _FIREWALLD:
        return "update firewalld to 0.9 or later, which lets in what was translated"
    if chain.table.startswith("legacy "):
        tool = "ip6tables-legacy" if " ip6 " in chain.table else "iptables-legacy"
        return f"{tool} -I INPUT -m conntrack --ctstate DNAT -j ACCEPT; or --steering=iptables"
    return f"nft insert rule {chain.table} {chain.name} ct status dnat accept"
