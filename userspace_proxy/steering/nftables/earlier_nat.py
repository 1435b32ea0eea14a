"""Chains of other programs that translate a frontend's address before ours are asked.

The kernel asks nat chains in the order of their priorities, and takes the first translation. Ours
have -110, before the -100 and more of docker, firewalld, iptables and kube-proxy; of chains with
an equal priority the one that was added last is asked first (Linux 6.18). So only a chain at or
before our priority matters, which ordinary nodes don't have.

Rule 1: a rule counts if it names the frontend's address, or if it surely meets it. One that asks
for what isn't understood here (an interface, a set), without an address, doesn't.

Source: net/netfilter/core.c, nf_hook_entries_grow().
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection, Iterator

from ...model import Frontend, Protocol
from ..names import is_our_table
from ..others.chains import Chain, Tables
from ..others.nft import NftReader
from ..others.rules import UNKNOWN

_HOOKS = ("prerouting", "output")
# Chains that are followed from one that the kernel calls.
_CHAINS_MAX = 100
_ADDRESS = re.compile(r"ip6? daddr (\S+)")
_PORT = re.compile(r"(tcp|udp|th|\d+) dport (\d+)(?:-(\d+))?")
_PROTOCOL = re.compile(r"meta l4proto (\S+)")
_FAMILY = re.compile(r"meta nfproto (\S+)")


class EarlierNat:
    """Looks for such chains in this thread's network namespace.

    Args:
        priority: Of our chains.

    Raises:
        SteeringError: The kernel has no nftables, or gives no right.
    """

    def __init__(self, priority: int) -> None:
        self._priority = priority
        self._reader = NftReader()
        self._seen = -1
        self._found: dict[Frontend, str] = {}

    def look(self, frontends: Collection[Frontend]) -> dict[Frontend, str]:
        """Return the frontends that another program translates first, and why.

        What it costs when nothing has changed in nftables since the last time is 10 µs.

        Raises:
            SteeringError: The kernel refuses.
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
        for chain in earlier_chains(tables, self._priority):
            conditions = list(self._translations(tables, chain))
            for frontend in frontends if conditions else ():
                if any(translates(condition, frontend) for condition in conditions):
                    found.setdefault(frontend, _explained(chain, self._priority))
        return found

    def _translations(self, tables: Tables, base: Chain) -> Iterator[str]:
        """Yield the conditions under which a chain, or one that it leads to, translates."""
        waiting, known = [(base, "")], {base.name}
        while waiting and len(known) < _CHAINS_MAX:
            chain, before = waiting.pop()
            for step in self._reader.with_steps(chain).steps:
                condition = f"{before} {step.condition}".strip()
                word, _, name = step.verdict.partition(" ")
                target = tables[chain.table].get(name)
                if word == "translate":
                    yield condition
                elif target is not None and name not in known:
                    known.add(name)
                    waiting.append((target, condition))


def earlier_chains(tables: Tables, priority: int) -> Iterator[Chain]:
    """Yield the chains of other programs that may translate before ours.

    Args:
        tables: All there are.
        priority: Of our chains.
    """
    for table, chains in tables.items():
        for chain in chains.values():
            is_nat = chain.kind == "nat" and chain.hook in _HOOKS
            if is_nat and chain.priority <= priority and not is_our_table(table):
                yield chain


def translates(condition: str, frontend: Frontend) -> bool:
    """Return whether a rule that translates under a condition takes a frontend.

    Args:
        condition: As in :attr:`.Step.condition`; those of rules that lead to it come first.
        frontend: What clients dial.
    """
    ip = ipaddress.ip_address(frontend.ip)
    protocol = "tcp" if frontend.protocol is Protocol.TCP else "udp"
    networks = [ipaddress.ip_network(n, strict=False) for n in _ADDRESS.findall(condition)]
    if UNKNOWN in condition and not networks:
        return False
    ports = _PORT.findall(condition)
    return (
        all(ip in network for network in networks)
        and all(name in (protocol, "th") for name, _, _ in ports)
        and all(int(a) <= frontend.port <= int(b or a) for _, a, b in ports)
        and all(name == protocol for name in _PROTOCOL.findall(condition))
        and all(name == f"ipv{ip.version}" for name in _FAMILY.findall(condition))
    )


def _explained(chain: Chain, priority: int) -> str:
    return (
        f"nftables chain {chain} of another program ({chain.hook}, priority {chain.priority}) "
        f"translates it before this proxy does; delete that rule, or give the chain a priority "
        f"above {priority}"
    )
