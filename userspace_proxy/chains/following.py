"""Follows the rules of a chain with the first packet of a client; pure.

    jump x ─▶ x: ct state established accept   not met
                 iifname eth1 accept           depends on the client: what follows isn't certain
                 drop                          may be dropped

Rule 1: rules are followed in their order, and the outcome is certain only if each rule that
decides about the packet is understood.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from ..kernel.nf_tables.chains import DEPTH_MAX, Chain
from .conditions import FirstPacket, meets

DROPS = ("drop", "reject")
FOLLOWED_MAX = 200_000
"""Rules times packets, 1.2 µs each: chains are followed in the round of repairs."""


class Outcome(NamedTuple):
    """The effect of rules on the first packet of a client; None: it depends on the client."""

    is_taken: bool | None
    """Whether a rule translates it, or in a chain of type filter drops it."""
    goes_on: bool | None
    """Whether the rules after them are evaluated."""
    names_address: bool = False
    """Whether that rule has a condition on the address."""


def follow(
    chain: Chain, chains: Mapping[str, Chain], packet: FirstPacket, kind: str, depth: int = 0
) -> Outcome:
    """Return the effect of a chain on a first packet.

    Args:
        chain: With its rules.
        chains: Those of its table that it may jump to, by name, with their rules.
        kind: Of the chain that the kernel calls: ``nat`` or ``filter``; ``untracked`` for what
            one of type filter does to connection tracking.
    """
    taken: bool | None = False
    here: bool | None = True
    named = False
    for step in chain.steps:
        met = meets(step.condition, packet)
        if met is False:
            continue
        word, _, name = step.verdict.partition(" ")
        does = _STEPS[kind].get(word, Outcome(is_taken=False, goes_on=True))
        if word in ("jump", "goto") and name in chains and depth < DEPTH_MAX:
            does = follow(chains[name], chains, packet, kind, depth + 1)
        names = does.names_address or any(word in step.condition for word in ("daddr", "…dport"))
        if does.is_taken is not False and (met or names):
            if does.is_taken and met and here:
                return Outcome(is_taken=True, goes_on=False, names_address=names)
            taken, named = None, named or names
        leaves = word in ("return", "goto")
        if met and (leaves or does.goes_on is False):
            return Outcome(taken, here and does.goes_on, named)
        # What a rule takes from some clients, a later one needn't take.
        if leaves or not (does.goes_on or does.is_taken):
            here = None
    return Outcome(taken, here, named)


def drops(chain: Chain, chains: Mapping[str, Chain], packet: FirstPacket) -> bool:
    """Return whether a chain certainly drops a first packet."""
    outcome = follow(chain, chains, packet, chain.kind)
    return outcome.is_taken is True or (chain.policy == "drop" and outcome.goes_on is True)


_ENDS = Outcome(is_taken=False, goes_on=False)
_TAKES = Outcome(is_taken=True, goes_on=False)
# A map may have any verdict.
_STEPS = {
    "nat": {
        "translate": _TAKES,
        "vmap": Outcome(is_taken=None, goes_on=None),
        **dict.fromkeys(("accept", "queue", *DROPS), _ENDS),
    },
    "filter": {
        "vmap": Outcome(is_taken=None, goes_on=None),
        **dict.fromkeys(("accept", "queue"), _ENDS),
        **dict.fromkeys(DROPS, _TAKES),
    },
    # What isn't tracked isn't translated either.
    "untracked": {
        "vmap": Outcome(is_taken=None, goes_on=None),
        **dict.fromkeys(("accept", "queue", *DROPS), _ENDS),
        "notrack": _TAKES,
    },
}
