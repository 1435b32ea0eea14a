"""Finds the clients whose packets to one frontend a chain of another program drops.

    ip saddr 10.244.3.0/24 ip daddr 10.96.7.1 drop ─▶ "from 10.244.3.0/24"
    iifname eth1 jump x ─▶ x: ct original ip daddr 10.96.7.1 drop ─▶ "that come in by eth1"
    ip saddr 10.244.0.0/16 accept, then tcp dport 36001 drop ─▶ "except from 10.244.0.0/16"

Rule 1: the rule that drops, or one that leads to it, names the frontend: its address alone or in a
list, a port that no other Service has, or node ports (``conditions.Named``). A list of denied
sources, a limit for all, and a rule about a network of frontends are no reason for an alarm.
Rule 2: all other conditions are understood, or are about the client alone. Behind a rule that may
admit packets by any other condition nothing is reported.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from .chains import DROPS, LEADS, Chain, RuleVerdict, Step
from .following import follow
from .matches import Condition, Conditions, Match, MatchField
from .packets import FirstPacket, Named, PacketMark, is_of_client, meets, named_in

_LEAVES = (RuleVerdict.GOTO, RuleVerdict.RETURN)
_HARMLESS = (RuleVerdict.NONE, RuleVerdict.NOTRACK)
_UNDECIDED = (RuleVerdict.QUEUE, RuleVerdict.TRANSLATE, RuleVerdict.MAP)
_SHOWN_MAX = 3


class _Rule(NamedTuple):
    """A rule, with its conditions on one client and its other ones."""

    clients: Conditions
    others: Conditions
    named: Named


class _Dropped(NamedTuple):
    """Clients whose packets are dropped."""

    clients: Conditions
    admitted: Sequence[Conditions]
    """Those of them that earlier rules admit."""


class DeniedClients:
    """The clients that one chain denies frontends that it names.

    Args:
        base: The chain that the kernel calls, with its rules.
        chains: Those of its table that it may lead to, by name, with their rules.
    """

    def __init__(self, base: Chain, chains: Mapping[str, Chain]) -> None:
        self._base = base
        self._chains = chains
        steps = [step for chain in chains.values() for step in chain.steps]
        self.rules = len(steps)
        """How many have to be followed."""
        # The chains keep the rules, so each has a number of its own.
        self._rules = {id(step): _parted(step) for step in steps}
        is_denying = any(step.verdict in DROPS for step in steps)
        found = [rule.named for rule in self._rules.values()] if is_denying else []
        self.named = Named(
            *(part.union(*parts) for part, *parts in zip(Named(), *found, strict=True))
        )
        """What its rules name; for all other frontends nothing is found."""

    def dropped(self, packet: FirstPacket) -> str:
        """Return the clients whose first packets are dropped, in words; empty if none are.

        As ``from 10.244.3.0/24`` after "packets to it".
        """
        asked = _Asked(packet, self._rules, self._chains)
        follow(self._base, self._chains, asked, "filter")
        (found,) = asked.found or (None,)
        return _in_words(found) if found else ""


def _parted(step: Step) -> _Rule:
    clients = tuple(one for one in step.matches if is_of_client(one))
    others = tuple(one for one in step.matches if not is_of_client(one))
    return _Rule(clients, others, named_in(others))


@dataclass(slots=True)
class _Asked:
    """What is asked about a chain: a :class:`.following.ChainQuestion`."""

    packet: FirstPacket
    rules: Mapping[int, _Rule]
    chains: Mapping[str, Chain]
    admitted: list[Conditions] = field(default_factory=list)
    """The clients that rules so far admit, in all chains."""
    found: list[_Dropped | None] = field(default_factory=list)
    """What ends the search in all chains: the clients, or None at a rule that isn't understood."""
    clients: Conditions = ()
    """The conditions on clients of the rules that lead to this chain."""
    is_named: bool = False
    """Whether one of these rules names the frontend."""
    gone: list[Conditions] = field(default_factory=list)
    """The clients for which rules after this chain are evaluated, but not its other ones."""

    def meets(self, step: Step, mark: PacketMark) -> bool | None:
        """Return whether all clients meet a rule; None if those do whom it has conditions on."""
        if self.found:
            return False
        own, others, _ = self.rules[id(step)]
        met, verdict = meets(others, self.packet, mark), step.verdict
        if met is False or verdict in _HARMLESS or (met is None and verdict in DROPS):
            return False
        is_missing = verdict in LEADS and step.target not in self.chains
        clients = (*self.clients, *own)
        if met is None or is_missing or verdict in _UNDECIDED:
            self.found.append(None)
        elif verdict in DROPS and (clients or self.admitted or self.gone) and self._names(step):
            self.found.append(_Dropped(clients, [*self.admitted, *self.gone]))
        elif verdict is RuleVerdict.ACCEPT and clients and clients not in self.admitted:
            self.admitted.append(clients)
        elif verdict in _LEAVES and own and clients not in self.gone:
            self.gone.append(clients)
        return False if self.found else None if own else True

    def into(self, step: Step) -> _Asked:
        """Return what is asked about the chain that a rule leads to."""
        clients = (*self.clients, *self.rules[id(step)].clients)
        return replace(self, clients=clients, is_named=self._names(step), gone=[])

    def _names(self, step: Step) -> bool:
        named, packet = self.rules[id(step)].named, self.packet
        return self.is_named or named.has(packet.frontend, packet.port)


def _in_words(found: _Dropped) -> str:
    inverted = [one for one in map(_source, found.clients) if one and one.is_inverted]
    words = _listed([one for one in found.clients if one not in inverted])
    exceptions = [_phrase(replace(one, is_inverted=False)) for one in inverted]
    for clients in found.admitted:
        rest = [one for one in clients if one not in found.clients]
        if rest and not _are_others(clients, found.clients):
            # A source precedes an interface, so these begin with a verb if there is no other.
            are_all_links = all(map(_is_way_in, rest))
            exceptions.append(f"those {_listed(rest)}" if are_all_links else _listed(rest))
    if not exceptions:
        return words
    besides = f"except {' and '.join(exceptions[:_SHOWN_MAX])}"
    return f"{words}, {besides}" if words else besides


def _are_others(some: Conditions, others: Conditions) -> bool:
    """Return whether no client meets the conditions of both."""
    return any(
        not any(x.version == y.version and x.overlaps(y) for x in a.networks for y in b.networks)
        for a in map(_source, some)
        for b in map(_source, others)
        if a and b and not (a.is_inverted or b.is_inverted)
    )


def _source(one: Condition) -> Match | None:
    return one if isinstance(one, Match) and one.field is MatchField.SOURCE else None


def _listed(clients: Sequence[Condition]) -> str:
    """Return conditions on clients as words after "packets"; a source precedes an interface."""
    return " ".join(_phrase(one) for one in sorted(clients, key=_is_way_in))


def _is_way_in(one: Condition) -> bool:
    return isinstance(one, Match) and one.field is MatchField.WAY_IN


def _phrase(one: Condition) -> str:
    """Return a condition on clients as words after "packets"."""
    if not isinstance(one, Match):
        return "from some clients"
    if _is_way_in(one):
        names = [_link(one) if isinstance(one, int) else str(one) for one in one.values]
        return f"that {'do not ' if one.is_inverted else ''}come in by {', '.join(names)}"
    hosts = (net.network_address if net.num_addresses == 1 else net for net in one.networks)
    sources = [str(one) for one in hosts]
    more = len(sources) - _SHOWN_MAX
    shown = ", ".join(sources[:_SHOWN_MAX]) + (f" and {more} more" if more > 0 else "")
    return f"from {'others than ' if one.is_inverted else ''}{shown}"


def _link(number: int) -> str:
    """Return the name of an interface, or its number if there is none."""
    with contextlib.suppress(OSError):
        return socket.if_indextoname(number)
    return f"interface {number}"
