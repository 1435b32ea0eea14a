"""Chains of packet filters as values."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import NamedTuple

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


LEGACY = "legacy "
"""Precedes the names of tables of iptables-legacy, which nft doesn't know."""


@dataclass(frozen=True, slots=True)
class Chain:
    """One chain."""

    table: str
    """``ip nat`` or ``inet firewalld``; ``legacy ip nat`` for iptables-legacy."""
    name: str
    kind: str = ""
    """``nat``, ``filter`` or ``route`` if the kernel calls it; empty for others."""
    hook: str = ""
    """``prerouting``, ``input``, …; empty if it is only jumped to."""
    priority: int = 0
    policy: str = "accept"
    steps: tuple[Step, ...] = ()

    @property
    def family(self) -> str:
        """``ip``, ``inet``, …, also of iptables-legacy."""
        return self.table.removeprefix(LEGACY).partition(" ")[0]

    @property
    def is_legacy(self) -> bool:
        """Whether it is one of iptables-legacy."""
        return self.table.startswith(LEGACY)

    def __str__(self) -> str:
        return f"{self.table} {self.name}"


Tables = dict[str, dict[str, Chain]]
"""Chains by table and name."""
