"""Finds chains of other programs that translate a frontend's address before this proxy does.

The kernel evaluates nat chains in the order of their priorities, and applies the first translation.
Those of nftables steering have -110, before the -100 and more of docker, firewalld, iptables and
kube-proxy; of chains with equal priority the one that was added last comes first (Linux 6.18). So
only a chain at or before this priority matters, which ordinary nodes don't have.

Rule 1: rules are followed in their order. A frontend is translated if each rule that decides
about its first packet is understood, and one translates it. It may be translated if a condition
isn't understood (an interface, a set), as long as the address is named, or address or port are
looked up.
Rule 2: a rule with another condition that isn't understood concerns some clients of all addresses,
as that of a transparent proxy: it is no reason for an alarm, but makes later rules less certain.

Source: net/netfilter/core.c, nf_hook_entries_grow().
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import NamedTuple

from ..kernel.nf_tables.conditions import meets
from ..model import Frontend
from .names import is_userspace_proxy_table
from .others.chains import DEPTH_MAX, Chain, Tables
from .others.nft import NftReader

_HOOKS = ("prerouting", "output")


class Outcome(NamedTuple):
    """The effect of rules on the first packet of a client; None: it depends on the client."""

    is_translated: bool | None
    goes_on: bool | None
    """Whether the rules after them are evaluated."""
    names_address: bool = False
    """Whether a translating rule has a condition on the address."""


class EarlierNat:
    """Finds those chains in this thread's network namespace.

    Raises:
        SteeringError: The kernel has no nftables, or permission is denied.
    """

    def __init__(self, priority: int) -> None:
        self._priority = priority
        self._reader = NftReader()
        self._seen = -1
        self._found: dict[Frontend, str] = {}

    def look(self, frontends: Collection[Frontend]) -> dict[Frontend, str]:
        """Return the frontends that another program translates first, or may, with the cause.

        Takes 10 µs if nothing in nftables has changed since the last call.
        """
        generation = self._reader.generation()
        if generation != self._seen:
            self._found = self._find(frontends)
            self._seen = generation
        return self._found

    def close(self) -> None:
        """Close the socket."""
        self._reader.close()

    def _find(self, frontends: Collection[Frontend]) -> dict[Frontend, str]:
        tables = self._reader.chains()
        found: dict[Frontend, str] = {}
        for base in earlier_chains(tables, self._priority):
            chains = self._reader.reached(tables[base.table], base)
            if not any(
                s.verdict in ("translate", "vmap") for c in chains.values() for s in c.steps
            ):
                continue
            for frontend in frontends:
                outcome = follow(chains[base.name], chains, frontend)
                if outcome.is_translated is not False and frontend not in found:
                    found[frontend] = _explained(
                        base, self._priority, is_sure=outcome.is_translated is True
                    )
        return found


def earlier_chains(tables: Tables, priority: int) -> Iterator[Chain]:
    """Yield the chains of other programs that may translate before this proxy's priority."""
    for table, chains in tables.items():
        for chain in chains.values():
            is_nat = chain.kind == "nat" and chain.hook in _HOOKS
            if is_nat and chain.priority <= priority and not is_userspace_proxy_table(table):
                yield chain


def follow(
    chain: Chain, chains: Mapping[str, Chain], frontend: Frontend, depth: int = 0
) -> Outcome:
    """Return the effect of a chain on the first packet of clients of a frontend.

    Args:
        chain: With its rules.
        chains: Those of its table that it may jump to, by name, with their rules.
    """
    translated: bool | None = False
    here: bool | None = True
    named = False
    for step in chain.steps:
        met = meets(step.condition, frontend)
        if met is False:
            continue
        word, _, name = step.verdict.partition(" ")
        does = _STEPS.get(word, Outcome(is_translated=False, goes_on=True))
        if word in ("jump", "goto") and name in chains and depth < DEPTH_MAX:
            does = follow(chains[name], chains, frontend, depth + 1)
        names = does.names_address or any(word in step.condition for word in ("daddr", "…dport"))
        if does.is_translated is not False and (met or names):
            if does.is_translated and met and here:
                return Outcome(is_translated=True, goes_on=False, names_address=names)
            translated, named = None, named or names
        leaves = word in ("return", "goto")
        if met and (leaves or does.goes_on is False):
            return Outcome(translated, here and does.goes_on, named)
        if leaves or not does.goes_on:
            here = None
    return Outcome(translated, here, named)


# A map may have any verdict.
_STEPS = {
    "translate": Outcome(is_translated=True, goes_on=False),
    "vmap": Outcome(is_translated=None, goes_on=None),
    **dict.fromkeys(
        ("accept", "drop", "reject", "queue"), Outcome(is_translated=False, goes_on=False)
    ),
}


def _explained(chain: Chain, priority: int, *, is_sure: bool) -> str:
    return (
        f"nftables chain {chain} of another program ({chain.hook}, priority {chain.priority}) "
        f"{'translates' if is_sure else 'may translate'} it before this proxy does; "
        f"delete that rule, or give the chain a priority above {priority}"
    )
