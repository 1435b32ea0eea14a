"""Follows the rules of a chain with a packet, or with all packets of a kind; pure.

    jump x ─▶ x: ct state established accept   not met
                 numgen random … return        may be met: both ways are followed
                 drop
    drop                                       all ways end here, or above: certainly dropped

Rule 1: rules are followed in their order. Where it isn't known whether packets meet a rule, both
ways are followed, and the outcome is certain only if all ways have the same one.
Rule 2: where a chain couldn't be read, packets may end in any way.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from .chains import DEPTH_MAX, DROPS, LEADS, Chain, RuleVerdict, Step
from .matches import Condition
from .packets import FirstPacket, is_of_client, meets, names_address, names_frontend

TRACKING = -200
"""The kernel's own: NF_IP_PRI_CONNTRACK, at the hooks by which packets enter it."""
_ENTRIES = ("prerouting", "output")
FOLLOWED_MAX = 200_000
"""Rules times packets, 1.2 µs each: chains are followed in the round of repairs."""


class Outcome(NamedTuple):
    """The ways that packets may take through rules."""

    by: tuple[Chain, Step] | None = None
    """The last rule that translates them, or in a chain of type filter drops them, and where it is;
    None: none may."""
    is_named: bool = False
    """Whether such a rule, or one that leads to it, is about what they are for."""
    ends: bool = False
    """Whether they may be accepted, or leave all chains in another way."""
    back: bool = False
    """Whether they may go on after the chain."""

    @property
    def is_certain(self) -> bool:
        """Whether they are translated or dropped, on all ways."""
        return self.by is not None and not (self.ends or self.back)


class Drop(NamedTuple):
    """What certainly drops packets."""

    base: Chain
    """The chain that the kernel calls."""
    place: Chain
    rule: Step | None
    """None: the policy."""

    def __str__(self) -> str:
        if self.rule is None:
            return "its policy is drop"
        return f"{'' if self.place is self.base else f'chain {self.place.name}: '}rule {self.rule}"


def follow(
    chain: Chain,
    chains: Mapping[str, Chain],
    packet: FirstPacket,
    kind: str,
    depth: int = 0,
    *,
    is_named: bool = False,
) -> Outcome:
    """Return the effect of a chain on packets.

    Args:
        chain: With its rules.
        chains: Those of its table that it may jump to, by name, with their rules.
        kind: Of the chain that the kernel calls: ``nat`` or ``filter``; ``untracked`` for what
            one of type filter does to connection tracking; ``some`` for what it does to the client
            that meets conditions on clients only where rules that name the frontend drop it then.
        is_named: Whether a rule that leads to the chain is about what the packets are for.
    """
    effects = _EFFECTS[kind]
    if chain.hook in _ENTRIES and chain.priority <= TRACKING:
        packet = packet._replace(is_tracked=False)
    by: tuple[Chain, Step] | None = None
    found = ends = back = False
    for step in chain.steps:
        others: Iterable[Condition] = step.matches
        if is_for_some := kind == "some" and any(map(is_of_client, step.matches)):
            others = [one for one in step.matches if not is_of_client(one)]
        if (met := meets(others, packet)) is False:
            continue
        does = effects.get(step.verdict, _GOES_ON)
        names = is_named or _names(step, packet, kind)
        inner = Outcome((chain, step) if does.takes else None, names, does.ends, does.goes_on)
        if step.verdict in LEADS and depth < DEPTH_MAX:
            inner = Outcome((chain, step), names, ends=True, back=True)
            if step.target in chains and chains[step.target].is_read:
                led = chains[step.target]
                inner = follow(led, chains, packet, kind, depth + 1, is_named=names)
        is_theirs = met and inner.is_certain and inner.is_named
        if is_for_some and not is_theirs and step.verdict is not RuleVerdict.MAP:
            continue
        if inner.by:
            by, found = inner.by, found or inner.is_named
        ends = ends or inner.ends
        back = back or (does.returns and (inner.back or step.verdict not in LEADS))
        if met and not (does.goes_on and inner.back):
            return Outcome(by, found, ends, back)
    return Outcome(by, found, ends, back=True)


def find_drop(base: Chain, chains: Mapping[str, Chain], packet: FirstPacket) -> Drop | None:
    """Return what certainly drops packets in a chain of type filter; None: nothing does."""
    outcome = follow(base, chains, packet, "filter")
    if outcome.ends or not base.is_read or (outcome.back and base.policy != "drop"):
        return None
    return Drop(base, *(outcome.by if outcome.by and not outcome.back else (base, None)))


def find_drop_for_some(
    base: Chain, chains: Mapping[str, Chain], packet: FirstPacket
) -> Drop | None:
    """Return what drops the packets of some clients by a rule that names the frontend."""
    outcome = follow(base, chains, packet, "some")
    is_found = outcome.is_certain and outcome.is_named
    return Drop(base, *outcome.by) if outcome.by and is_found else None


def _names(step: Step, packet: FirstPacket, kind: str) -> bool:
    if kind == "nat":
        return names_address(step.matches)
    return kind == "some" and names_frontend(step.matches, packet)


class _Effect(NamedTuple):
    """What a verdict may do."""

    takes: bool = False
    ends: bool = False
    returns: bool = False
    goes_on: bool = False


_GOES_ON = _Effect(goes_on=True)
_ENDS, _TAKES, _RETURNS = _Effect(ends=True), _Effect(takes=True), _Effect(returns=True)
_ALL: Mapping[RuleVerdict, _Effect] = {
    # A map may have any verdict.
    RuleVerdict.MAP: _Effect(takes=True, ends=True, returns=True, goes_on=True),
    **dict.fromkeys((RuleVerdict.RETURN, RuleVerdict.GOTO), _RETURNS),
    **dict.fromkeys((RuleVerdict.ACCEPT, RuleVerdict.QUEUE, *DROPS), _ENDS),
}
_EFFECTS: Mapping[str, Mapping[RuleVerdict, _Effect]] = {
    "nat": {**_ALL, RuleVerdict.TRANSLATE: _TAKES},
    **{kind: {**_ALL, **dict.fromkeys(DROPS, _TAKES)} for kind in ("filter", "some")},
    # What isn't tracked isn't translated either.
    "untracked": {**_ALL, RuleVerdict.NOTRACK: _TAKES},
}
