"""Finds other programs' chains that take a frontend's packets away from this proxy.

    client ─▶ prerouting ─▶ translation to the proxy port ─▶ later prerouting, input ─▶ proxy
                │ translate, or drop                            │ drop

The kernel evaluates nat chains in order of priority, and applies the first translation. Chains of
nftables steering have priority -110, before chains of docker, firewalld, iptables and kube-proxy
(-100 and above); iptables steering uses the legacy tables' own chains, at -100. Of chains with the
same priority, the one that was added last comes first (Linux 6.18), and the kernel shows only the
order of their tables. So only a nat chain at or before this priority matters, and ordinary nodes
have none before -100. All nat chains are evaluated at -100, so earlier filter chains see a
frontend's address, and later filter chains the proxy port. With local steering, packets keep the
frontend's address up to the socket: all nat chains come first, and all filter chains on the way in
see it.

Rule 1: packets count as dropped only if this is certain for pods and other hosts, or, by a rule
that names the frontend, for all pods of this node: a firewall may legitimately deny some clients.
Rule 2: rules that may drop or translate packets are listed as not followed. If such a rule names a
frontend, it is unknown whether its clients are answered. If a chain takes all packets of other
hosts to a frontend, or those of some pods, that is unknown for these: perhaps on purpose.
Rule 3: answers to clients have the frontend's address as their source again after the translation
of sources; later chains are followed for the frontends that their rules name as a source.

Source: net/netfilter/core.c, nf_hook_entries_grow(); net/netfilter/nf_nat_core.c,
nf_nat_register_fn().
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from ..errors import SteeringError
from ..model import Frontend, FrontendKind, IPFamily, Taken
from ..model.addresses import is_loopback
from ..policy.locality import PodLink
from .chains import DROPS, Chain, RuleVerdict, Step, Tables
from .following import (
    ALL_NAT,
    FOLLOWED_MAX,
    TRACKING,
    WAY_IN,
    Drop,
    Outcome,
    find_drop,
    follow,
)
from .matches import Match, MatchField
from .node import find_partial_drop, has_clients, hint_of_part
from .packets import FirstPacket, may_be_first, number_of_ip
from .reading import IsOwn, NftReader

_NAT_HOOKS = ("prerouting", "output")
SOURCE_NAT = 100
"""The kernel's priority NF_IP_PRI_NAT_SRC, at which sources are translated, and translated back."""
NEVER = 1 << 31
"""The priority of a proxy that translates nothing: after all chains."""
_WAY_OUT_HOOKS = ("output", "postrouting")


class Translation(NamedTuple):
    """The proxy's translation of a frontend."""

    priority: int = NEVER
    """The priority of the proxy's chain that translates; NEVER if none does."""
    port: int = 0
    """The proxy port; 0 if there is none, for example if the kernel forwards to endpoints."""


class Followed(NamedTuple):
    """A base chain with its rules, and the chains of its table that it may reach."""

    base: Chain
    chains: Mapping[str, Chain]


_NOTHING = -1


class EarlierChains:
    """Other programs' chains before this proxy's chains, in this thread's network namespace.

    Args:
        translation_of: Returns a frontend's current translation.
        is_own: See :class:`.reading.NftReader`.
        read_links: Returns the links of clients.
    """

    def __init__(
        self,
        translation_of: Callable[[Frontend], Translation],
        is_own: IsOwn,
        read_links: Callable[[], Sequence[PodLink]] = tuple,
    ) -> None:
        self._translation_of = translation_of
        self._is_own = is_own
        self._read_links = read_links
        self._reader: NftReader | None = None
        # The generation of the ruleset as of the last check.
        self._seen = _NOTHING
        self._found: dict[Frontend, Taken] = {}
        self._earlier: Sequence[Followed] = ()
        self.filters: Sequence[Followed] = ()
        """The chains that the last check found, for :func:`.endpoints.dropping_chain`."""

    def look(self, frontends: Collection[Frontend]) -> dict[Frontend, Taken]:
        """Return the frontends whose packets another program takes, or may take, with the causes.

        Takes 10 µs if nftables hasn't changed since the last call. If nftables can't be read (the
        kernel lacks it, permission is denied), the result is empty.
        """
        try:
            self._reader = self._reader or NftReader(self._is_own)
            generation = self._reader.generation()
            if generation != self._seen:
                self._found = self._find(self._reader, frontends)
                self._seen = generation
        except SteeringError:
            self.forget()
            self._earlier = self.filters = ()
        return self._found

    def forget(self) -> None:
        """Force the next check to read the chains again, because frontends have changed."""
        self._seen, self._found = _NOTHING, {}

    def close(self) -> None:
        """Close the socket; idempotent."""
        if self._reader is not None:
            self._reader.close()
        self._reader = None

    def unfollowed(self, frontends: Collection[Frontend]) -> list[str]:
        """Describe the rules that may take packets of frontends, as of the last check."""
        found: dict[str, None] = {}
        for chain, chains in self._earlier:
            if not chain.is_read:
                found[f"chain {chain}, {chain.listing}"] = None
            places = [(one, self._translation_of(one)) for one in frontends]
            most = FOLLOWED_MAX // max(1, _count(chains))
            for frontend, to in places[:most]:
                if frontend.family in chain.table.families:
                    found[_unfollowed(chain, chains, frontend, to)] = None
        return list(filter(None, found))

    def _find(self, reader: NftReader, frontends: Collection[Frontend]) -> dict[Frontend, Taken]:
        tables = reader.chains()

        @functools.cache
        def followed(base: Chain) -> Followed:
            chains = reader.reached(tables[base.table], base)
            return Followed(chains[base.name], chains)

        self.filters = [
            followed(base)
            for base in _others(tables)
            if (base.kind in ("filter", "route") and base.hook in (*WAY_IN, *_WAY_OUT_HOOKS))
            or (base.kind == "nat" and base.hook == "output")
        ]
        found: dict[Frontend, Taken] = {}
        translations = {frontend: self._translation_of(frontend) for frontend in frontends}
        last = max((t.priority for t in translations.values()), default=-NEVER)
        self._earlier = [followed(base) for base in chains_before(tables, last)]
        perhaps: dict[Frontend, Taken] = {}
        links_of_clients = functools.cache(self._read_links)
        pods = functools.cache(lambda: [*filter(_has_pods, links_of_clients())])
        uplinks = functools.cache(lambda: [one for one in links_of_clients() if one.is_uplink])
        for chain, chains in self._earlier:
            families = chain.table.families
            places = [(f, to) for f, to in translations.items() if f.family in families]
            for frontend, to in places_to_follow(chain, chains, places):
                if cause := explain_chain(chain, chains, frontend, to):
                    found[frontend] = cause
            for frontend, to in places_outside(chain, chains, places):
                if frontend in found:
                    continue
                of = [one for one in uplinks() if _has_family(one, frontend.family)]
                if cause := explain_chain(chain, chains, frontend, to, of):
                    perhaps[frontend] = replace(cause, is_certain=False)
            named = [place for place in named_places(chains, places) if place[0] not in found]
            links = pods() if named else []
            most = FOLLOWED_MAX // (_count(chains) + _RULES_PER_CALL)
            if len(named) * (len(links) + _CALLS) > most:
                links = []
            for frontend, to in named if len(named) * _CALLS <= most else ():
                of = [one for one in links if _has_family(one, frontend.family)]
                if cause := explain_chain(chain, chains, frontend, to, of):
                    found[frontend] = cause
                elif doubt := doubt_of(chain, chains, frontend, to, of, FOLLOWED_MAX // len(named)):
                    perhaps.setdefault(frontend, doubt)
        answers = dict(_taken_answers(self.filters, translations, pods))
        certain = {f: cause for f, cause in answers.items() if cause.is_certain}
        return answers | perhaps | certain | found


Places = Sequence[tuple[Frontend, Translation]]


def chains_before(tables: Tables, last: int) -> Iterator[Chain]:
    """Yield chains of other programs that may take packets before the proxy receives them.

    Args:
        last: The greatest priority of the proxy's nat chains, or :data:`NEVER`.
    """
    for chain in _others(tables):
        if chain.kind == "nat" and chain.hook in _NAT_HOOKS and chain.priority <= last:
            yield chain
        if chain.kind == "filter" and chain.hook in WAY_IN:
            yield chain


def _others(tables: Tables) -> Iterator[Chain]:
    """Yield the chains of tables that receive IP packets."""
    return (one for table in tables if table.families for one in tables[table].values())


def first_packets(
    chain: Chain, frontend: Frontend, translation: Translation
) -> Sequence[FirstPacket]:
    """Return a connection's first packets as a filter chain sees them.

    These are the first packet from a pod or another host, and the first packet from this node. The
    result is empty if the chain sees neither, or only after DNAT to an endpoint. The packet from
    this node is missing if the chain doesn't see it, or sees it with another address.
    """
    # Only this node's own programs can dial a loopback address.
    others = FirstPacket(frontend, is_own=is_loopback(frontend.ip))
    if translation.priority == NEVER:
        return others, FirstPacket(frontend, is_own=True)
    # The node's own packets are translated on output, and arrive on the loopback interface.
    port = translation.port
    own = [FirstPacket(frontend, port, is_own=True)] if port else []
    if chain.hook == "prerouting" and chain.priority < ALL_NAT:
        return others, *own
    is_after = chain.hook == "input" or chain.priority > ALL_NAT
    return (others._replace(port=port), *own) if port and is_after else ()


def places_to_follow(
    base: Chain, chains: Mapping[str, Chain], places: Places
) -> Sequence[tuple[Frontend, Translation]]:
    """Return the frontends for which a chain must be followed.

    These are all frontends whose packets the chain may take; if following all would take too long,
    only frontends that the chain's rules may mention; none if these are still too many.
    """
    steps = [step for chain in chains.values() for step in chain.steps]
    if base.kind == "nat":
        may = any(step.verdict in (RuleVerdict.TRANSLATE, RuleVerdict.MAP) for step in steps)
        return places if may else ()
    is_for_all = base.policy == "drop" or any(
        step.verdict in (*DROPS, RuleVerdict.NOTRACK) and may_be_first(step.matches)
        for step in steps
    )
    if not is_for_all:
        return ()
    if len(steps) * len(places) < FOLLOWED_MAX:
        return places
    return named_places(chains, places)


def places_outside(base: Chain, chains: Mapping[str, Chain], places: Places) -> Places:
    """Return the frontends that other hosts dial, if a chain may take these hosts' packets.

    The result is empty if following the frontends would take too long.
    """
    takes = DROPS if base.kind == "filter" else (RuleVerdict.TRANSLATE, RuleVerdict.MAP)
    steps = [step for chain in chains.values() for step in chain.steps]
    if base.policy != "drop" and not any(step.verdict in takes for step in steps):
        return ()
    outside = [
        (frontend, to)
        for frontend, to in places
        if frontend.kind is not FrontendKind.CLUSTER_IP and not is_loopback(frontend.ip)
    ]
    return outside if (len(steps) + _RULES_PER_CALL) * len(outside) < FOLLOWED_MAX else ()


def named_places(chains: Mapping[str, Chain], places: Places, *, is_answer: bool = False) -> Places:
    """Return the frontends that rules name by their address, or by their node port.

    The result is empty if following the frontends would take too long.

    Args:
        is_answer: Whether the frontends are the sources of the packets.
    """
    steps = [step for chain in chains.values() for step in chain.steps]
    matches = [one for step in steps for one in step.matches if isinstance(one, Match)]
    ip = MatchField.SOURCE if is_answer else MatchField.DESTINATION
    port = MatchField.SOURCE_PORT if is_answer else MatchField.DESTINATION_PORT
    to_ip = [m for m in matches if m.field in (ip, MatchField.DIALLED_ADDRESS)]
    ports = [m for m in matches if m.field in (port, MatchField.DIALLED_PORT)]
    networks = [network for match in to_ip for network in match.networks]
    # Cost: comparing thousands of frontends as text takes a hundredth of parsing their addresses.
    ips = {str(one.network_address) for one in networks if one.num_addresses == 1}
    ranges = Match(MatchField.DESTINATION, tuple(n for n in networks if n.num_addresses > 1))
    named = [
        (frontend, to)
        for frontend, to in places
        if frontend.ip in ips
        or (ranges.values and ranges.has(number_of_ip(frontend.ip)))
        or (
            frontend.kind is FrontendKind.NODE_PORT
            and any(match.has(frontend.port) for match in ports)
        )
    ]
    return named if len(steps) * len(named) < FOLLOWED_MAX else ()


def explain_chain(
    chain: Chain,
    chains: Mapping[str, Chain],
    frontend: Frontend,
    translation: Translation,
    links: Sequence[PodLink] = (),
) -> Taken | None:
    """Return how a chain takes a frontend's packets, and the remedy; None if it doesn't.

    Args:
        chain: The chain, with its rules.
        chains: See :func:`follow`.
        links: The links of this node's pods, or its uplinks; with any, chains that take only the
            packets of all pods, or of all other hosts, count, too.
    """

    def found(what: str, hint: str) -> Taken:
        return Taken(f"{chain.described} {what}", hint, str(chain))

    def whose(takes: Callable[[FirstPacket], object], packet: FirstPacket) -> str | None:
        """Return whose packets are certainly taken: "" for all clients, None if it is unknown."""
        if takes(packet):
            return ""
        if packet.is_own or not links or not all(takes(packet._replace(link=a)) for a in links):
            return None
        return " from other hosts" if links[0].is_uplink else " from this node's pods"

    priority, first = translation.priority, FirstPacket(frontend)
    if chain.kind == "filter":
        drops = functools.partial(find_drop, chain, chains)
        packets = first_packets(chain, frontend, translation)
        if packets and (of := whose(drops, packets[0])) is not None:
            is_all = of or any(map(drops, packets[1:]))
            besides = of if is_all else ", except those of this node's own programs"
            return found(f"drops packets to it{besides}", _ADMIT if packets[0].port else _WAY_OUT)
        is_before = chain.hook == "prerouting" and chain.priority < TRACKING and priority != NEVER
        if is_before and follow(chain, chains, first, "untracked").is_certain:
            return found(*_UNTRACKED)
        return None
    of = whose(lambda packet: follow(chain, chains, packet, "nat").is_certain, first)
    # Only a chain before this proxy's chain certainly translates first.
    if of is None or not translates_first(chain, priority):
        return None
    does = f"translates packets to it{of}" if of else "translates it"
    if priority == NEVER:
        return found(f"{does} before packets reach this proxy", "delete that rule")
    hint = f"delete that rule, or give the chain a priority above {priority}"
    return found(f"{does} before this proxy does", hint)


def translates_first(chain: Chain, priority: int) -> bool:
    """Return whether a nat chain certainly comes before this proxy's chain with a priority.

    The order of this proxy's legacy chains, at :data:`ALL_NAT`, among others is unknown.
    """
    is_first = chain.is_newer and chain.priority != ALL_NAT
    return chain.priority < priority or (chain.priority == priority and is_first)


def doubt_of(
    chain: Chain,
    chains: Mapping[str, Chain],
    frontend: Frontend,
    translation: Translation,
    links: Sequence[PodLink] = (),
    most: int = FOLLOWED_MAX,
) -> Taken | None:
    """Return the rule that may take a frontend's packets; None if there is no such rule.

    Args:
        links: The links of this node's pods.
        most: See :func:`.find_partial_drop`.
    """
    packets = first_packets(chain, frontend, translation) if chain.kind == "filter" else ()
    if drop := find_partial_drop(chain, chains, packets[:1], links, most):
        what = f"{chain.described} drops packets to it: {drop}"
        return Taken(what, hint_of_part(drop), str(chain), is_certain=False)
    outcome = _outcome(chain, chains, frontend, translation)
    is_nat = chain.kind == "nat"
    is_tie = is_nat and not translates_first(chain, translation.priority)
    is_late = is_nat and chain.priority > translation.priority
    if outcome is None or outcome.by is None or is_late or (outcome.is_certain and not is_tie):
        return None
    does = "translate" if is_nat else "drop"
    return _perhaps(chain, f"{does} packets to it", outcome.by)


def _taken_answers(
    filters: Sequence[Followed],
    translations: Mapping[Frontend, Translation],
    pods: Callable[[], Sequence[PodLink]],
) -> Iterator[tuple[Frontend, Taken]]:
    """Yield the frontends that rules name as the source of answers, and how these are dropped."""
    for chain, chains in filters:
        if chain.kind != "filter" or chain.hook not in _WAY_OUT_HOOKS:
            continue
        families = chain.table.families
        places = [
            (f, to)
            for f, to in translations.items()
            if f.family in families and sees_answers(chain, to)
        ]
        for frontend, _ in named_places(chains, places, is_answer=True):
            of = [one for one in pods() if _has_family(one, frontend.family)]
            if cause := explain_answers(chain, chains, frontend, of):
                yield frontend, cause


def sees_answers(chain: Chain, translation: Translation) -> bool:
    """Return whether a chain sees answers to clients with a frontend's address as their source.

    The kernel translates their source back at the priority at which it translates sources.

    Args:
        chain: A filter chain on the way out.
    """
    is_late = chain.hook == "postrouting" and chain.priority > SOURCE_NAT
    return is_late or translation.priority == NEVER


def explain_answers(
    chain: Chain, chains: Mapping[str, Chain], frontend: Frontend, links: Sequence[PodLink]
) -> Taken | None:
    """Return how a chain drops, or may drop, a frontend's answers to clients; None if it doesn't.

    Args:
        chain: A chain of which :func:`sees_answers` is true, with its rules.
        chains: See :func:`follow`.
        links: The links of this node's pods.
    """
    answer = FirstPacket(frontend, is_answer=True, is_forwarded=True)
    to_pods = [answer._replace(way_out=link) for link in links]
    for packets, whose in (([answer], ""), (to_pods, " to this node's pods")):
        if packets and all(find_drop(chain, chains, one) for one in packets):
            return Taken(f"{chain.described} drops its answers{whose}", _WAY_OUT, str(chain))
    # Rules for an uplink may keep ClusterIPs from leaving the node: their clients are pods.
    packets = to_pods if to_pods and frontend.kind is FrontendKind.CLUSTER_IP else [answer]
    by = next(filter(None, (follow(chain, chains, one, "filter").by for one in packets)), None)
    return None if by is None else _perhaps(chain, "drop its answers", by)


def _perhaps(chain: Chain, does: str, by: tuple[Chain, Step]) -> Taken:
    """Return that a chain may do something, by the rule ``by``, with the remedy."""
    what = f"{chain.described} may {does}: {Drop(chain, *by)}"
    hint = f"delete that rule if it takes clients' packets, {by[0].listing}"
    return Taken(what, hint, str(chain), is_certain=False)


def _unfollowed(
    chain: Chain, chains: Mapping[str, Chain], frontend: Frontend, translation: Translation
) -> str:
    """Describe the rule that may take a frontend's packets; empty if there is no such rule."""
    outcome = _outcome(chain, chains, frontend, translation)
    return outcome.unfollowed if outcome else ""


def _outcome(
    chain: Chain, chains: Mapping[str, Chain], frontend: Frontend, translation: Translation
) -> Outcome | None:
    """Return the effect on a client that no rule names; None if the chain sees no such packet."""
    first = (
        (FirstPacket(frontend),)
        if chain.kind == "nat"
        else first_packets(chain, frontend, translation)
    )
    return follow(chain, chains, first[0]._replace(is_other=True), chain.kind) if first else None


def _count(chains: Mapping[str, Chain]) -> int:
    return sum(len(chain.steps) for chain in chains.values())


def _has_pods(link: PodLink) -> bool:
    return has_clients(link) and not link.is_uplink


def _has_family(link: PodLink, family: IPFamily) -> bool:
    return any(network.version == family for network in link.networks)


# A frontend that rules name costs about four walks of a chain, each 36 µs plus time for its rules.
_CALLS, _RULES_PER_CALL = 4, 30
_WAY_OUT = "accept them in that chain, or delete what drops them"
_UNTRACKED = (
    "keeps packets to it from being tracked (notrack), so that they aren't translated",
    "accept them in that chain before that rule, or delete it",
)
_ADMIT = (
    "insert the rules `ct status dnat accept` and `ct state established accept` in that chain, or "
    "delete what drops them"
)
