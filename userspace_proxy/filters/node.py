"""Finds firewalls of other programs that would drop steered packets, or replies; pure.

    client ─▶ frontend ─▶ translation ─▶ INPUT: own chain accepts ─▶ INPUT of others: each may drop
    endpoint's reply to the proxy ─────▶ INPUT of all ────────────▶ likewise
    the proxy's answer to a client ────▶ OUTPUT, POSTROUTING of all ▶ likewise

An ``accept`` is final only in its own table; other tables are evaluated anyway. This proxy's legacy
chains come first in ``filter``, but decide only for that table; its nftables chain decides only for
its own table. Neither accepts endpoints' replies.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_network
from itertools import takewhile
from typing import TypeVar

from ..kernel.interfaces import is_local
from ..model import Frontend, IPFamily, Protocol
from ..model.quoting import shell_command
from ..policy.locality import PodLink
from .chains import Chain, ChainTable, Tables, base_chains
from .following import ALL_NAT, FOLLOWED_MAX, SOURCE_NAT, WAY_OUT, WAYS, Drop, find_drop, follow
from .matches import Match, MatchField, ends_of, states
from .packets import ANY_IP, FirstPacket

Chains = Mapping[str, Chain]
Judged = TypeVar("Judged")

FIREWALLD = ChainTable("inet", "firewalld")
_TRANSLATED = states(["dnat"])
# The match for packets whose socket is transparent, as the listeners' sockets are.
_TRANSPARENT = Match(MatchField.TRANSPARENT_SOCKET)


@dataclass(frozen=True, slots=True)
class Firewall:
    """A chain of another program that drops clients' packets, answers, or endpoints' replies."""

    chain: str
    """Family, table and chain."""
    why: str
    """The cause: a rule, or the chain's policy."""
    hint: str
    """Commands or a setting that admit all dropped packets."""
    family: IPFamily | None = None
    """The packets' family; None for both."""
    is_for_all: bool = True
    """Whether it drops packets of all pods, or all answers; otherwise only some packets."""
    is_of_answers: bool = False
    """Whether it drops the proxy's answers to clients."""
    protocol: Protocol | None = None
    """The packets' protocol; None for both."""


def find_firewalls(
    nft: Tables,
    legacy: Tables,
    steering: str,
    proxy_ports: tuple[int, int],
    links: Sequence[PodLink] = (),
) -> list[Firewall]:
    """Return the chains that drop some or all steered packets, replies to the proxy, or answers.

    Args:
        nft: nftables chains, with the rules that :func:`.reading.read_chains` reads.
        legacy: The legacy ``filter`` table, from :func:`..steering.iptables.read_legacy`.
        links: The links of the clients.
    """
    if steering in ("none", ""):
        return []
    pods = [link for link in links if not link.is_uplink]
    ports = (0,) if steering == "local" else proxy_ports

    def judge(base: Chain, chains: Chains, family: IPFamily) -> Firewall | None:
        is_out = base.hook in WAY_OUT
        only = family if len(base.table.families) == 1 else None
        found: dict[Protocol, tuple[Drop | None, Drop | None]] = {}
        parts: dict[Protocol, Sequence[FirstPacket]] = {}
        for one in Protocol:
            first, reply = _packets_at(base, steering, ports, Frontend(ANY_IP[family], 0, one))
            parts[one] = reply if is_out else first
            whose = _TO_PODS if is_out else _OF_PODS
            dropped = _drop_at_all_ports(base, chains, first, pods, whose)
            answers = _drop_at_all_ports(base, chains, reply, pods, whose)
            if dropped or answers:
                found[one] = dropped, answers
        if not found:
            partial = {one: find_partial_drop(base, chains, parts[one], pods) for one in parts}
            of = [(one, drop) for one, drop in partial.items() if drop is not None]
            if not of:
                return None
            protocol, some = of[0] if len(of) == 1 else (None, of[0][1])
            hint = hint_of_part(some)
            return Firewall(str(base), str(some), hint, only, False, is_out, protocol)
        dropped, answers = next(iter(found.values()))
        protocol = next(iter(found)) if len(found) == 1 else None
        drop = dropped or answers
        assert drop is not None
        to_clients = "" if drop.whose else _TO_CLIENTS
        why = f"{drop}{to_clients if is_out else '' if dropped else _ANSWERS}"
        why += f", only {protocol}" if protocol and drop.rule is None else ""
        drops = hint_of(base, steering, drops_first=bool(dropped), drops_replies=bool(answers))
        is_early = base.hook == "prerouting" and base.priority <= ALL_NAT
        hint = _OF_CALICO if drop.place.name == _CALICO else drop_hint(base) if is_early else drops
        return Firewall(str(base), why, hint, only, is_of_answers=is_out, protocol=protocol)

    return [one for hook in WAYS for one in judged((nft, legacy), hook, judge)]


def _drop_at_all_ports(
    base: Chain,
    chains: Chains,
    packets: Sequence[FirstPacket],
    links: Sequence[PodLink],
    whose: str,
) -> Drop | None:
    """Return what drops the packets with the first and with the last proxy port; or None.

    A legacy chain that drops either is reported, too: only nftables chains are followed for each
    frontend.
    """
    drops = [find_first_drop(base, chains, [one], links, whose) for one in packets]
    found = [drop for drop in drops if drop is not None]
    return found[0] if found and (base.table.is_legacy or len(found) == len(drops)) else None


def _packets_at(
    base: Chain, steering: str, ports: Sequence[int], frontend: Frontend
) -> tuple[list[FirstPacket], list[FirstPacket]]:
    """Return clients' packets and answers as a chain sees them.

    Args:
        ports: The first and the last proxy port; 0 if packets aren't translated.
        frontend: Any frontend of a family and protocol.
    """
    if base.hook in WAY_OUT:
        is_late = base.hook == "postrouting" and base.priority >= SOURCE_NAT
        answer = FirstPacket(frontend, is_answer=True, is_to_client=True)
        answer = answer._replace(is_forwarded=is_late and any(ports))
        return [], [answer._replace(port=port) for port in ((0,) if is_late else ports)]
    # The proxy's legacy chains accept steered packets before other rules in that table, so only
    # replies can be dropped there.
    is_open = steering == "iptables" and base.table[1:] == ("filter", True)
    is_early = base.hook == "prerouting" and base.priority <= ALL_NAT
    known = () if is_open else (0,) if is_early else ports
    return [FirstPacket(frontend, at) for at in known], [FirstPacket(frontend, is_answer=True)]


def find_unfollowed(nft: Tables, legacy: Tables, hook: str) -> list[str]:
    """Describe the rules at a hook that may drop packets of all clients.

    These have an unknown condition, or jump to a chain that couldn't be read. At the hook
    ``forward``, a policy that drops packets is also described.
    """

    def judge(base: Chain, chains: Chains, family: IPFamily) -> str | None:
        if not base.is_read:
            return f"chain {base}, {base.listing}"
        packet = FirstPacket(
            Frontend(ANY_IP[family], 0, Protocol.TCP),
            int(hook == "input"),
            is_other=True,
            is_forwarded=hook == "forward",
        )
        outcome = follow(base, chains, packet, "filter")
        if outcome.by:
            return outcome.unfollowed
        is_policy = packet.is_forwarded and outcome.back and base.policy == "drop"
        return f"chain {base}, its policy drop, {base.listing}" if is_policy else None

    return list(judged((nft, legacy), hook, judge))


def judged(
    all_tables: Iterable[Tables],
    hook: str,
    judge: Callable[[Chain, Chains, IPFamily], Judged | None],
) -> Iterator[Judged]:
    """Yield the first finding of ``judge`` about each chain at a hook, in the families' order."""
    for tables in all_tables:
        for chain in base_chains(tables, kind="filter", hook=hook):
            families = chain.table.families
            judged = (judge(chain, tables[chain.table], one) for one in families)
            if found := next(filter(None, judged), None):
                yield found


def find_first_drop(
    base: Chain,
    chains: Chains,
    packets: Sequence[FirstPacket],
    links: Sequence[PodLink],
    whose: str = "",
) -> Drop | None:
    """Return the rule or policy that drops packets of all clients, or of all clients behind links.

    The result is None if there is no such rule or policy.

    Args:
        links: The links; ignored if following their packets would take too long.
        whose: The clients behind the links, as the end of a sentence.
    """
    for packet in packets:
        if drop := find_drop(base, chains, packet):
            return drop
    links = [link for link in links if has_clients(link)]
    if len(links) * sum(len(chain.steps) for chain in chains.values()) >= FOLLOWED_MAX:
        return None
    for packet in packets:
        by_link = (find_drop(base, chains, packet.of(link)) for link in links)
        drops = list(takewhile(bool, by_link))
        if drops and len(drops) == len(links) and drops[0]:
            return drops[0]._replace(whose=whose)
    return None


def find_partial_drop(
    base: Chain,
    chains: Chains,
    packets: Sequence[FirstPacket],
    links: Sequence[PodLink],
    most: int = FOLLOWED_MAX,
) -> Drop | None:
    """Return what drops packets of some pods, at random or at a limit; None if nothing does.

    Args:
        most: The maximum number of rules × packets of pods to follow; above it, none is followed.
    """
    steps = [step for chain in chains.values() for step in chain.steps]
    matches = [one for step in steps for one in step.matches if isinstance(one, Match)]
    is_out = base.hook in WAY_OUT
    address = MatchField.DESTINATION if is_out else MatchField.SOURCE
    way = MatchField.WAY_OUT if is_out else MatchField.WAY_IN
    spans = {end for one in matches if one.field is address for end in one.ends}
    by_link = any(one.field is way for one in matches)
    pods = [
        pod for one in filter(has_clients, links) for pod in _pods_of(one, spans, has_names=by_link)
    ]
    some = _TO_SOME if is_out else _OF_SOME
    parts = [(one.of(pod), f"{some}{pod.networks[0][0]}") for one in packets for pod in pods]
    if len(parts) * len(steps) >= most:
        parts = []
    if any(one.field is MatchField.DRAWN for one in matches):
        draws = (one._replace(is_drawn=drawn) for one in packets for drawn in (True, False))
        parts += [(one, _AT_RANDOM) for one in draws]
    if any(one.field is MatchField.LIMIT for one in matches):
        behind = [*filter(has_clients, links)] if len(links) * len(steps) < most else []
        whole = [each for one in packets for each in (one, *map(one.of, behind))]
        parts += [
            (one._replace(is_limited=met), _AT_LIMIT) for one in whole for met in (True, False)
        ]
    drops = (drop._replace(whose=of) for one, of in parts if (drop := find_drop(base, chains, one)))
    return next(drops, None)


def _pods_of(
    link: PodLink, spans: Collection[tuple[int, int]], *, has_names: bool
) -> Iterator[PodLink]:
    """Yield the link with one pod's address, for each part of its networks that rules distinguish.

    Args:
        spans: The first and last address of each source that rules name.
        has_names: Whether rules name links.
    """
    for network in link.networks:
        start, end = ends_of(network)
        # The first and the last address of a network are never addresses of pods.
        first, last = (start + 1, end - 1) if end - start > 1 else (start, end)
        inside = [(a, b) for a, b in spans if first <= b and a <= last]
        if first != last:
            inside = [(a, b) for a, b in inside if first < a or b < last]
        begins = {first, *(a for a, _ in inside), *(b + 1 for _, b in inside)}
        for at in sorted(begins) if inside or (has_names and first == last) else ():
            if first <= at <= last and not is_local(str(pod := network[at - start])):
                yield link._replace(networks=(ip_network(pod),))


def has_clients(link: PodLink) -> bool:
    """Return whether pods, or other hosts, may dial Services through a link.

    No pod is behind a link without a route: it is a port of a bridge, or a network plugin uses it.
    Bridges of container engines and hypervisors have no pods.
    """
    return bool(link.networks) and not _OF_OTHERS.fullmatch(link.name)


_OF_OTHERS = re.compile(
    r"docker(\d+|_gwbridge)|br-[\da-f]{12}|(cni-)?podman\d*|(vmbr|virbr|lxcbr|lxdbr|incusbr)\d+"
)
_OF_PODS = ", for packets of this node's pods"
_TO_PODS = ", for answers to this node's pods"
_OF_SOME = ", for packets of some of this node's pods, for example "
_TO_SOME = ", for answers to some of this node's pods, for example "
_AT_RANDOM = ", for some packets"
_AT_LIMIT = ", for packets beyond a limit"
_ANSWERS = ", for endpoints' answers to the proxy"
_TO_CLIENTS = ", for the proxy's answers to clients"
_CALICO = "cali-wl-to-host"
_OF_CALICO = (
    "Set defaultEndpointToHostAction of Calico's FelixConfiguration to Accept (environment: "
    "FELIX_DEFAULTENDPOINTTOHOSTACTION)"
)


def drop_hint(chain: Chain, instead: str = "accept them first in that chain") -> str:
    """Return the remedy of a chain that certainly drops packets."""
    return f"Delete what drops these packets, {chain.listing}, or {instead}"


def hint_of_part(drop: Drop) -> str:
    """Return the remedy of a drop that affects only some packets, and may be intended."""
    return f"Change it if these clients may use Services, {drop.place.listing}"


def hint_of(
    chain: Chain, steering: str, *, drops_first: bool = True, drops_replies: bool = True
) -> str:
    """Return commands or a setting that make a chain admit packets."""
    if chain.table == FIREWALLD and steering != "local" and not drops_replies:
        return "Update firewalld to 0.9 or later, which accepts translated packets"
    if chain.table.is_legacy:
        prefix, suffix = chain.legacy_command("-I"), "-j ACCEPT"
        translated, transparent = "-m conntrack --ctstate DNAT", "-m socket --transparent"
        replies = "-m conntrack --ctstate ESTABLISHED,RELATED"
    else:
        place = (*chain.table[:2], chain.name)
        prefix, suffix = shell_command("nft", "insert", "rule", *place), "accept"
        translated, transparent = str(_TRANSLATED), f"{_TRANSPARENT} 1"
        replies = "ct state established,related"
    wanted = [transparent if steering == "local" else translated] if drops_first else []
    wanted += [replies] if drops_replies else []
    return "; ".join(f"{prefix} {condition} {suffix}" for condition in wanted)
