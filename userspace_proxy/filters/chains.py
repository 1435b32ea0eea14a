"""Chains of packet filters as values."""

from __future__ import annotations

import enum
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ..model import IPFamily
from ..model.quoting import shell_command
from .matches import Conditions, in_words

DEPTH_MAX = 16
"""The maximum depth of jumps between chains, as in the kernel."""


class RuleVerdict(enum.StrEnum):
    """The effect of a rule on packets that match it."""

    NONE = ""
    """The rule only counts or marks packets."""
    ACCEPT = "accept"
    DROP = "drop"
    REJECT = "reject"
    RETURN = "return"
    JUMP = "jump"
    GOTO = "goto"
    QUEUE = "queue"
    TRANSLATE = "translate"
    SNAT = "snat"
    NOTRACK = "notrack"
    """The packet isn't tracked; this isn't a final verdict."""
    MAP = "vmap"
    """A verdict from a map whose elements are unknown."""


DROPS = (RuleVerdict.DROP, RuleVerdict.REJECT)
LEADS = (RuleVerdict.JUMP, RuleVerdict.GOTO)


class Step(NamedTuple):
    """One rule of a chain."""

    verdict: RuleVerdict
    matches: Conditions = ()
    """The conditions of the rule; if there are none, every packet matches it."""
    target: str = ""
    """The chain of a jump or goto, or the new source of ``snat`` if it is literal, or empty."""

    def __str__(self) -> str:
        return " ".join(filter(None, (in_words(self.matches), self.verdict, self.target)))


class ChainTable(NamedTuple):
    """A table of chains; its text is ``inet firewalld``, as in nft, or ``legacy ip nat``."""

    family: str
    """``ip``, ``inet`` and so on; for iptables-legacy ``ip`` or ``ip6``."""
    name: str
    is_legacy: bool = False
    """Whether the table belongs to iptables-legacy, whose tables nft doesn't show."""

    @property
    def families(self) -> Sequence[IPFamily]:
        """The IP families of the table's packets; empty if they aren't IP packets."""
        return _FAMILIES.get(self.family, ())

    def __str__(self) -> str:
        return f"{'legacy ' if self.is_legacy else ''}{self.family} {self.name}"


@dataclass(frozen=True, slots=True)
class Chain:
    """A chain of nftables, or of a legacy table."""

    table: ChainTable
    name: str
    kind: str = ""
    """``nat`` or ``filter`` for a base chain; empty for other chains."""
    hook: str = ""
    """``prerouting``, ``input``, …; empty for a regular chain."""
    priority: int = 0
    policy: str = "accept"
    steps: tuple[Step, ...] = ()
    is_read: bool = True
    """Whether the chain's rules have been read."""
    is_newer: bool = False
    """Whether its table is newer than all tables in which a userspace-proxy has nat chains."""

    def __str__(self) -> str:
        return f"{self.table} {self.name}"

    @property
    def described(self) -> str:
        """A base chain with its hook and priority, as the subject of a sentence."""
        place = f"({self.hook}, priority {self.priority})"
        kind = "" if self.table.is_legacy else "nftables "
        return f"{kind}chain {self} of another program {place}"

    @property
    def listing(self) -> str:
        """The command that lists the rules, as the end of a sentence."""
        listed = shell_command("nft", "list", "chain", *self.table[:2], self.name)
        return f"as `{self.legacy_command('-S') if self.table.is_legacy else listed}` shows"

    def legacy_command(self, option: str) -> str:
        tool = "ip6tables-legacy" if self.table.family == "ip6" else "iptables-legacy"
        table = () if self.table.name == "filter" else ("-t", self.table.name)
        return shell_command(tool, *table, option, self.name)


Tables = dict[ChainTable, dict[str, Chain]]
"""Chains by table and name."""

_FAMILIES = {"ip": (IPFamily.IPV4,), "ip6": (IPFamily.IPV6,), "inet": tuple(IPFamily)}
# Forwarded packets traverse both hooks.
_HOOKS = {"forward": ("forward", "postrouting")}


def base_chains(tables: Tables, *, kind: str, hook: str) -> Iterator[Chain]:
    """Yield the base chains of a kind at a hook; for ``forward``, also at ``postrouting``."""
    for chains in tables.values():
        for chain in chains.values():
            if chain.kind == kind and chain.hook in _HOOKS.get(hook, (hook,)):
                yield chain
