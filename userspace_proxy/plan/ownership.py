"""Decides which Service gets an address that several claim.

Service ──claims_of──▶ its ports with their frontends ──settlement──▶ one holder per frontend

Rule 1: where two ports claim one frontend, a cluster IP goes before what comes from outside,
then that of the older Service has it, as the API server's allocator would have it; names
decide between those of one second.
Rule 2: an external IP is never another Service's cluster IP, whatever the port, and
whichever proxy serves that Service.
Rule 3: the holder depends on the claims alone, never on the order in which they arrived; the cost
of a change depends on its size alone, never on the number of claims.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from ..model import Frontend, FrontendKind, Protocol, ServiceKey, SocketAddress
from .claims import PortClaim, ServiceClaims
from .index import ServiceIndex
from .plan import PortKey

# Who may take from whom: what anybody may write into a Service comes last.
_KINDS = {
    FrontendKind.CLUSTER_IP: 0,
    FrontendKind.NODE_PORT: 1,
    FrontendKind.LOAD_BALANCER: 1,
    FrontendKind.EXTERNAL_IP: 2,
}
_NOTHING: Mapping[Frontend, str] = {}


class Moved(NamedTuple):
    """What a change has changed for others."""

    addresses: Collection[SocketAddress]
    """Those that nobody served before, or nobody serves now."""
    services: Collection[ServiceKey]
    """Whose frontends may be others now, or the reasons why they aren't theirs."""
    node_ports: Collection[int]
    """Numbers that no Service had before, or has now, as a node port."""


class FrontendOwners:
    """Who has which frontend."""

    def __init__(self) -> None:
        self.claims: dict[ServiceKey, ServiceClaims] = {}
        """What each Service asks for."""
        self._claimants: dict[Protocol, dict[SocketAddress, tuple[PortClaim, ...]]] = {
            protocol: {} for protocol in Protocol
        }
        """Who asks for an address and may have it; the first one has."""
        self._owners: ServiceIndex[str] = ServiceIndex()
        """Whose each cluster or load-balancer IP is: two Services may both say it is theirs."""
        self._strangers: ServiceIndex[str] = ServiceIndex()
        """Who asks for an address as an external IP."""
        self._lost: dict[PortKey, dict[Frontend, str]] = {}
        self.node_ports: dict[Protocol, Counter[int]] = {p: Counter() for p in Protocol}
        """The numbers of all node ports, each with how many frontends have it."""

    def change(self, gone: Iterable[ServiceKey], come: Collection[ServiceClaims]) -> Moved:
        """Take in what Services ask for now, and forget those that are gone."""
        keys = {*gone, *(claims.service for claims in come)}
        old = [self.claims.pop(key) for key in keys if key in self.claims]
        ips = {ip for claims in (*old, *come) for ip in claims.own_ips}
        # Whether an external IP may be had depends on whose own it is.
        strangers = {key for ip in ips for key in self._strangers[ip]} - keys
        again = [self.claims[key] for key in strangers]
        touched: dict[tuple[Protocol, SocketAddress], tuple[PortClaim, ...]] = {}
        for claims in (*old, *again):
            self._withdraw(claims, touched)
        for claims in come:
            self.claims[claims.service] = claims
            self._owners.add(claims.own_ips, claims.service)
        for claims in (*come, *again):
            self._file(claims, touched)
        node_ports = self._count_node_ports(old, come)
        services = strangers
        for (protocol, address), before in touched.items():
            now = self._claimants[protocol].get(address, ())
            if len(before) > 1 or len(now) > 1:
                self._decide(protocol, address)
                services.update(claim.key.name.service for claim in (*before, *now))
        moved = {
            address
            for (protocol, address), before in touched.items()
            if bool(before) is not (address in self._claimants[protocol])
        }
        return Moved(moved, services - keys, node_ports)

    def _count_node_ports(
        self, old: Iterable[ServiceClaims], come: Iterable[ServiceClaims]
    ) -> set[int]:
        """Bring the numbers of node ports up to date; returns those that came or went."""
        changed: set[int] = set()
        for protocol, counts in self.node_ports.items():
            gone, new = _node_ports(old, protocol), _node_ports(come, protocol)
            for number in gone.keys() | new.keys():
                before = counts[number]
                counts[number] += new[number] - gone[number]
                if bool(before) is not bool(counts[number]):
                    changed.add(number)
                if not counts[number]:
                    del counts[number]
        return changed

    def served(self, protocol: Protocol) -> Collection[SocketAddress]:
        """Return what somebody has; it follows what is settled later."""
        return self._claimants[protocol].keys()

    def holder(self, frontend: Frontend) -> PortClaim | None:
        """Return who has a frontend."""
        claimants = self._claimants[frontend.protocol].get(frontend.address)
        return claimants[0] if claimants else None

    def lost_by(self, key: PortKey) -> Mapping[Frontend, str]:
        """Return the frontends that a port asked for and doesn't get, and why."""
        return self._lost.get(key, _NOTHING)

    def _withdraw(
        self,
        claims: ServiceClaims,
        touched: dict[tuple[Protocol, SocketAddress], tuple[PortClaim, ...]],
    ) -> None:
        if claims.service not in self.claims:
            self._owners.discard(claims.own_ips, claims.service)
        for claim in claims.ports:
            self._lost.pop(claim.key, None)
            claimants = self._claimants[claim.protocol]
            for frontend in claim.frontends:
                address = frontend.address
                if frontend.kind is FrontendKind.EXTERNAL_IP:
                    self._strangers.discard([frontend.ip], claims.service)
                have = claimants.get(address, ())
                rest = tuple([c for c in have if c is not claim])
                if len(rest) == len(have):
                    continue
                touched.setdefault((claim.protocol, address), have)
                if rest:
                    claimants[address] = rest
                else:
                    del claimants[address]

    def _file(
        self,
        claims: ServiceClaims,
        touched: dict[tuple[Protocol, SocketAddress], tuple[PortClaim, ...]],
    ) -> None:
        for claim in claims.ports:
            mine = (claim,)
            claimants = self._claimants[claim.protocol]
            for frontend in claim.frontends:
                address = frontend.address
                if frontend.kind is FrontendKind.EXTERNAL_IP:
                    self._strangers.add([frontend.ip], claims.service)
                    if why := self._why_never(frontend.ip, claims.service):
                        self._lost.setdefault(claim.key, {})[frontend] = why
                        continue
                have = claimants.get(address, ())
                touched.setdefault((claim.protocol, address), have)
                claimants[address] = (*have, claim) if have else mine

    def _decide(self, protocol: Protocol, address: SocketAddress) -> None:
        """Give an address to one of those who ask for it, where there are any."""
        claimants = self._claimants[protocol].get(address, ())
        asked = {claim.key: _own(claim, address) for claim in claimants}
        in_order = sorted(claimants, key=lambda c: (_KINDS[asked[c.key].kind], c.created, c.key))
        for claim in in_order:
            frontend = asked[claim.key]
            if claim is not in_order[0]:
                why = f"{frontend} is already held by {in_order[0].key.name}"
                self._lost.setdefault(claim.key, {})[frontend] = why
            elif lost := self._lost.get(claim.key):
                lost.pop(frontend, None)
                if not lost:
                    del self._lost[claim.key]
        if in_order:
            self._claimants[protocol][address] = tuple(in_order)

    def _why_never(self, ip: str, service: ServiceKey) -> str:
        """Return why an external IP is nobody's to ask for, or nothing."""
        others = [owner for owner in self._owners[ip] if owner != service]
        return f"external IP {ip} is an address of {min(others)}" if others else ""


def _node_ports(claims: Iterable[ServiceClaims], protocol: Protocol) -> Counter[int]:
    return Counter(
        frontend.port
        for one in claims
        for port in one.ports
        if port.protocol is protocol
        for frontend in port.frontends
        if frontend.kind is FrontendKind.NODE_PORT
    )


def _own(claim: PortClaim, address: SocketAddress) -> Frontend:
    return next(frontend for frontend in claim.frontends if frontend.address == address)
