"""Follows the rules of a chain for a packet, or for all packets of a kind; pure.

    jump x ─▶ x: ct state established accept   not met
                 numgen random … return        may be met: both paths are followed
                 drop
    drop                                       all paths end here, or above: certainly dropped

Rule 1: rules are followed in order. If a rule may or may not match, both paths are followed, and
the outcome is certain only if it is the same on all paths.
Rule 2: in a chain that couldn't be read, any outcome is possible.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from ..kernel.interfaces import is_local
from .chains import DEPTH_MAX, DROPS, LEADS, Chain, RuleVerdict, Step
from .packets import FirstPacket, meets

TRACKING = -200
"""The priority of connection tracking at the hooks where packets enter: NF_IP_PRI_CONNTRACK."""
ALL_NAT = -100
"""The priority NF_IP_PRI_NAT_DST, at which all nat chains translate destinations."""
SOURCE_NAT = 100
"""The kernel's priority NF_IP_PRI_NAT_SRC, at which sources are translated, and translated back."""
WAY_IN = ("prerouting", "input")
"""The hooks on the way to this node's sockets."""
WAY_OUT = ("output", "postrouting")
"""The hooks on the way from this node's sockets."""
WAYS = (*WAY_IN, *WAY_OUT)
_ENTRIES = ("prerouting", "output")
FOLLOWED_MAX = 200_000
"""The maximum number of rules × packets to follow, at 1.2 µs each: chains are followed during
repairs."""


class Outcome(NamedTuple):
    """The possible outcomes for packets in a chain."""

    by: tuple[Chain, Step] | None = None
    """The last rule that may translate the packets, or in a filter chain drop them, with its chain;
    None if there is no such rule."""
    ends: bool = False
    """Whether packets may be accepted, queued, or in a nat chain dropped, before later rules."""
    back: bool = False
    """Whether packets may reach the end of the chain, or return from it."""

    @property
    def is_certain(self) -> bool:
        """Whether packets are translated or dropped on all paths."""
        return self.by is not None and not (self.ends or self.back)

    @property
    def unfollowed(self) -> str:
        """The rule that may take packets, with the command that shows it; empty without a rule."""
        if self.by is None or self.is_certain:
            return ""
        place, rule = self.by
        return f"chain {place}, rule {rule}, {place.listing}"


class Drop(NamedTuple):
    """A rule or policy that certainly drops the packets."""

    base: Chain
    """The base chain."""
    place: Chain
    rule: Step | None
    """The rule; None for the chain's policy."""
    whose: str = ""
    """The clients whose packets are dropped, as the end of a sentence; empty for all clients."""

    def __str__(self) -> str:
        if self.rule is None:
            return f"its policy is drop{self.whose}"
        place = "" if self.place is self.base else f"chain {self.place.name}: "
        return f"{place}rule {self.rule}{self.whose}"


def follow(
    chain: Chain, chains: Mapping[str, Chain], packet: FirstPacket, kind: str, depth: int = 0
) -> Outcome:
    """Return the effect of a chain on packets.

    Args:
        chain: The chain, with its rules.
        chains: The chains of the same table to which it may jump, by name, with their rules.
        kind: The base chain's kind: ``nat`` or ``filter``; ``source`` asks for the effect of a nat
            chain on sources, ``untracked`` for that of a filter chain on connection tracking.
    """
    effects = _EFFECTS[kind]
    if chain.hook in _ENTRIES and chain.priority <= TRACKING:
        packet = packet._replace(is_tracked=False)
    by: tuple[Chain, Step] | None = None
    ends = back = False
    for step in chain.steps:
        if (met := meets(step.matches, packet)) is False:
            continue
        does = effects.get(step.verdict, _GOES_ON)
        if step.verdict is RuleVerdict.SNAT and not (step.target and not is_local(step.target)):
            does = _ENDS
        inner = Outcome((chain, step) if does.takes else None, does.ends, does.goes_on)
        if step.verdict in LEADS and depth < DEPTH_MAX:
            inner = Outcome((chain, step), ends=True, back=True)
            if step.target in chains and chains[step.target].is_read:
                inner = follow(chains[step.target], chains, packet, kind, depth + 1)
        by = inner.by or by
        ends = ends or inner.ends
        back = back or (does.returns and (inner.back or step.verdict not in LEADS))
        if met and not (does.goes_on and inner.back):
            return Outcome(by, ends, back)
    return Outcome(by, ends, back=True)


def find_drop(base: Chain, chains: Mapping[str, Chain], packet: FirstPacket) -> Drop | None:
    """Return the rule or policy of a filter chain that certainly drops a packet, or None."""
    outcome = follow(base, chains, packet, "filter")
    if outcome.ends or not base.is_read or (outcome.back and base.policy != "drop"):
        return None
    return Drop(base, *(outcome.by if outcome.by and not outcome.back else (base, None)))


class _Effect(NamedTuple):
    """The possible effects of a verdict on a packet."""

    takes: bool = False
    ends: bool = False
    returns: bool = False
    goes_on: bool = False


_GOES_ON = _Effect(goes_on=True)
_ENDS, _TAKES, _RETURNS = _Effect(ends=True), _Effect(takes=True), _Effect(returns=True)
_ALL: Mapping[RuleVerdict, _Effect] = {
    # A map may contain any verdict, so every effect is possible.
    RuleVerdict.MAP: _Effect(takes=True, ends=True, returns=True, goes_on=True),
    **dict.fromkeys((RuleVerdict.RETURN, RuleVerdict.GOTO), _RETURNS),
    **dict.fromkeys((RuleVerdict.ACCEPT, RuleVerdict.QUEUE, *DROPS), _ENDS),
}
_EFFECTS: Mapping[str, Mapping[RuleVerdict, _Effect]] = {
    "nat": {**_ALL, RuleVerdict.TRANSLATE: _TAKES},
    # A packet is dropped if no program reads the queue.
    "filter": {
        **_ALL,
        **dict.fromkeys(DROPS, _TAKES),
        RuleVerdict.QUEUE: _Effect(takes=True, ends=True),
    },
    "source": {**_ALL, RuleVerdict.SNAT: _TAKES},
    # The kernel doesn't translate untracked packets.
    "untracked": {**_ALL, RuleVerdict.NOTRACK: _TAKES},
}
