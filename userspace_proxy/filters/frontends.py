"""Finds other programs' chains that take a frontend's packets away from this proxy.

    client ─▶ prerouting ─▶ translation to the proxy port ─▶ later prerouting, input ─▶ proxy
                │ translate, or drop                            │ drop

The kernel evaluates nat chains in order of priority, and applies the first translation. Chains of
nftables steering have priority -110 (the kernel path: -111), before chains of docker, firewalld,
iptables and kube-proxy (-100 and above); iptables steering uses the legacy tables' own chains, at
-100. Of chains with the same priority, the one that was added last comes first (Linux 6.18), and
the kernel shows only the order of their tables. So only a nat chain at or before the proxy's
priority matters, and ordinary nodes have none before -100. All nat chains are evaluated at -100, so
earlier filter chains see a frontend's address, and later filter chains the proxy port. With local
steering, packets keep the frontend's address up to the socket: all nat chains come first, and all
filter chains on the way in see it.

Rule 1: packets count as dropped only if this is certain for pods and other hosts, or, by a rule
that names the frontend or its port, for all pods of this node: a firewall may deny some clients.
Rule 2: rules that may drop or translate packets are listed as not followed. If such a rule names a
frontend, it is unknown whether its clients are answered. If a chain takes all packets to a
frontend that come from other hosts, or from some pods, it is also unknown: it may be intended.
Rule 3: chains on the way out are followed with the answers to clients. Until the kernel translates
their source back to the frontend's address, at postrouting, it is the proxy port.

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
from .chains import DROPS, LEADS, Chain, RuleVerdict, Tables
from .following import (
    ALL_NAT,
    FOLLOWED_MAX,
    SOURCE_NAT,
    TRACKING,
    WAY_OUT,
    WAYS,
    Drop,
    Outcome,
    find_drop,
    follow,
)
from .matches import Match, MatchField, ends_of
from .node import drop_hint, find_partial_drop, has_clients, hint_of_part
from .packets import FirstPacket, may_be_first, number_of_ip
from .reading import IsOwn, NftReader

_NAT_HOOKS = ("prerouting", "output")
NEVER = 1 << 31
"""The priority of a proxy that translates nothing: after all chains."""


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
        self._legacy: Tables = {}
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

    def take_legacy(self, tables: Tables) -> None:
        """Replace the legacy tables whose chains are followed; another reader reads them."""
        if tables != self._legacy:
            self._legacy = tables
            self.forget()

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
                    outcome = _outcome(chain, chains, frontend, to)
                    found[outcome.unfollowed if outcome else ""] = None
        return list(filter(None, found))

    def _find(self, reader: NftReader, frontends: Collection[Frontend]) -> dict[Frontend, Taken]:
        tables = {**reader.chains(), **self._legacy}

        @functools.cache
        def followed(base: Chain) -> Followed:
            if base.table.is_legacy:
                return Followed(base, tables[base.table])
            chains = reader.reached(tables[base.table], base)
            return Followed(chains[base.name], chains)

        self.filters = [
            followed(base)
            for base in _others(tables)
            if (base.kind == "filter" and base.hook in WAYS)
            or (base.kind == "nat" and base.hook in WAY_OUT)
        ]
        found: dict[Frontend, Taken] = {}
        translations = {frontend: self._translation_of(frontend) for frontend in frontends}
        last = max((t.priority for t in translations.values()), default=-NEVER)
        self._earlier = [followed(base) for base in chains_before(tables, last)]
        perhaps: dict[Frontend, Taken] = {}
        links_of_clients = functools.cache(self._read_links)
        pods = functools.cache(lambda: [*filter(has_pods, links_of_clients())])
        uplinks = functools.cache(lambda: [one for one in links_of_clients() if one.is_uplink])
        for chain, chains in self._earlier:
            families = chain.table.families
            places = [(f, to) for f, to in translations.items() if f.family in families]
            for frontend, to in places_to_follow(chain, chains, places):
                if cause := explain_chain(chain, chains, frontend, to, others=self._earlier):
                    found[frontend] = cause
            outside = places_outside(chain, chains, places)
            is_other = bool(outside) and names_only_pods(chains, pods())
            for frontend, to in outside:
                if frontend in found:
                    continue
                of = [one for one in uplinks() if _has_family(one, frontend.family)]
                if cause := explain_chain(chain, chains, frontend, to, of, is_other=is_other):
                    perhaps[frontend] = replace(cause, is_certain=False)
            places = [at for at in places if at[0] not in found]
            for frontend, cause in _taken_by_name(chain, chains, places, pods):
                if cause.is_certain:
                    found[frontend] = cause
                else:
                    perhaps.setdefault(frontend, cause)
        return perhaps | found


Places = Sequence[tuple[Frontend, Translation]]


def chains_before(tables: Tables, last: int) -> Iterator[Chain]:
    """Yield chains of other programs that may take packets to the proxy, or its answers.

    Args:
        last: The greatest priority of the proxy's nat chains, or :data:`NEVER`.
    """
    for chain in _others(tables):
        is_nat = chain.kind == "nat" and not chain.table.is_legacy
        if is_nat and chain.hook in _NAT_HOOKS and chain.priority <= last:
            yield chain
        if chain.kind == "filter" and chain.hook in WAYS:
            yield chain


def _others(tables: Tables) -> Iterator[Chain]:
    """Yield the chains of tables that receive IP packets."""
    return (one for table in tables if table.families for one in tables[table].values())


def first_packets(
    chain: Chain, frontend: Frontend, translation: Translation
) -> Sequence[FirstPacket]:
    """Return a connection's first packets as a filter chain sees them; answers on the way out.

    These are the first packet from a pod or another host, and the first packet from this node. The
    result is empty if the chain sees neither, or only after DNAT to an endpoint. The packet from
    this node is missing if the chain doesn't see it, or sees it with another address.
    """
    if chain.hook in WAY_OUT:
        return _first_answers(chain, frontend, translation)
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


def _first_answers(
    chain: Chain, frontend: Frontend, translation: Translation
) -> Sequence[FirstPacket]:
    is_own, port = is_loopback(frontend.ip), translation.port
    others = FirstPacket(frontend, is_own=is_own, is_answer=True, is_to_client=True)
    if translation.priority != NEVER:
        # The kernel translates the source back at the priority at which it translates sources.
        if chain.hook == "postrouting" and chain.priority > SOURCE_NAT:
            return (others._replace(is_forwarded=True),)
        if not port or (chain.hook, chain.priority) == ("postrouting", SOURCE_NAT):
            return ()
        others = others._replace(port=port)
    return others, others._replace(is_own=True)


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
        step.verdict in (*DROPS, RuleVerdict.NOTRACK)
        and may_be_first(step.matches, is_answer=base.hook in WAY_OUT)
        for step in steps
    )
    if not is_for_all:
        return ()
    if len(steps) * len(places) < FOLLOWED_MAX:
        return places
    return named_places(base, chains, places)


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


def names_only_pods(chains: Mapping[str, Chain], pods: Sequence[PodLink]) -> bool:
    """Return whether all sources in a chain's rules are networks that contain pods of this node."""
    networks = [network for link in pods for network in link.networks]
    return all(
        any(first <= b and a <= last for a, b in map(ends_of, networks))
        for chain in chains.values()
        for step in chain.steps
        for one in step.matches
        if isinstance(one, Match) and one.field is MatchField.SOURCE
        for first, last in one.ends
    )


def named_places(base: Chain, chains: Mapping[str, Chain], places: Places) -> Places:
    """Return the frontends that rules name by their address, their node port, or the proxy port.

    The result is empty if following the frontends would take too long.
    """
    is_answer = base.hook in WAY_OUT
    steps = [step for chain in chains.values() for step in chain.steps]
    matches = [one for step in steps for one in step.matches if isinstance(one, Match)]
    ip = MatchField.SOURCE if is_answer else MatchField.DESTINATION
    port = MatchField.SOURCE_PORT if is_answer else MatchField.DESTINATION_PORT
    to_ip = [m for m in matches if m.field in (ip, MatchField.DIALLED_ADDRESS)]
    ports = [m for m in matches if m.field in (port, MatchField.DIALLED_PORT)]
    proxy_ports = {first for match in ports for first, last in match.ends if first == last}
    networks = [network for match in to_ip for network in match.networks]
    # Cost: comparing thousands of frontends as text takes a hundredth of parsing their addresses.
    ips = {str(one.network_address) for one in networks if one.num_addresses == 1}
    ranges = Match(MatchField.DESTINATION, tuple(n for n in networks if n.num_addresses > 1))
    named = [
        (frontend, to)
        for frontend, to in places
        if frontend.ip in ips
        or to.port in proxy_ports
        or (ranges.values and ranges.has(number_of_ip(frontend.ip)))
        or (
            frontend.kind is FrontendKind.NODE_PORT
            and any(match.has(frontend.port) for match in ports)
        )
    ]
    return named if len(steps) * len(named) < FOLLOWED_MAX else ()


def places_at_ports(base: Chain, chains: Mapping[str, Chain], places: Places) -> Places:
    """Return the frontends whose port is named by rules that may take packets."""
    port = MatchField.SOURCE_PORT if base.hook in WAY_OUT else MatchField.DESTINATION_PORT
    takes = (*DROPS, RuleVerdict.TRANSLATE, RuleVerdict.MAP, *LEADS)
    ports = {
        first
        for chain in chains.values()
        for step in chain.steps
        for one in (step.matches if step.verdict in takes else ())
        if isinstance(one, Match) and one.field in (port, MatchField.DIALLED_PORT)
        for first, last in one.ends
        if first == last
    }
    return [at for at in places if at[0].port in ports] if ports else ()


def _taken_by_name(
    chain: Chain,
    chains: Mapping[str, Chain],
    places: Places,
    pods: Callable[[], Sequence[PodLink]],
) -> Iterator[tuple[Frontend, Taken]]:
    """Yield the frontends that rules name by address or port, and how the rules take packets."""
    most = FOLLOWED_MAX // (_count(chains) + _RULES_PER_CALL)
    named = named_places(chain, chains, places)
    links = pods() if named and len(named) * (len(pods()) + _CALLS) <= most else ()
    for frontend, to in named if len(named) * _CALLS <= most else ():
        of = [one for one in links if _has_family(one, frontend.family)]
        if cause := explain_chain(chain, chains, frontend, to, of):
            yield frontend, cause
        elif doubt := doubt_of(chain, chains, frontend, to, of, FOLLOWED_MAX // len(named)):
            yield frontend, doubt
    names = {frontend for frontend, _ in named}
    at_ports = [at for at in places_at_ports(chain, chains, places) if at[0] not in names]
    if at_ports and len(at_ports) * (len(pods()) + _CALLS) <= most:
        for frontend, to in at_ports:
            of = [one for one in pods() if _has_family(one, frontend.family)]
            if cause := explain_chain(chain, chains, frontend, to, of):
                yield frontend, cause


def explain_chain(
    chain: Chain,
    chains: Mapping[str, Chain],
    frontend: Frontend,
    translation: Translation,
    links: Sequence[PodLink] = (),
    *,
    is_other: bool = False,
    others: Sequence[Followed] = (),
) -> Taken | None:
    """Return how a chain takes a frontend's packets or answers; None if it doesn't.

    Args:
        chain: The chain, with its rules.
        chains: See :func:`follow`.
        links: The links of this node's pods, or its uplinks; if there are any, a chain also counts
            if it takes only the packets of all pods, or of all other hosts.
        is_other: Whether no rule names these clients' addresses.
        others: The chains among which another one with the same effect is looked for.
    """

    def found(what: str, hint: str) -> Taken:
        return Taken(f"{chain.described} {what}", hint, str(chain))

    def whose(takes: Callable[[FirstPacket], object], packet: FirstPacket) -> str | None:
        """Return whose packets are certainly taken: "" for all clients, None if it is unknown."""
        if takes(packet):
            return ""
        packet = packet._replace(is_other=is_other)
        if packet.is_own or not links or not all(takes(packet.of(link)) for link in links):
            return None
        way = "to" if packet.is_to_client else "from"
        return f" {way} other hosts" if links[0].is_uplink else f" {way} this node's pods"

    priority, first = translation.priority, FirstPacket(frontend)
    if chain.kind == "filter":
        drops = functools.partial(find_drop, chain, chains)
        packets = first_packets(chain, frontend, translation)
        if packets and (of := whose(drops, packets[0])) is not None:
            is_all = of or any(map(drops, packets[1:]))
            is_answer = packets[0].is_to_client
            of_own = f", except those {'to' if is_answer else 'of'} this node's own programs"
            is_dnat = packets[0].port and not (chain.table.is_legacy or is_answer)
            hint = drop_hint(chain, *([_ADMIT] if is_dnat else []))
            return found(f"drops {_packets(chain, frontend)}{of if is_all else of_own}", hint)
        if chain.hook == "prerouting" and _untracks(chain, chains, frontend, priority):
            same = (one for one in others if _untracks(*one, frontend, priority))
            also = next((f"; so does chain {one.base}" for one in same if one.base != chain), "")
            rule = f"that rule{' in both chains' if also else ''}, {chain.listing}"
            return found(f"{_UNTRACKED}{also}", f"Delete {rule}, or accept these packets before it")
        return None
    of = whose(lambda packet: follow(chain, chains, packet, "nat").is_certain, first)
    # Only a chain before this proxy's chain certainly translates first.
    if of is None or not translates_first(chain, priority):
        return None
    does = f"translates {_packets(chain, frontend)}{of}" if of else "translates it"
    before, above = "packets reach this proxy", ""
    if priority != NEVER:
        before, above = "this proxy does", f", or give the chain a priority above {priority}"
    return found(f"{does} before {before}", f"Delete that rule, {chain.listing}{above}")


def _untracks(chain: Chain, chains: Mapping[str, Chain], frontend: Frontend, priority: int) -> bool:
    """Return whether a chain certainly prevents the translation of packets by conntrack."""
    is_before = chain.hook in _NAT_HOOKS and chain.priority < TRACKING and priority != NEVER
    packet = FirstPacket(frontend, is_own=chain.hook == "output")
    is_before = is_before and frontend.family in chain.table.families
    return is_before and follow(chain, chains, packet, "untracked").is_certain


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
    packets_to = _packets(chain, frontend)
    if drop := find_partial_drop(chain, chains, packets[:1], links, most):
        what = f"{chain.described} drops {packets_to}: {drop}"
        return Taken(what, hint_of_part(drop), str(chain), is_certain=False)
    is_nat = chain.kind == "nat"
    outcome = _outcome(chain, chains, frontend, translation, links)
    is_tie = is_nat and not translates_first(chain, translation.priority)
    is_late = is_nat and chain.priority > translation.priority
    if outcome is None or outcome.by is None or is_late or (outcome.is_certain and not is_tie):
        return None
    does = "translate" if is_nat else "drop"
    what = f"{chain.described} may {does} {packets_to}: {Drop(chain, *outcome.by)}"
    hint = f"Delete that rule if it takes clients' packets, {outcome.by[0].listing}"
    return Taken(what, hint, str(chain), is_certain=False)


def _packets(chain: Chain, frontend: Frontend) -> str:
    """Return the packets that a chain takes, as the object of a sentence about the Service."""
    names = {FrontendKind.CLUSTER_IP: "it", FrontendKind.NODE_PORT: f"node port {frontend.port}"}
    it = names.get(frontend.kind, frontend.dialled)
    if chain.hook in WAY_OUT and chain.kind == "filter":
        return "its answers" if it == "it" else f"answers of {it}"
    return f"packets to {it}"


def _outcome(
    chain: Chain,
    chains: Mapping[str, Chain],
    frontend: Frontend,
    translation: Translation,
    links: Sequence[PodLink] = (),
) -> Outcome | None:
    """Return the effect on a client that no rule names; None if the chain sees no such packet.

    Args:
        links: The links of this node's pods, the clients of cluster IPs' answers.
    """
    first: Sequence[FirstPacket] = (FirstPacket(frontend),)
    if chain.kind != "nat":
        first = first_packets(chain, frontend, translation)
    if not first:
        return None
    packets = [first[0]._replace(is_other=True)]
    # Clients of ClusterIPs are pods: rules may only keep ClusterIPs from leaving by an uplink.
    if first[0].is_to_client and frontend.kind is FrontendKind.CLUSTER_IP and links:
        packets = [first[0].of(link) for link in links]
    outcomes = [follow(chain, chains, packet, chain.kind) for packet in packets]
    by = next(filter(None, (one.by for one in outcomes)), None)
    return Outcome(by, any(one.ends for one in outcomes), any(one.back for one in outcomes))


def _count(chains: Mapping[str, Chain]) -> int:
    return sum(len(chain.steps) for chain in chains.values())


def has_pods(link: PodLink) -> bool:
    """Return whether pods of this node may be behind a link."""
    return has_clients(link) and not link.is_uplink


def _has_family(link: PodLink, family: IPFamily) -> bool:
    return any(network.version == family for network in link.networks)


# A frontend that rules name costs about four walks of a chain, each 36 µs plus time for its rules.
_CALLS, _RULES_PER_CALL = 4, 30
_UNTRACKED = "keeps packets to it from being tracked (notrack), so that they aren't translated"
_ADMIT = "insert the rules `ct status dnat accept` and `ct state established accept` in that chain"
