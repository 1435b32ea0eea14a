"""Follows the rules of a chain with a packet, or with all packets of a kind; pure.

    jump x ─▶ x: ct state established accept   not met
                 iifname eth1 accept           depends on the client: what follows isn't certain
                 drop                          may be dropped

Who asks a question knows which rules the packet meets: ``conditions.FirstPacket`` those of a
frontend's clients, ``denied_clients`` those of some clients, ``steering.others.firewalls`` those
of all connections.

Rule 1: rules are followed in their order, and the outcome is certain only if each rule that
decides about the packet is understood.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol

from ..kernel.nf_tables.chains import DEPTH_MAX, DROPS, LEADS, Chain, RuleVerdict, Step
from .conditions import names_address

FOLLOWED_MAX = 200_000
"""Rules times packets, 1.2 µs each: chains are followed in the round of repairs."""


class ChainQuestion(Protocol):
    """What is asked about a chain."""

    def meets(self, step: Step) -> bool | None:
        """Return whether packets meet a rule; None if that isn't known, or if some do."""

    def into(self, step: Step) -> ChainQuestion:
        """Return what is asked about the chain that a rule leads to."""


class Outcome(NamedTuple):
    """The effect of rules on packets; None: it depends on the client."""

    is_taken: bool | None
    """Whether a rule translates them, or in a chain of type filter drops them."""
    goes_on: bool | None
    """Whether the rules after them are evaluated."""
    names_address: bool = False
    """Whether that rule has a condition on the address."""
    by: tuple[Chain, Step] | None = None
    """That rule, and where it is, if it certainly takes them."""


def follow(
    chain: Chain, chains: Mapping[str, Chain], asked: ChainQuestion, kind: str, depth: int = 0
) -> Outcome:
    """Return the effect of a chain on packets.

    Args:
        chain: With its rules.
        chains: Those of its table that it may jump to, by name, with their rules.
        kind: Of the chain that the kernel calls: ``nat`` or ``filter``; ``untracked`` for what
            one of type filter does to connection tracking.
    """
    effects = _EFFECTS[kind]
    taken: bool | None = False
    here: bool | None = True
    # Some may have left the chain for that which led to it.
    has_left = named = False
    for step in chain.steps:
        met = asked.meets(step)
        if met is False:
            continue
        verdict, matches, target = step
        does = effects.get(verdict, _NOTHING)
        if verdict in LEADS and target in chains and depth < DEPTH_MAX:
            does = follow(chains[target], chains, asked.into(step), kind, depth + 1)
        if does.is_taken is not False:
            names = does.names_address or names_address(matches)
            if does.is_taken and met and here:
                return Outcome(True, False, names, does.by or (chain, step))
            if met or names:
                taken, named = None, named or names
        leaves = verdict in _LEAVES
        if met and (leaves or does.goes_on is False):
            goes_on = does.goes_on if here or (does.goes_on is False and not has_left) else None
            return Outcome(taken, goes_on, named)
        # What a rule takes from some clients, a later one needn't take.
        if leaves or not (does.goes_on or does.is_taken):
            here = None
            goes_back = leaves and does.goes_on is not False
            has_left = has_left or goes_back or verdict is RuleVerdict.MAP
    return Outcome(taken, here, named)


def drops(chain: Chain, chains: Mapping[str, Chain], asked: ChainQuestion) -> bool:
    """Return whether a chain certainly drops packets."""
    outcome = follow(chain, chains, asked, "filter")
    return outcome.is_taken is True or (chain.policy == "drop" and outcome.goes_on is True)


_LEAVES = (RuleVerdict.RETURN, RuleVerdict.GOTO)
_NOTHING = Outcome(is_taken=False, goes_on=True)
_ENDS = Outcome(is_taken=False, goes_on=False)
_TAKES = Outcome(is_taken=True, goes_on=False)
_ALL_END = {
    # A map may have any verdict.
    RuleVerdict.MAP: Outcome(is_taken=None, goes_on=None),
    **dict.fromkeys((RuleVerdict.ACCEPT, RuleVerdict.QUEUE, *DROPS), _ENDS),
}
_EFFECTS: Mapping[str, Mapping[RuleVerdict, Outcome]] = {
    "nat": {**_ALL_END, RuleVerdict.TRANSLATE: _TAKES},
    "filter": {**_ALL_END, **dict.fromkeys(DROPS, _TAKES)},
    # What isn't tracked isn't translated either.
    "untracked": {**_ALL_END, RuleVerdict.NOTRACK: _TAKES},
}
