"""Finds chains of other programs that drop packets to endpoints, or the endpoints' answers.

this node dials ───────▶ output, postrouting ───▶ endpoint ─▶ prerouting, input ─▶ this node
the kernel forwards ──▶ forward, postrouting ──▶ endpoint ─▶ forward, postrouting ─▶ client
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address

from ..kernel.interfaces import is_local
from ..model import Frontend, IPFamily, Protocol, SocketAddress
from ..policy.locality import PodLink
from .chains import Chain, Tables
from .following import WAY_IN, find_drop, follow
from .frontends import SOURCE_NAT, Followed
from .node import Chains, Firewall, find_first_drop, has_clients, hint_of, judged
from .packets import FirstPacket

_ANSWERS = ", for the endpoint's answers"
_BUT_SOME = ", but not all of them"


def dropping_chain(
    filters: Sequence[Followed],
    endpoint: SocketAddress,
    protocol: Protocol,
    link: PodLink | None = None,
) -> str:
    """Describe the chain that drops or translates an endpoint's packets; empty if none does.

    The text is a clause in which "it" is the endpoint.

    Args:
        link: The link to the endpoint, by which answers arrive, too; None if unknown.
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
            if base.kind == "nat" and follow(base, chains, packet, "nat").is_certain:
                return f"{base.described} translates {packets}"
            if base.kind != "nat" and find_drop(base, chains, packet):
                return f"{base.described} drops {packets}"
    return ""


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


def _has(link: PodLink, ip: str) -> bool:
    return any(ip_address(ip) in network for network in link.networks)
