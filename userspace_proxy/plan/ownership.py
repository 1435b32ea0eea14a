"""Decides which Service owns a frontend that several Services claim.

Service ──claims_of──▶ its ports with their frontends ──FrontendOwners──▶ one owner per frontend

Rule 1: cluster IPs take precedence over load-balancer IPs and node ports, which precede external
IPs; then the older Service wins, as in the API server's allocator; then the first Service by name.
Rule 2: an external IP isn't served if it is another Service's cluster or load-balancer IP, whatever
the port, and whichever proxy serves that Service.
Rule 3: the owner depends only on the claims, never on the order in which they arrived; the cost
of a change depends only on its size, never on the number of claims.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Hashable, Iterable, Iterator, KeysView, Mapping
from dataclasses import replace
from typing import Generic, NamedTuple, TypeVar

from ..causes.cause import Cause
from ..causes.say import object_of
from ..causes.services import external_ip_of, held_by, lost_as_address, lost_to
from ..model import Frontend, FrontendKind, PortKey, Protocol, ServiceKey, SocketAddress
from .claims import PortClaim, ServiceClaims
from .range_owners import RangeOwners, ServedAddresses

# The precedence of the kinds of frontends: lower numbers win. External IPs lose, because users may
# write any address there.
_PRECEDENCE = {
    FrontendKind.CLUSTER_IP: 0,
    FrontendKind.NODE_PORT: 1,
    FrontendKind.LOAD_BALANCER: 1,
    FrontendKind.EXTERNAL_IP: 2,
}
_NOTHING: Mapping[Frontend, Cause] = {}

Address = TypeVar("Address", bound=Hashable)
_Claimants = tuple[PortClaim, ...]
_Touched = dict[tuple[Protocol, SocketAddress], _Claimants]
"""The claimants of each address that a change affects, as they were before the change."""


class ServiceIndex(Generic[Address]):
    """The Services at each address, IP or port number: nearly always one, sometimes all."""

    def __init__(self) -> None:
        self._services: dict[Address, tuple[ServiceKey] | set[ServiceKey]] = {}

    def __getitem__(self, address: Address) -> Collection[ServiceKey]:
        return self._services.get(address, ())

    @property
    def addresses(self) -> KeysView[Address]:
        return self._services.keys()

    def add(self, addresses: Iterable[Address], service: ServiceKey) -> None:
        """Add a Service at these addresses; idempotent."""
        # All addresses share one object: a set for each address would take 200 bytes.
        alone = (service,)
        for address in addresses:
            have = self._services.setdefault(address, alone)
            if isinstance(have, set):
                have.add(service)
            elif have != alone:
                self._services[address] = {*have, service}

    def discard(self, addresses: Iterable[Address], service: ServiceKey) -> None:
        """Remove a Service from these addresses; idempotent."""
        for address in addresses:
            have = self._services.get(address, ())
            if isinstance(have, set):
                have.discard(service)
            if not have or have == (service,):
                self._services.pop(address, None)


class OwnershipChange(NamedTuple):
    """The effects of a change on other Services."""

    addresses: set[SocketAddress]
    """Addresses that are newly served, or no longer served."""
    services: set[ServiceKey]
    """Other Services whose frontends, or whose reasons for lost frontends, may have changed."""
    node_ports: set[int]
    """Port numbers that became node ports, or ceased to be node ports."""
    cluster_ips: set[str]
    """IPs whose Service in :attr:`FrontendOwners.cluster_ips`, or whose ranges, have changed."""

    def add(self, later: OwnershipChange) -> None:
        self.addresses.update(later.addresses)
        self.services.update(later.services)
        self.node_ports.update(later.node_ports)
        self.cluster_ips.update(later.cluster_ips)


class FrontendOwners:
    """The owner of each frontend."""

    def __init__(self) -> None:
        self.claims: dict[ServiceKey, ServiceClaims] = {}
        self._claimants: dict[Protocol, dict[SocketAddress, _Claimants]] = {
            protocol: {} for protocol in Protocol
        }
        """The eligible claims on an address; the first claim owns the address."""
        self._ranges = RangeOwners(_precedence)
        self._own_ips: ServiceIndex[str] = ServiceIndex()
        """Services by cluster and load-balancer IP; two Services may claim the same IP."""
        self._external_ip_claims: ServiceIndex[str] = ServiceIndex()
        self._lost: dict[PortKey, dict[Frontend, Cause]] = {}
        self.node_ports: dict[Protocol, Counter[int]] = {p: Counter() for p in Protocol}
        """The number of frontends of each node port."""
        self.cluster_ips: dict[str, ServiceKey] = {}
        """The Service of each cluster IP on which only its ports serve: the first by name if
        several Services claim the IP."""

    def change(
        self, removed: Iterable[ServiceKey], claimed: Collection[ServiceClaims]
    ) -> OwnershipChange:
        """Remove some Services, add or replace the claims of others, and return the effects."""
        keys = {*removed, *(claims.service for claims in claimed)}
        old = [self.claims.pop(key) for key in keys if key in self.claims]
        ips = {ip for claims in (*old, *claimed) for ip in claims.own_ips}
        # An external IP can't be claimed if it is another Service's own IP, so decide such claims
        # again.
        affected = {key for ip in ips for key in self._external_ip_claims[ip]} - keys
        again = [self.claims[key] for key in affected]
        touched: _Touched = {}
        for claims in (*old, *again):
            self._withdraw(claims, touched)
        for claims in claimed:
            self.claims[claims.service] = claims
            self._own_ips.add(claims.own_ips, claims.service)
        for claims in (*claimed, *again):
            self._enter(claims, touched)
        node_ports = self._count_node_ports(old, claimed)
        services = affected
        for (protocol, address), before in touched.items():
            now = self._claimants[protocol].get(address, ())
            if len(before) > 1 or len(now) > 1:
                self._decide(protocol, address)
                services.update(claim.key.name.service for claim in (*before, *now))
        cluster_ips = self._note_cluster_ips(ips)
        for place in self._ranges.take_affected():
            # Endpoints with this IP must be judged again: they may have become part of a range, or
            # ceased to be.
            cluster_ips.add(place.ip)
            for frontend, claim, holder in self._ranges.decide(place):
                services.add(claim.key.name.service)
                self._note_loss(frontend, claim, holder)
        addresses: set[SocketAddress] = set()
        for (protocol, address), before in touched.items():
            if bool(before) is not (address in self._claimants[protocol]):
                addresses.add(address)
                if around := self._ranges.find(protocol, address):
                    services.add(around.key.name.service)
        return OwnershipChange(addresses, services - keys, node_ports, cluster_ips)

    def _note_cluster_ips(self, ips: Iterable[str]) -> set[str]:
        """Update the Services of cluster IPs; return the IPs whose Service has changed."""
        changed: set[str] = set()
        for ip in ips:
            services = (key for key in self._own_ips[ip] if ip in self.claims[key].cluster_ips)
            before, now = self.cluster_ips.pop(ip, None), min(services, default=None)
            if now is not None:
                self.cluster_ips[ip] = now
            if now != before:
                changed.add(ip)
        return changed

    def _count_node_ports(
        self, old: Iterable[ServiceClaims], new: Iterable[ServiceClaims]
    ) -> set[int]:
        """Update the counts of node ports; return the node ports that appeared or disappeared."""
        changed: set[int] = set()
        for protocol, counts in self.node_ports.items():
            removed, added = _node_ports(old, protocol), _node_ports(new, protocol)
            for number in removed.keys() | added.keys():
                before = counts[number]
                counts[number] += added[number] - removed[number]
                if bool(before) is not bool(counts[number]):
                    changed.add(number)
                if not counts[number]:
                    del counts[number]
        return changed

    def served(self, protocol: Protocol) -> Collection[SocketAddress]:
        """Return a view of all addresses with an owner; call again after :meth:`change`."""
        single = self._claimants[protocol].keys()
        return ServedAddresses(single, self._ranges, protocol) if self._ranges else single

    def one_by_one(self, frontends: Iterable[Frontend]) -> Iterator[Frontend]:
        """Yield frontends, and the ports of ranges, except ports with frontends of their own."""
        for one in frontends:
            if not one.last:
                yield one
                continue
            single = self._claimants[one.protocol]
            for port in range(one.port, one.last + 1):
                if SocketAddress(one.ip, port) not in single:
                    yield replace(one, port=port, last=0)

    def lost_by(self, key: PortKey) -> Mapping[Frontend, Cause]:
        """Return the frontends that a port claims but doesn't own, with the reasons."""
        return self._lost.get(key, _NOTHING)

    def _withdraw(self, claims: ServiceClaims, touched: _Touched) -> None:
        if claims.service not in self.claims:
            self._own_ips.discard(claims.own_ips, claims.service)
        for claim in claims.ports:
            self._lost.pop(claim.key, None)
            claimants = self._claimants[claim.protocol]
            for frontend in claim.frontends:
                address = frontend.address
                if frontend.kind is FrontendKind.EXTERNAL_IP:
                    self._external_ip_claims.discard([frontend.ip], claims.service)
                if frontend.last:
                    self._ranges.discard(frontend, claim)
                    continue
                have = claimants.get(address, ())
                rest = tuple([c for c in have if c is not claim])
                if len(rest) == len(have):
                    continue
                touched.setdefault((claim.protocol, address), have)
                if rest:
                    claimants[address] = rest
                else:
                    del claimants[address]

    def _enter(self, claims: ServiceClaims, touched: _Touched) -> None:
        for claim in claims.ports:
            alone = (claim,)
            claimants = self._claimants[claim.protocol]
            for frontend in claim.frontends:
                address = frontend.address
                if frontend.kind is FrontendKind.EXTERNAL_IP:
                    self._external_ip_claims.add([frontend.ip], claims.service)
                    if owner := self._owner_of(frontend.ip, claims.service):
                        taken = external_ip_of(frontend.ip, owner)
                        self._lost.setdefault(claim.key, {})[frontend] = taken
                        continue
                if frontend.last:
                    self._ranges.add(frontend, claim)
                    continue
                have = claimants.get(address, ())
                touched.setdefault((claim.protocol, address), have)
                claimants[address] = (*have, claim) if have else alone

    def _decide(self, protocol: Protocol, address: SocketAddress) -> None:
        """Sort the claimants of an address, and record the claims that lost: all but the first."""
        claimants = self._claimants[protocol].get(address, ())
        claimed = {claim.key: _frontend_at(claim, address) for claim in claimants}
        in_order = sorted(claimants, key=lambda c: _precedence(claimed[c.key], c))
        for claim in in_order:
            holder = None if claim is in_order[0] else in_order[0]
            self._note_loss(claimed[claim.key], claim, holder)
        if in_order:
            self._claimants[protocol][address] = tuple(in_order)

    def _note_loss(self, frontend: Frontend, claim: PortClaim, holder: PortClaim | None) -> None:
        """Record that a claim has lost a frontend to ``holder``; None if the claim owns it."""
        if holder is not None:
            taken = held_by(str(frontend), str(holder.key.name))
            self._lost.setdefault(claim.key, {})[frontend] = taken
        elif lost := self._lost.get(claim.key):
            lost.pop(frontend, None)
            if not lost:
                del self._lost[claim.key]

    def _owner_of(self, ip: str, service: ServiceKey) -> ServiceKey | None:
        """Return another Service that has an external IP as its own address, or None."""
        return min((owner for owner in self._own_ips[ip] if owner != service), default=None)


_KINDS = {
    FrontendKind.CLUSTER_IP: "cluster IP",
    FrontendKind.NODE_PORT: "node port",
    FrontendKind.LOAD_BALANCER: "load balancer IP",
    FrontendKind.EXTERNAL_IP: "external IP",
}


def lost_address(frontend: Frontend, cause: Cause) -> tuple[tuple[str, str], Cause]:
    """Return the address that a Service port lost, and why it isn't served on that address."""
    kind, about = _KINDS[frontend.kind], object_of(cause)
    number = str(frontend.port) if frontend.kind is FrontendKind.NODE_PORT else frontend.ip
    if frontend.last:
        number = f"{frontend.dialled}/{frontend.protocol}"
    if holder := cause.get("holder"):
        return (kind, number), lost_to(about, kind, number, str(holder))
    return (kind, number), lost_as_address(about, kind, number, str(cause.get("owner")))


def _precedence(frontend: Frontend, claim: PortClaim) -> tuple[object, ...]:
    """Return the key by which claims are sorted; the claim with the lowest key wins."""
    return _PRECEDENCE[frontend.kind], claim.created, claim.key


def _node_ports(claims: Iterable[ServiceClaims], protocol: Protocol) -> Counter[int]:
    return Counter(
        frontend.port
        for one in claims
        for port in one.ports
        if port.protocol is protocol
        for frontend in port.frontends
        if frontend.kind is FrontendKind.NODE_PORT
    )


def _frontend_at(claim: PortClaim, address: SocketAddress) -> Frontend:
    return next(f for f in claim.frontends if f.address == address and not f.last)
