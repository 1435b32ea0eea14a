"""Finds firewalls of other programs that would drop steered packets or endpoints' replies; pure.

    client ─▶ frontend ─▶ translation ─▶ INPUT: own chain accepts ─▶ INPUT of others: each may drop
    endpoint's reply to the proxy ─────▶ INPUT of all ────────────▶ likewise

An ``accept`` is final only in its own table; the other tables are evaluated anyway. So this proxy's
legacy chains, first in ``filter``, decide that table only, and its nftables chain decides nothing
but itself. Neither of them accepts endpoints' replies.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ...kernel.nf_tables.chains import Chain, Step, Tables, ends_in_drop
from ..names import is_userspace_proxy_table

FIREWALLD = "inet firewalld"
_TRANSLATED = "ct status dnat"
# Matches packets whose socket is transparent, as the listeners' sockets are.
_TRANSPARENT = "socket transparent"
_STATES = re.compile(r"ct state (\S+)")
# Sets and maps of states aren't read; a rule with one that accepts is assumed to accept replies.
_STATES_LOOKED_UP = "…state"
_PORTS = re.compile(r"(?:meta l4proto )?(?:tcp|udp|th) dport (\d+)-(\d+)")


@dataclass(frozen=True, slots=True)
class Firewall:
    """A chain of another program that drops steered packets, or replies to the proxy."""

    chain: str
    """Family, table and chain."""
    why: str
    """The cause: a rule, or the chain's policy."""
    way_out: str
    """The commands, or the setting, that admit all dropped packets."""

    def __str__(self) -> str:
        return f"packets to Services may be dropped on their way in: {self.why}"


def base_chains(tables: Tables, *, kind: str, hook: str) -> Iterator[Chain]:
    """Yield the chains of other programs that the kernel calls at a hook."""
    for table, chains in tables.items():
        if not is_userspace_proxy_table(table):
            for chain in chains.values():
                if chain.kind == kind and chain.hook == hook:
                    yield chain


def find_firewalls(
    nft: Tables, legacy_filter: Tables, steering: str, proxy_ports: tuple[int, int]
) -> list[Firewall]:
    """Return the chains that drop steered packets, or endpoints' replies to the proxy.

    Args:
        nft: Chains of nftables; with rules those that packets to this node pass.
        legacy_filter: The legacy table ``filter``, from :func:`.iptables.read_legacy`.
    """
    if steering in ("none", ""):
        return []
    begins = _begins(steering, proxy_ports)
    # The proxy's legacy chains accept steered packets before others' rules of that table.
    begins_in_legacy = None if steering == "iptables" else begins
    return [*_judge(nft, begins, steering), *_judge(legacy_filter, begins_in_legacy, steering)]


def _begins(steering: str, proxy_ports: tuple[int, int]) -> Callable[[Step], bool]:
    """Return whether the first packet of a steered connection certainly meets a rule."""
    is_translated = steering != "local"

    def meets(step: Step) -> bool:
        states = _STATES.fullmatch(step.condition)
        if states is not None:
            wanted = {"new", "dnat"} if is_translated else {"new"}
            return not wanted.isdisjoint(states[1].split(","))
        if step.condition == (_TRANSLATED if is_translated else _TRANSPARENT):
            return True
        span = _PORTS.fullmatch(step.condition)
        if span is None or not is_translated:
            return False
        return int(span[1]) <= proxy_ports[0] and proxy_ports[1] <= int(span[2])

    return meets


def _replies(step: Step) -> bool:
    """Return whether an endpoint's reply to the proxy certainly meets a rule."""
    if step.condition == _STATES_LOOKED_UP:
        return step.verdict in ("accept", "vmap")
    states = _STATES.fullmatch(step.condition)
    return states is not None and "established" in states[1].split(",")


def _judge(
    tables: Tables, begins: Callable[[Step], bool] | None, steering: str
) -> Iterator[Firewall]:
    """Yield the chains that drop first packets (not checked for None) or replies."""
    for chain in base_chains(tables, kind="filter", hook="input"):
        lookup = tables[chain.table].get
        first = ends_in_drop(chain, lookup, begins) if begins else ""
        reply = ends_in_drop(chain, lookup, _replies)
        if first or reply:
            why = first or f"{reply}, for endpoints' answers to the proxy"
            way_out = _way_out(chain, steering, drops_first=bool(first), drops_replies=bool(reply))
            yield Firewall(str(chain), why, way_out)


def _way_out(chain: Chain, steering: str, *, drops_first: bool, drops_replies: bool) -> str:
    if chain.table == FIREWALLD and steering != "local" and not drops_replies:
        return "update firewalld to 0.9 or later, which accepts translated packets"
    if chain.table.startswith("legacy "):
        tool = "ip6tables-legacy" if " ip6 " in chain.table else "iptables-legacy"
        prefix, suffix = f"{tool} -I INPUT", "-j ACCEPT"
        translated, transparent = "-m conntrack --ctstate DNAT", "-m socket --transparent"
        replies = "-m conntrack --ctstate ESTABLISHED,RELATED"
    else:
        prefix, suffix = f"nft insert rule {chain.table} {chain.name}", "accept"
        translated, transparent = _TRANSLATED, f"{_TRANSPARENT} 1"
        replies = "ct state established,related"
    wanted = [transparent if steering == "local" else translated] if drops_first else []
    wanted += [replies] if drops_replies else []
    return "; ".join(f"{prefix} {condition} {suffix}" for condition in wanted)
