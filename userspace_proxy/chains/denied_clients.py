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
import ipaddress
import re
import socket
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ..kernel.nf_tables.chains import DEPTH_MAX, Chain, Step
from ..kernel.nf_tables.rules import SOURCES
from .conditions import FirstPacket, Named, meets, named_in, of_clients
from .following import DROPS

_LEADS, _LEAVES = ("jump", "goto"), ("goto ", "return")
_HARMLESS = ("", "notrack")
_SHOWN_MAX = 3
_HOST = re.compile(r"(?<=[\d.])/32|(?<=[\da-f:])/128")
_NONE = Named(frozenset(), frozenset(), frozenset())

_Conditions = tuple[str, ...]
"""Those on one client."""


class _Reached(NamedTuple):
    """A place in a chain."""

    clients: _Conditions = ()
    """The conditions on clients of the rules that lead to it."""
    is_named: bool = False
    """Whether one of these rules names the frontend."""
    depth: int = 0


class _Dropped(NamedTuple):
    """Clients whose packets are dropped."""

    clients: _Conditions
    admitted: Sequence[_Conditions]
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
        is_denying = any(map(_drops, steps))
        found = [named_in(step.condition) for step in steps] if is_denying else []
        self.named = Named(
            *(part.union(*parts) for part, *parts in zip(_NONE, *found, strict=True))
        )
        """What its rules name; for all other frontends nothing is found."""

    def dropped(self, packet: FirstPacket) -> str:
        """Return the clients whose first packets are dropped, in words; empty if none are.

        As ``from 10.244.3.0/24`` after "packets to it".
        """
        found = self._follow(self._base, packet, _Reached(), [])
        return _in_words(found) if isinstance(found, _Dropped) else ""

    def _follow(
        self, chain: Chain, packet: FirstPacket, place: _Reached, admitted: list[_Conditions]
    ) -> _Dropped | bool | None:
        """Return what is dropped, or whether the rules after those of a chain are evaluated.

        Args:
            admitted: The clients that rules so far admit; grows.

        Returns:
            None if that isn't known.
        """
        # The clients for which rules after this chain are evaluated, but not its other ones.
        gone: list[_Conditions] = []
        for step in chain.steps:
            clients, others = of_clients(step.condition)
            met = meets(others, packet)
            if met is False or step.verdict in _HARMLESS or (met is None and _drops(step)):
                continue
            if met is None:
                return None
            is_named = place.is_named or named_in(others).has(packet.frontend, packet.port)
            here = _Reached((*place.clients, *clients), is_named, place.depth + 1)
            if _drops(step) and is_named and (here.clients or admitted or gone):
                return _Dropped(here.clients, [*admitted, *gone])
            found = self._effect(step.verdict, packet, here, admitted)
            if found is None or isinstance(found, _Dropped) or not (found or clients):
                return found
            if step.verdict.startswith(_LEAVES):
                if not clients:
                    return True
                gone.append(here.clients)
        return True

    def _effect(
        self, verdict: str, packet: FirstPacket, here: _Reached, admitted: list[_Conditions]
    ) -> _Dropped | bool | None:
        """Return the effect of a verdict as :meth:`_follow` does."""
        word, _, name = verdict.partition(" ")
        if word in _LEADS and name in self._chains and here.depth <= DEPTH_MAX:
            return self._follow(self._chains[name], packet, here, admitted)
        if word == "accept" and here.clients:
            admitted.append(here.clients)
        return {"return": True, **dict.fromkeys(("accept", *DROPS), False)}.get(word)


def _drops(step: Step) -> bool:
    return step.verdict in DROPS


def _in_words(found: _Dropped) -> str:
    positive = [one for one in found.clients if not _is_inverted_source(one)]
    inverted = [one for one in found.clients if _is_inverted_source(one)]
    # A source is named before an interface.
    words = " ".join(_phrase(one) for one in sorted(positive, key=_is_way_in))
    exceptions = [_phrase(one.replace("!= ", "")) for one in inverted]
    for clients in found.admitted:
        rest = [one for one in clients if one not in found.clients]
        if rest and not _are_others(clients, found.clients):
            said = " ".join(_phrase(one) for one in sorted(rest, key=_is_way_in))
            exceptions.append(f"those {said}" if said.startswith("that") else said)
    if not exceptions:
        return words
    besides = f"except {' and '.join(exceptions[:_SHOWN_MAX])}"
    return f"{words}, {besides}" if words else besides


def _are_others(some: _Conditions, others: _Conditions) -> bool:
    """Return whether no client meets the conditions of both."""
    sources = [(a, b) for a in map(_networks, some) for b in map(_networks, others) if a and b]
    return any(
        not any(x.version == y.version and x.overlaps(y) for x in a for y in b) for a, b in sources
    )


def _networks(condition: str) -> Sequence[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    """Return the sources that meet a condition; empty for any other condition."""
    field, _, value = condition.rpartition(" ")
    if field not in SOURCES:
        return []
    return [ipaddress.ip_network(one, strict=False) for one in value.split(",")]


def _is_inverted_source(condition: str) -> bool:
    return "saddr != " in condition


def _is_way_in(condition: str) -> bool:
    return condition.startswith("iif")


def _phrase(condition: str) -> str:
    """Return a condition on clients as words after "packets"."""
    field, _, value = condition.rpartition(" ")
    if not field:
        return "from some clients"
    is_inverted = field.endswith("!=")
    if _is_way_in(condition):
        link = value if field.startswith("iifname") else _link(int(value))
        return f"that {'do not ' if is_inverted else ''}come in by {link}"
    sources = _HOST.sub("", value).split(",")
    more = len(sources) - _SHOWN_MAX
    shown = ", ".join(sources[:_SHOWN_MAX]) + (f" and {more} more" if more > 0 else "")
    return f"from {'others than ' if is_inverted else ''}{shown}"


def _link(number: int) -> str:
    """Return the name of an interface, or its number if there is none."""
    with contextlib.suppress(OSError):
        return socket.if_indextoname(number)
    return f"interface {number}"
