"""Finds links of this node's pods whose packets to frontends are dropped by a chain; pure.

    iifname cali1 ct state new drop ─▶ pods behind cali1
    ip saddr 10.244.0.0/16 drop     ─▶ pods behind each link that such addresses are routed to
    iifname eth0 accept, then drop  ─▶ pods behind all links
    iifname eth0 drop               ─▶ none: most hardened nodes close their uplink

Only pods' origins are known: the link that leads to them, and the networks routed to it. So rules
about other links and sources aren't judged (``denied_clients`` reports those that name a frontend),
and block lists cause no alarm.

Rule 1: a chain is followed once for all links that its rules treat alike.
Rule 2: bridges of container engines and hypervisors have no pods: firewalls close them to the node.
Rule 3: a link without a route leads to no pod: it is a port of a bridge, through which its packets
arrive, or a network plugin uses it itself.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ..model import Frontend
from ..policy.locality import PodLink
from .chains import DROPS, Chain
from .following import FOLLOWED_MAX, Drop, find_drop
from .matches import Condition, Match
from .packets import FirstPacket, is_of_client, meets

_OF_OTHERS = re.compile(
    r"docker(\d+|_gwbridge)|br-[\da-f]{12}|(cni-)?podman\d*|(vmbr|virbr|lxcbr|lxdbr|incusbr)\d+"
)
_SHOWN_MAX = 3

Packets = Mapping[Frontend, FirstPacket]


class Denied(NamedTuple):
    """The links of pods to which a frontend is denied."""

    words: str
    """Text to follow "packets to it", such as ``that come in by cali1``."""
    drop: Drop
    is_for_all: bool


def conditions_on_clients(base: Chain, chains: Mapping[str, Chain]) -> Sequence[Condition]:
    """Return the conditions on clients that may decide what a chain drops.

    Args:
        base: The base chain, with its rules.
        chains: Its table's chains that it may reach, by name, with their rules.
    """
    steps = [step for chain in chains.values() for step in chain.steps]
    if base.policy != "drop" and not any(step.verdict in DROPS for step in steps):
        return ()
    return list(dict.fromkeys(one for step in steps for one in step.matches if is_of_client(one)))


def find_denied(
    base: Chain, chains: Mapping[str, Chain], packets: Packets, links: Sequence[PodLink]
) -> dict[Frontend, Denied]:
    """Return, by frontend, the links of pods to which a chain denies it.

    Args:
        base: As for :func:`conditions_on_clients`; so is ``chains``.
        packets: The first packet of a client to each frontend, as the chain sees it.
    """
    links = [one for one in links if has_clients(one)]
    conditions = conditions_on_clients(base, chains)
    values = sum(len(one.values) if isinstance(one, Match) else 1 for one in conditions)
    if not values or values * len(links) >= FOLLOWED_MAX:
        return {}
    kinds = _kinds(conditions, packets, links)
    rules = sum(len(chain.steps) for chain in chains.values())
    if rules * len(kinds) * len(packets) >= FOLLOWED_MAX:
        return {}
    found: dict[Frontend, Denied] = {}
    for frontend, packet in packets.items():
        denied: dict[str, Drop] = {}
        for alike in kinds:
            if drop := find_drop(base, chains, packet._replace(link=alike[0])):
                denied |= dict.fromkeys((link.name for link in alike), drop)
        if names := [link.name for link in sorted(links) if link.name in denied]:
            is_for_all = len(names) == len(links)
            found[frontend] = Denied(_in_words(names), denied[names[0]], is_for_all)
    return found


def _kinds(
    conditions: Sequence[Condition], packets: Packets, links: Sequence[PodLink]
) -> Sequence[Sequence[PodLink]]:
    """Group links that all conditions on clients treat alike."""
    # Besides the client, these conditions depend only on the family.
    samples = {frontend.family: packet for frontend, packet in packets.items()}.values()
    found: dict[tuple[bool | None, ...], list[PodLink]] = {}
    for link in links:
        of_link = [packet._replace(link=link) for packet in samples]
        met = tuple(meets((one,), packet) for packet in of_link for one in conditions)
        found.setdefault(met, []).append(link)
    return list(found.values())


def has_clients(link: PodLink) -> bool:
    """Return whether pods, or other hosts, may dial Services through a link."""
    return bool(link.networks) and not _OF_OTHERS.fullmatch(link.name)


def _in_words(names: Sequence[str]) -> str:
    more = len(names) - _SHOWN_MAX
    first = ", ".join(names[:_SHOWN_MAX])
    if more > 0:
        return f"that come in by {first} and {more} more"
    *most, last = names
    return f"that come in by {', '.join(most)} and {last}" if most else f"that come in by {last}"
