"""Finds the links of this node's pods whose packets to frontends a chain drops; pure.

    iifname cali1 ct state new drop ─▶ pods behind cali1
    ip saddr 10.244.0.0/16 drop     ─▶ pods behind each link that such addresses are routed to
    iifname eth0 accept, then drop  ─▶ pods behind all links
    iifname eth0 drop               ─▶ none: a closed uplink is what most hardened nodes have

Where a client comes from is known only of pods: by the link that leads to them, and by the networks
that are routed to it. So rules about other links and sources aren't decided (``denied_clients``
names those that name a frontend), and lists of attackers are no reason for an alarm.

Rule 1: a chain is followed once for all links about which its rules say the same.
Rule 2: bridges of container engines and hypervisors have no pods: firewalls close them to the node.
Rule 3: a link without a route leads to no pod: it is a port of a bridge, whose packets come in by
that, or is used by a network plugin itself.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from ..model import Frontend
from ..policy.locality import PodLink
from .chains import DROPS, Chain
from .following import FOLLOWED_MAX, Drop, find_drop
from .matches import Match
from .packets import FirstPacket, is_of_client, meets

_OF_OTHERS = re.compile(
    r"docker(\d+|_gwbridge)|br-[\da-f]{12}|(cni-)?podman\d*|(vmbr|virbr|lxcbr|lxdbr|incusbr)\d+"
)
_SHOWN_MAX = 3

Packets = Mapping[Frontend, FirstPacket]


class DeniedPods:
    """The pods of this node that one chain denies frontends.

    Args:
        base: The chain that the kernel calls, with its rules.
        chains: Those of its table that it may lead to, by name, with their rules.
    """

    def __init__(self, base: Chain, chains: Mapping[str, Chain]) -> None:
        self._base = base
        self._chains = chains
        steps = [step for chain in chains.values() for step in chain.steps]
        found = {one: None for step in steps for one in step.matches if is_of_client(one)}
        is_dropping = base.policy == "drop" or any(step.verdict in DROPS for step in steps)
        self._conditions = list(found) if is_dropping else []
        self._rules = len(steps)

    @property
    def depends_on_links(self) -> bool:
        """Whether what it drops may depend on the client."""
        return bool(self._conditions)

    def dropped(
        self, packets: Packets, links: Sequence[PodLink]
    ) -> dict[Frontend, tuple[str, Drop, bool]]:
        """Return the links whose pods are denied a frontend, in words, by what, and if all are.

        As ``that come in by cali1`` after "packets to it".

        Args:
            packets: The first packet of a client to each frontend, as the chain sees it.
        """
        links = [one for one in links if has_clients(one)]
        values = sum(len(one.values) if isinstance(one, Match) else 1 for one in self._conditions)
        if not values or values * len(links) >= FOLLOWED_MAX:
            return {}
        kinds = self._kinds(packets, links)
        if self._rules * len(kinds) * len(packets) >= FOLLOWED_MAX:
            return {}
        found: dict[Frontend, tuple[str, Drop, bool]] = {}
        for frontend, packet in packets.items():
            denied: dict[str, Drop] = {}
            for alike in kinds:
                asked = packet._replace(link=alike[0])
                if drop := find_drop(self._base, self._chains, asked):
                    denied |= dict.fromkeys((link.name for link in alike), drop)
            if denied:
                names = [link.name for link in sorted(links) if link.name in denied]
                is_for_all = len(names) == len(links)
                found[frontend] = _in_words(names), denied[names[0]], is_for_all
        return found

    def _kinds(self, packets: Packets, links: Sequence[PodLink]) -> Sequence[Sequence[PodLink]]:
        """Return links, together those about which all conditions on clients say the same."""
        # Beside the client only the family decides about them.
        samples = {frontend.family: packet for frontend, packet in packets.items()}.values()
        found: dict[tuple[bool | None, ...], list[PodLink]] = {}
        for link in links:
            of_link = [packet._replace(link=link) for packet in samples]
            met = tuple(meets((one,), packet) for packet in of_link for one in self._conditions)
            found.setdefault(met, []).append(link)
        return list(found.values())


def has_clients(link: PodLink) -> bool:
    """Return whether pods, or other hosts, may dial Services by a link."""
    return bool(link.networks) and not _OF_OTHERS.fullmatch(link.name)


def _in_words(names: Sequence[str]) -> str:
    more = len(names) - _SHOWN_MAX
    first = ", ".join(names[:_SHOWN_MAX])
    if more > 0:
        return f"that come in by {first} and {more} more"
    *most, last = names
    return f"that come in by {', '.join(most)} and {last}" if most else f"that come in by {last}"
