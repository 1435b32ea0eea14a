"""Follows the rules of a chain with a packet, or with all packets of a kind; pure.

    jump x ─▶ x: ct state established accept   not met
                 meta mark set 0x1
                 meta mark 0x2 accept          not met: the mark is known
                 numgen random … return        may be met: both ways are followed
                 drop
    drop                                       all ways end here, or above: certainly dropped

Who asks a question knows which rules the packet meets: ``conditions.FirstPacket`` those of the
packets of clients and endpoints, ``denied_clients`` those of some clients.

Rule 1: rules are followed in their order. Where it isn't known whether packets meet a rule, both
ways are followed, and the outcome is certain only if all ways have the same one.
Rule 2: where a chain couldn't be read, packets may end in any way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from .chains import DEPTH_MAX, DROPS, LEADS, Chain, RuleVerdict, Step
from .packets import UNMARKED, PacketMark, names_address

FOLLOWED_MAX = 200_000
"""Rules times packets, 1.2 µs each: chains are followed in the round of repairs."""
# Most rulesets have one or two at a time.
_MARKS_MAX = 8


class ChainQuestion(Protocol):
    """What is asked about a chain."""

    def meets(self, step: Step, mark: PacketMark) -> bool | None:
        """Return whether packets meet a rule; None if that isn't known, or if some do."""

    def into(self, step: Step) -> ChainQuestion:
        """Return what is asked about the chain that a rule leads to."""


class Outcome(NamedTuple):
    """The ways that packets may take through rules."""

    by: tuple[Chain, Step] | None = None
    """The last rule that translates them, or in a chain of type filter drops them, and where it is;
    None: none may."""
    is_telling: bool = False
    """Whether that says something about a frontend: the rule names the address, or is for all."""
    names_address: bool = False
    ends: bool = False
    """Whether they may be accepted, or leave all chains in another way."""
    back: Sequence[PacketMark] = ()
    """The marks with which they may go on after the chain; empty: they don't."""

    @property
    def is_taken(self) -> bool | None:
        """Whether they are translated or dropped; None: they may be."""
        if self.by and not (self.ends or self.back):
            return True
        return None if self.by and self.is_telling else False


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
    asked: ChainQuestion,
    kind: str,
    depth: int = 0,
    marks: Sequence[PacketMark] = (UNMARKED,),
) -> Outcome:
    """Return the effect of a chain on packets.

    Args:
        chain: With its rules.
        chains: Those of its table that it may jump to, by name, with their rules.
        kind: Of the chain that the kernel calls: ``nat`` or ``filter``; ``untracked`` for what
            one of type filter does to connection tracking.
        marks: Those that packets may have.
    """
    effects = _EFFECTS[kind]
    by: tuple[Chain, Step] | None = None
    is_telling = named = ends = False
    back: list[PacketMark] = []
    for step in chain.steps:
        met = [asked.meets(step, mark) for mark in marks]
        if True not in met and None not in met:
            continue
        verdict, matches, target, marking = step
        those = [mark for mark, one in zip(marks, met, strict=True) if one is not False]
        rest = [mark for mark, one in zip(marks, met, strict=True) if one is not True]
        does = effects.get(verdict, _GOES_ON)
        inner = Outcome((chain, step) if does.takes else None, does.takes, ends=does.ends)
        if verdict in LEADS and depth < DEPTH_MAX:
            inner = Outcome((chain, step), ends=True, back=(UNMARKED,))
            if target in chains and chains[target].is_read:
                led = asked.into(step)
                inner = follow(chains[target], chains, led, kind, depth + 1, those)
            those = list(inner.back)
        elif marking:
            those = [mark.after(marking) for mark in those]
        if inner.by:
            by = inner.by
            names = inner.names_address or names_address(matches)
            named = named or names
            is_telling = is_telling or names or (inner.is_telling and not rest)
        ends = ends or inner.ends
        back += those if does.returns else ()
        marks = _few([*rest, *those] if does.goes_on else rest)
        if not marks:
            break
    return Outcome(by, is_telling, named, ends, _few([*back, *marks]))


def find_drop(base: Chain, chains: Mapping[str, Chain], asked: ChainQuestion) -> Drop | None:
    """Return what certainly drops packets in a chain of type filter; None: nothing does."""
    outcome = follow(base, chains, asked, "filter")
    if outcome.ends or not base.is_read or (outcome.back and base.policy != "drop"):
        return None
    return Drop(base, *(outcome.by if outcome.by and not outcome.back else (base, None)))


def _few(marks: Sequence[PacketMark]) -> Sequence[PacketMark]:
    """Return each mark once; in place of many one of which nothing is known."""
    found = marks if len(marks) == 1 else list(dict.fromkeys(marks))
    return found if len(found) <= _MARKS_MAX else (UNMARKED,)


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
    "filter": {**_ALL, **dict.fromkeys(DROPS, _TAKES)},
    # What isn't tracked isn't translated either.
    "untracked": {**_ALL, RuleVerdict.NOTRACK: _TAKES},
}
