"""Finds chains of other programs that drop packets to endpoints, or the endpoints' answers.

this node dials ───────▶ output, postrouting ───▶ endpoint ─▶ prerouting, input ─▶ this node
the kernel forwards ──▶ forward, postrouting ──▶ endpoint ─▶ forward, postrouting ─▶ client
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from ipaddress import ip_address

from ..kernel.interfaces import is_local
from ..model import Frontend, IPFamily, Protocol, SocketAddress, Taken
from ..model.addresses import Network
from ..policy.locality import PodLink
from .chains import DEPTH_MAX, DROPS, LEADS, Chain, RuleVerdict, Step, Tables, base_chains
from .following import FOLLOWED_MAX, SOURCE_NAT, WAY_IN, Drop, Outcome, find_drop, follow
from .frontends import Followed, has_pods
from .matches import Match, MatchField
from .node import Chains, Firewall, find_first_drop, has_clients, hint_of, hint_of_part, judged
from .packets import FirstPacket, meets

_ANSWERS = ", for the endpoint's answers"
_BUT_SOME = ", but not all of them"


def dropping_chain(
    filters: Sequence[Followed],
    endpoint: SocketAddress,
    protocol: Protocol,
    link: PodLink | None = None,
    read_links: Callable[[], Sequence[PodLink]] = tuple,
) -> str:
    """Describe the chain that certainly drops or translates an endpoint's packets; empty if none.

    The text is a clause in which "it" is the endpoint.

    Args:
        link: The link to the endpoint, by which answers arrive, too; None if unknown.
        read_links: Returns the links of clients, and of this node's pods.
    """
    to = Frontend(endpoint.ip, endpoint.port, protocol)
    dial = FirstPacket(to, is_own=is_local(endpoint.ip), link=link, way_out=link)
    for is_drawn, besides in ((None, ""), (True, _BUT_SOME), (False, _BUT_SOME)):
        for base, chains in filters:
            if endpoint.family not in base.table.families:
                continue
            is_in = base.hook in WAY_IN
            packet = dial._replace(is_answer=is_in, is_drawn=is_drawn)
            packets = f"{'its answers' if is_in else 'packets to it'}{besides}"
            if base.hook == "postrouting" and base.kind == "nat":
                ip = "" if besides else _foreign_source(filters, Followed(base, chains), packet)
                # Answers of this node's pods arrive here anyway, and are translated back.
                if ip and not any(_has(one, endpoint.ip) for one in filter(has_pods, read_links())):
                    source = f"the source {ip}, which is no address of this node"
                    return f"{base.described} gives {packets} {source}"
            elif base.kind == "nat" and follow(base, chains, packet, "nat").is_certain:
                return f"{base.described} translates {packets}"
            if base.kind != "nat" and (drop := find_drop(base, chains, packet)):
                is_reject = drop.rule is not None and drop.rule.verdict is RuleVerdict.REJECT
                return f"{base.described} {'rejects' if is_reject else 'drops'} {packets}"
    return ""


def _foreign_source(filters: Sequence[Followed], one: Followed, packet: FirstPacket) -> str:
    """Return the source that a nat chain gives packets; empty if it may be this node's address."""
    base, outcome = one.base, follow(*one, packet, "source")
    # Of chains with the same priority, any may come first.
    is_doubtful = packet.is_own or any(
        (at.kind, at.hook) == (base.kind, base.hook)
        and at.priority <= base.priority
        and packet.frontend.family in at.table.families
        and at != base
        and follow(at, its_chains, packet, "source") != Outcome(back=True)
        for at, its_chains in filters
    )
    return outcome.by[1].target if outcome.by and outcome.is_certain and not is_doubtful else ""


def find_forward_firewalls(
    nft: Tables,
    legacy: Tables,
    endpoint: SocketAddress,
    protocol: Protocol,
    links: Sequence[PodLink],
) -> list[Firewall]:
    """Return the chains that drop forwarded packets to an endpoint, or its answers.

    Args:
        nft, legacy: See :func:`.node.find_firewalls`.
        endpoint: The endpoint; port 0 means any port.
        links: The links of the clients, and of the endpoint.
    """
    to = Frontend(endpoint.ip, endpoint.port, protocol)
    links = [one for one in links if any(net.version == endpoint.family for net in one.networks)]
    own = next((one for one in links if not one.is_uplink and _has(one, endpoint.ip)), None)
    clients = [one for one in links if one != own and has_clients(one)]

    def judge(base: Chain, chains: Chains, family: IPFamily) -> Firewall | None:
        is_late = base.hook == "postrouting" and base.priority >= SOURCE_NAT
        if family is not endpoint.family or is_late:
            return None
        first = FirstPacket(to, is_forwarded=True, way_out=own)
        drop, whose = find_first_drop(base, chains, [first], clients), ""
        if drop is None:
            answer = FirstPacket(to, is_answer=True, is_forwarded=True, link=own)
            ways = [answer._replace(way_out=one) for one in clients] or [answer]
            drops = [find_drop(base, chains, one) for one in ways]
            drop, whose = (drops[0] if all(drops) else None), _ANSWERS
        if drop is None:
            return None
        return Firewall(str(base), f"{drop}{whose}", hint_of(base, ""), family)

    return list(judged((nft, legacy), "forward", judge))


def find_pod_rules(nft: Tables, legacy: Tables, links: Sequence[PodLink]) -> dict[str, Taken]:
    """Return what may drop packets to or from pods, by a pod's address or network.

    The first rule for each counts that names the address of a pod of this node, or has a condition
    that can't be judged and names a network; or is reached by a jump of a rule that does. The
    policy of a forward chain counts for the network of a link if it drops all packets to it.

    Args:
        nft, legacy: See :func:`.node.find_firewalls`.
        links: The links of the clients, and of the pods.
    """
    found: dict[str, Taken] = {}
    for hook in ("prerouting", "forward", "input", "output"):
        for tables in (nft, legacy):
            for base in base_chains(tables, kind="filter", hook=hook):
                for find in (_pod_rules, _policies):
                    for ip, rule in find(base, tables[base.table], links):
                        found.setdefault(ip, rule)
    return found


def _pod_rules(
    base: Chain, chains: Chains, links: Sequence[PodLink]
) -> Iterator[tuple[str, Taken]]:
    named = _named(chains, links)
    rules = sum(len(chain.steps) for chain in chains.values())
    ways = {"input": "from", "output": "to"}.get(base.hook, "to, from")
    for network, link in named if len(named) * rules * _PACKETS < FOLLOWED_MAX else ():
        name = str(network if network.num_addresses > 1 else network[0])
        for protocol in Protocol:
            to = FirstPacket(Frontend(str(network[0]), 0, protocol), way_out=link)
            answer = FirstPacket(to.frontend, is_answer=True, link=link)
            for packet, way in ((to, "to"), (answer, "from")):
                if way in ways and (by := _naming_drop(base, chains, packet, network)):
                    drop = Drop(base, *by)
                    what = f"chain {base} of another program may drop packets {way} {name}: {drop}"
                    yield name, Taken(what, hint_of_part(drop), str(base), is_certain=False)


def _policies(base: Chain, chains: Chains, links: Sequence[PodLink]) -> Iterator[tuple[str, Taken]]:
    is_drop = base.policy == "drop" and base.hook == "forward"
    for link in links if is_drop else ():
        clients = [one for one in links if one != link and has_clients(one)]
        for network in () if link.is_uplink or not has_clients(link) else link.networks:
            first = FirstPacket(Frontend(str(network[0]), 0, Protocol.TCP), way_out=link)
            of_family = first.frontend.family in base.table.families
            drop = find_first_drop(base, chains, [first], clients) if of_family else None
            if drop is not None and drop.rule is None:
                # Rules may admit packets to single addresses of the network.
                drops = "may drop" if base.steps else "drops"
                what = f"chain {base} of another program {drops} packets to {network}: {drop}"
                yield str(network), Taken(what, hint_of_part(drop), str(base), is_certain=False)


def _named(chains: Chains, links: Sequence[PodLink]) -> Sequence[tuple[Network, PodLink | None]]:
    """Return the addresses of this node's pods that rules name, with their links, and networks."""
    steps = [step for chain in chains.values() for step in chain.steps]
    named = {net for step in steps for field in _ENDS for net in _networks_in(step, field)}
    pods = [*filter(has_pods, links)]
    found = [(net, link) for net in named for link in pods if _has(link, str(net[0]))]
    single = [one for one in found if one[0].num_addresses == 1]
    return sorted([*single, *((net, None) for net in named if net.num_addresses > 1)], key=str)


def _networks_in(step: Step, field: MatchField) -> Iterator[Network]:
    for one in step.matches:
        if isinstance(one, Match) and one.field is field and not one.is_inverted:
            yield from (net for net in one.networks if net.prefixlen)


def _naming_drop(
    chain: Chain, chains: Chains, packet: FirstPacket, network: Network, *jumps: Step
) -> tuple[Chain, Step] | None:
    """Return the first rule that may drop a packet, if it or a jump to it names the network."""
    field = MatchField.SOURCE if packet.is_answer else MatchField.DESTINATION
    for step in chain.steps:
        if (met := meets(step.matches, packet)) is False:
            continue
        path = (*jumps, step)
        names = any(network in _networks_in(one, field) for one in path)
        matches = (one for rule in path for one in rule.matches)
        doubts = (one for one in matches if not isinstance(one, Match) or one.field in _UNJUDGED)
        may = network.num_addresses == 1 or next(doubts, None)
        if step.verdict in DROPS and names and may:
            return chain, step
        if step.verdict in LEADS and len(jumps) < DEPTH_MAX and step.target in chains:
            if by := _naming_drop(chains[step.target], chains, packet, network, *path):
                return by
        elif met and step.verdict in _LAST:
            return None
    return None


_UNJUDGED = (MatchField.LIMIT, MatchField.DRAWN)
_LAST = (RuleVerdict.ACCEPT, RuleVerdict.RETURN, *DROPS)
_ENDS = (MatchField.SOURCE, MatchField.DESTINATION)
# The number of packets that are followed for each pod.
_PACKETS = 4


def _has(link: PodLink, ip: str) -> bool:
    return any(ip_address(ip) in network for network in link.networks)
