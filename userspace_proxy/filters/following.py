"""Follows the rules of a chain for a packet, or for all packets of a kind; pure.

    jump x ─▶ x: ct state established accept   not met
                 numgen random … return        may be met: both paths are followed
                 drop
    drop                                       all paths end here, or above: certainly dropped

Rule 1: rules are followed in order. If it isn't known whether packets meet a rule, both paths are
followed, and the outcome is certain only if it is the same on all paths.
Rule 2: in a chain that couldn't be read, any outcome is possible.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from .chains import DEPTH_MAX, DROPS, LEADS, Chain, RuleVerdict, Step
from .matches import Condition
from .packets import FirstPacket, is_of_client, meets, names_address, names_frontend

TRACKING = -200
"""The priority of connection tracking at the hooks where packets enter: NF_IP_PRI_CONNTRACK."""
_ENTRIES = ("prerouting", "output")
FOLLOWED_MAX = 200_000
"""The maximum of rules times packets, at 1.2 µs each: chains are followed during repairs."""


class Outcome(NamedTuple):
    """The possible outcomes for packets in a chain."""

    by: tuple[Chain, Step] | None = None
    """The last rule that may translate them, or in a filter chain drop them, and its chain; None:
    there is no such rule."""
    is_named: bool = False
    """Whether such a rule, or one that leads to it, names their frontend."""
    ends: bool = False
    """Whether they may be accepted, or leave all chains otherwise."""
    back: bool = False
    """Whether they may continue after the chain."""

    @property
    def is_certain(self) -> bool:
        """Whether they are translated or dropped on all paths."""
        return self.by is not None and not (self.ends or self.back)


class Drop(NamedTuple):
    """A rule or policy that certainly drops packets."""

    base: Chain
    """The base chain."""
    place: Chain
    rule: Step | None
    """The rule; None: the policy."""

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
        chain: The chain, with its rules.
        chains: Its table's chains to which it may jump, by name, with their rules.
        kind: The base chain's kind: ``nat`` or ``filter``. In a filter chain, ``untracked`` follows
            the effect on connection tracking, and ``some`` a client that meets conditions on
            clients only where rules that name the frontend then drop it.
        is_named: Whether a rule that leads to the chain names the packets' frontend.
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
    """Return what certainly drops packets in a filter chain; None: nothing does."""
    outcome = follow(base, chains, packet, "filter")
    if outcome.ends or not base.is_read or (outcome.back and base.policy != "drop"):
        return None
    return Drop(base, *(outcome.by if outcome.by and not outcome.back else (base, None)))


def find_drop_for_some(
    base: Chain, chains: Mapping[str, Chain], packet: FirstPacket
) -> Drop | None:
    """Return a rule naming the frontend that drops the packets of some clients."""
    outcome = follow(base, chains, packet, "some")
    is_found = outcome.is_certain and outcome.is_named
    return Drop(base, *outcome.by) if outcome.by and is_found else None


def _names(step: Step, packet: FirstPacket, kind: str) -> bool:
    if kind == "nat":
        return names_address(step.matches)
    return kind == "some" and names_frontend(step.matches, packet)


class _Effect(NamedTuple):
    """The possible effects of a verdict."""

    takes: bool = False
    ends: bool = False
    returns: bool = False
    goes_on: bool = False


_GOES_ON = _Effect(goes_on=True)
_ENDS, _TAKES, _RETURNS = _Effect(ends=True), _Effect(takes=True), _Effect(returns=True)
_ALL: Mapping[RuleVerdict, _Effect] = {
    # A map may contain any verdict.
    RuleVerdict.MAP: _Effect(takes=True, ends=True, returns=True, goes_on=True),
    **dict.fromkeys((RuleVerdict.RETURN, RuleVerdict.GOTO), _RETURNS),
    **dict.fromkeys((RuleVerdict.ACCEPT, RuleVerdict.QUEUE, *DROPS), _ENDS),
}
_EFFECTS: Mapping[str, Mapping[RuleVerdict, _Effect]] = {
    "nat": {**_ALL, RuleVerdict.TRANSLATE: _TAKES},
    **{kind: {**_ALL, **dict.fromkeys(DROPS, _TAKES)} for kind in ("filter", "some")},
    # Untracked packets aren't translated either.
    "untracked": {**_ALL, RuleVerdict.NOTRACK: _TAKES},
}
