"""Chains of packet filters as values, and their verdict on an incoming packet.

Rule 1: a rule with conditions counts only if they are certainly met: it is better to miss a
firewall than to blame one that admits the proxy's packets.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

# Chains may jump to each other; the kernel itself allows 16.
DEPTH_MAX = 16


class Step(NamedTuple):
    """One rule."""

    verdict: str
    """``accept``, ``drop``, ``reject``, ``return``, ``jump NAME``, ``goto NAME``; ``notrack``,
    which isn't the last word; empty for a rule that only counts or marks."""
    condition: str = ""
    """Its conditions in the syntax of nft; empty: every packet."""


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

    def __str__(self) -> str:
        return f"{self.table} {self.name}"


Tables = dict[str, dict[str, Chain]]
"""Chains by table and name."""


def ends_in_drop(
    chain: Chain, lookup: Callable[[str], Chain | None], meets: Callable[[Step], bool]
) -> str:
    """Return why a chain drops a packet; empty unless it certainly does.

    Args:
        lookup: Returns a chain of the same table; None if it doesn't exist.
        meets: Whether the packet certainly meets a rule's conditions, if it has any.
    """
    verdict, why = _walk(chain.steps, lookup, meets, 0)
    if verdict in ("drop", "reject"):
        return why
    if not verdict and chain.policy == "drop":
        return "its policy is drop"
    return ""


def _walk(
    steps: Sequence[Step],
    lookup: Callable[[str], Chain | None],
    meets: Callable[[Step], bool],
    depth: int,
) -> tuple[str, str]:
    """Return the verdict of rules and its description; empty without a verdict."""
    for step in steps:
        if step.condition and not meets(step):
            continue
        word, _, name = step.verdict.partition(" ")
        if word in ("jump", "goto"):
            target = lookup(name) if depth < DEPTH_MAX else None
            verdict, why = _walk(target.steps if target else (), lookup, meets, depth + 1)
            if verdict:
                return verdict, why if why.startswith("chain") else f"chain {name}: {why}"
            if word == "goto":
                return "", ""
        elif word == "return":
            return "", ""
        elif word not in ("", "notrack"):
            return word, f"rule {step.condition} {step.verdict}".replace("  ", " ")
    return "", ""
