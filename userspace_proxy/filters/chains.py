"""Chains of packet filters as values."""

from __future__ import annotations

import enum
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ..model import IPFamily
from .matches import Conditions, in_words

DEPTH_MAX = 16
"""How deep chains may jump to each other; the kernel itself allows no more."""


class RuleVerdict(enum.StrEnum):
    """What a rule does with packets that meet it."""

    NONE = ""
    """It only counts or marks."""
    ACCEPT = "accept"
    DROP = "drop"
    REJECT = "reject"
    RETURN = "return"
    JUMP = "jump"
    GOTO = "goto"
    QUEUE = "queue"
    TRANSLATE = "translate"
    NOTRACK = "notrack"
    """Which isn't the last word."""
    MAP = "vmap"
    """That of a map, on a condition that isn't understood."""


DROPS = (RuleVerdict.DROP, RuleVerdict.REJECT)
LEADS = (RuleVerdict.JUMP, RuleVerdict.GOTO)


class Step(NamedTuple):
    """One rule."""

    verdict: RuleVerdict
    matches: Conditions = ()
    """Its conditions; without any it is for every packet."""
    target: str = ""
    """The chain that a jump or goto leads to."""

    def __str__(self) -> str:
        return " ".join(filter(None, (in_words(self.matches), self.verdict, self.target)))


class ChainTable(NamedTuple):
    """A table of chains; its text is that of nft, ``inet firewalld``, or ``legacy ip nat``."""

    family: str
    """``ip``, ``inet``, …, also of iptables-legacy."""
    name: str
    is_legacy: bool = False
    """It is one of iptables-legacy, which nft doesn't know."""

    @property
    def families(self) -> Sequence[IPFamily]:
        """Those of its packets; empty if it has none of IP."""
        return _FAMILIES.get(self.family, ())

    def __str__(self) -> str:
        return f"{'legacy ' if self.is_legacy else ''}{self.family} {self.name}"


@dataclass(frozen=True, slots=True)
class Chain:
    """One chain."""

    table: ChainTable
    name: str
    kind: str = ""
    """``nat``, ``filter`` or ``route`` if the kernel calls it; empty for others."""
    hook: str = ""
    """``prerouting``, ``input``, …; empty if it is only jumped to."""
    priority: int = 0
    policy: str = "accept"
    steps: tuple[Step, ...] = ()
    is_read: bool = True
    """Whether these are its rules."""

    def __str__(self) -> str:
        return f"{self.table} {self.name}"

    @property
    def described(self) -> str:
        """A chain that the kernel calls, in words."""
        place = f"({self.hook}, priority {self.priority})"
        return f"nftables chain {self} of another program {place}"


Tables = dict[ChainTable, dict[str, Chain]]
"""Chains by table and name."""

_FAMILIES = {"ip": (IPFamily.IPV4,), "ip6": (IPFamily.IPV6,), "inet": tuple(IPFamily)}
# Forwarded packets pass both.
_HOOKS = {"forward": ("forward", "postrouting")}


def base_chains(tables: Tables, *, kind: str, hook: str) -> Iterator[Chain]:
    """Yield the chains that the kernel calls at a hook; for ``forward`` at ``postrouting``, too."""
    for chains in tables.values():
        for chain in chains.values():
            if chain.kind == kind and chain.hook in _HOOKS.get(hook, (hook,)):
                yield chain
