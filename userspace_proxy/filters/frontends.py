"""Finds other programs' chains that take a frontend's packets away from this proxy.

    client ─▶ prerouting ─▶ translation to the proxy port ─▶ later prerouting, input ─▶ proxy
                │ translate, or drop                            │ drop

The kernel evaluates nat chains in order of priority, and applies the first translation. Chains of
nftables steering have -110, before the -100 and more of docker, firewalld, iptables and kube-proxy;
iptables steering uses the legacy tables' own chains, at -100. Of chains with equal priority the
last one added comes first (Linux 6.18), and the kernel doesn't show which that is. So only a nat
chain at or before this priority matters, and ordinary nodes have none before -100. All nat chains
are evaluated at -100, so filter chains before that see a frontend's address, and later ones the
proxy port. With local steering, packets keep the frontend's address up to the socket: all nat
chains come first, and all filter chains on the way in see it.

Rule 1: packets count as dropped only if that is certain for pods and other hosts, as a firewall may
legitimately deny some clients. A drop for some is a doubt if a rule names the frontend, or the
clients are this node's pods (``denied_pods``).
Rule 2: an uncertain translation is a doubt if the rule names the address, or looks up address or
port: any other affects some clients of all addresses, as a transparent proxy does.

Source: net/netfilter/core.c, nf_hook_entries_grow(); net/netfilter/nf_nat_core.c,
nf_nat_register_fn().
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

from ..errors import SteeringError
from ..model import Doubt, Frontend, FrontendKind, Taken
from ..model.addresses import is_loopback
from ..policy.locality import PodLink
from .chains import DROPS, Chain, RuleVerdict, Tables
from .denied_pods import conditions_on_clients, find_denied
from .following import FOLLOWED_MAX, TRACKING, find_drop, find_drop_for_some, follow
from .matches import Match
from .packets import FirstPacket, may_be_first, number_of_ip
from .pod_links import PodLinks
from .reading import IsOwn, NftReader

# The kernel's priority NF_IP_PRI_NAT_DST, also of the legacy tables.
ALL_NAT = -100
_NAT_HOOKS = ("prerouting", "output")
NEVER = 1 << 31
"""The priority for a proxy that translates nothing: after all chains."""
WAY_IN, _WAY_OUT_HOOKS = ("prerouting", "input"), ("output", "postrouting")


class Translation(NamedTuple):
    """How the proxy translates a frontend."""

    priority: int = NEVER
    """The translating chain's priority; NEVER: there is none."""
    port: int = 0
    """The proxy port; 0 if there is none, as when the kernel leads clients to endpoints."""


class Followed(NamedTuple):
    """A base chain, and its table's chains that it may reach, with rules."""

    base: Chain
    chains: Mapping[str, Chain]


_NOTHING: tuple[int, tuple[PodLink, ...] | None] = (-1, None)


class EarlierChains:
    """Finds chains that precede this proxy's, in this thread's network namespace.

    Args:
        translation_of: Returns a frontend's current translation.
        is_own: As for :class:`.reading.NftReader`.
    """

    def __init__(self, translation_of: Callable[[Frontend], Translation], is_own: IsOwn) -> None:
        self._translation_of = translation_of
        self._is_own = is_own
        self._reader: NftReader | None = None
        self._links: PodLinks | None = None
        # The ruleset's generation, and the pods' links; None: no rule depends on links.
        self._seen = _NOTHING
        self._found: dict[Frontend, Taken] = {}
        self.filters: Sequence[Followed] = ()
        """Chains as of the last look, for :func:`.endpoints.dropping_chain`."""

    def look(self, frontends: Collection[Frontend]) -> dict[Frontend, Taken]:
        """Return the frontends whose packets another program takes, or may take, with causes.

        Takes 10 µs if neither nftables nor, if rules depend on links, a link has changed since the
        last call. If nftables can't be read (the kernel lacks it, permission is denied), nothing is
        found.
        """
        try:
            self._reader = self._reader or NftReader(self._is_own)
            generation = self._reader.generation()
            links = None if self._seen[1] is None else self._pod_links()
            if (generation, links) != self._seen:
                self._found, links = self._find(self._reader, frontends)
                self._seen = generation, links
        except SteeringError:
            self.forget()
            self.filters = ()
        return self._found

    def forget(self) -> None:
        """Make the next look read again, as frontends have changed."""
        self._seen, self._found = _NOTHING, {}

    def close(self) -> None:
        """Close the sockets; idempotent."""
        if self._reader is not None:
            self._reader.close()
        if self._links is not None:
            self._links.close()
        self._reader = self._links = None

    def _pod_links(self) -> tuple[PodLink, ...]:
        """Return the pods' links; empty if the kernel doesn't list them."""
        try:
            self._links = self._links or PodLinks()
            return self._links.known()
        except SteeringError:
            return ()

    def _find(
        self, reader: NftReader, frontends: Collection[Frontend]
    ) -> tuple[dict[Frontend, Taken], tuple[PodLink, ...] | None]:
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
        earlier = [followed(base) for base in chains_before(tables, last)]
        depends = any(conditions_on_clients(*one) for one in earlier if one.base.kind == "filter")
        links = self._pod_links() if depends else None
        for chain, chains in earlier:
            families = chain.table.families
            places = [(f, to) for f, to in translations.items() if f.family in families]
            for frontend, to in places_to_follow(chain, chains, places):
                cause = explain_chain(chain, chains, frontend, to)
                if cause and not (frontend in found and isinstance(cause, Doubt)):
                    found[frontend] = cause
            if links and chain.kind == "filter":
                rest = [place for place in places if place[0] not in found]
                found |= find_denied_pods(chain, chains, links, rest)
        return found, links


Places = Sequence[tuple[Frontend, Translation]]


def find_denied_pods(
    chain: Chain, chains: Mapping[str, Chain], links: Sequence[PodLink], frontends: Places
) -> dict[Frontend, Doubt]:
    """Return the frontends that a filter chain denies to pods of this node.

    Args:
        chain: With its rules.
        chains: As for :func:`follow`.
        links: The links of this node's pods.
        frontends: Frontends with their translations.
    """
    packets = {one: first_packets(chain, one, to)[:1] for one, to in frontends}
    seen = {one: packet for one, found in packets.items() for packet in found if not packet.is_own}
    return {
        one: Doubt(f"{chain.described} drops packets to it {by.words}", _MEANT_PODS, str(chain))
        for one, by in find_denied(chain, chains, seen, links).items()
    }


def chains_before(tables: Tables, last: int) -> Iterator[Chain]:
    """Yield other programs' chains that may take packets before the proxy receives them.

    Args:
        last: The greatest priority of the proxy's nat chains, or :data:`NEVER`.
    """
    for chain in _others(tables):
        if chain.kind == "nat" and chain.hook in _NAT_HOOKS and chain.priority <= last:
            yield chain
        if chain.kind == "filter" and chain.hook in WAY_IN:
            yield chain


def _others(tables: Tables) -> Iterator[Chain]:
    """Yield the chains for IP packets."""
    return (one for table in tables if table.families for one in tables[table].values())


def first_packets(
    chain: Chain, frontend: Frontend, translation: Translation
) -> Sequence[FirstPacket]:
    """Return the first packets of pods and other hosts, and of this node's own programs.

    They are as a filter chain sees them; empty if it sees neither, or sees an endpoint's address.
    Own programs' packets are missing if it sees them with another address or not at all.
    """
    # Only own programs can dial a loopback address.
    others = FirstPacket(frontend, is_own=is_loopback(frontend.ip))
    if translation.priority == NEVER:
        return others, FirstPacket(frontend, is_own=True)
    # Own programs' packets are translated on output, and arrive on the loopback interface.
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

    These are all whose packets it may take; if it may drop only some clients' packets, or following
    all would take too long, only frontends that its rules may name.
    """
    steps = [step for chain in chains.values() for step in chain.steps]
    if base.kind == "nat":
        may = any(step.verdict in (RuleVerdict.TRANSLATE, RuleVerdict.MAP) for step in steps)
        return places if may else ()
    is_for_all = base.policy == "drop" or any(
        s.verdict in (*DROPS, RuleVerdict.NOTRACK)
        and all(isinstance(one, Match) for one in s.matches)
        and may_be_first(s.matches)
        for s in steps
    )
    if is_for_all and len(steps) * len(places) < FOLLOWED_MAX:
        return places
    if not any(step.verdict in DROPS for step in steps):
        return ()
    matches = (one for step in steps for one in step.matches if isinstance(one, Match))
    numbers = {first for one in matches for first, last in one.ends if first == last}
    named = [
        (frontend, to)
        for frontend, to in places
        if frontend.kind is FrontendKind.NODE_PORT
        or not numbers.isdisjoint((number_of_ip(frontend.ip), to.port))
    ]
    return named if len(steps) * len(named) < FOLLOWED_MAX else ()


def explain_chain(
    chain: Chain, chains: Mapping[str, Chain], frontend: Frontend, translation: Translation
) -> Taken | None:
    """Return how a chain affects a frontend's packets, and the remedy; None if it doesn't.

    Args:
        chain: With its rules.
        chains: As for :func:`follow`.
    """

    def found(what: str, hint: str, *, is_sure: bool = True) -> Taken:
        kind = Taken if is_sure else Doubt
        return kind(f"{chain.described} {what}", hint, str(chain))

    priority = translation.priority
    if chain.kind == "filter":
        packets = first_packets(chain, frontend, translation)
        if packets and find_drop(chain, chains, packets[0]):
            is_all = any(find_drop(chain, chains, own) for own in packets[1:])
            besides = "" if is_all else ", except those of this node's own programs"
            return found(f"drops packets to it{besides}", _ADMIT if packets[0].port else _WAY_OUT)
        is_before = chain.hook == "prerouting" and chain.priority < TRACKING and priority != NEVER
        if is_before and follow(chain, chains, FirstPacket(frontend), "untracked").is_certain:
            return found(*_UNTRACKED)
        if packets and (drop := find_drop_for_some(chain, chains, packets[0])):
            return found(f"drops packets to it of some clients: {drop}", _MEANT, is_sure=False)
        return None
    outcome = follow(chain, chains, FirstPacket(frontend), chain.kind)
    is_taken = outcome.is_certain or (outcome.by and outcome.is_named)
    if not is_taken or chain.priority > priority:
        return None
    is_sure = outcome.is_certain and chain.priority < priority
    verb = "translates" if is_sure else "may translate"
    if priority == NEVER:
        before, hint = "packets reach this proxy", "delete that rule"
    else:
        before = "this proxy does"
        hint = f"delete that rule, or give the chain a priority above {priority}"
    return found(f"{verb} it before {before}", hint, is_sure=is_sure)


_WAY_OUT = "accept them in that chain, or delete what drops them"
_MEANT = "accept them in that chain before that rule if these clients may use it"
_MEANT_PODS = "accept them in that chain if pods of this node are to use it"
_UNTRACKED = (
    "keeps packets to it from being tracked (notrack), so that they aren't translated",
    "accept them in that chain before that rule, or delete it",
)
_ADMIT = (
    "insert the rules `ct status dnat accept` and `ct state established accept` in that chain, or "
    "delete what drops them"
)
