"""Snapshot and node facts in, plan out.

Service ──claims──▶ settlement: who has which frontend ──┐
Service + slices + all frontends ──▶ port plans          ├──▶ Plan
                                                        ─┘
Rule 1: what was made of a Service is kept while its state is the same object and its
endpoints point to none of the frontends that came or went.
Rule 2: what is kept changes what a plan costs, never what is in it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace

from ..cluster import ServiceState, Snapshot
from ..model import Protocol, Service, ServiceKey, ServicePort, SocketAddress
from ..policy import NodeFacts, usable_endpoints
from .claims import PortClaim, ServiceClaims, Settlement, claims_of, settle
from .plan import Ignored, Plan, PortKey, PortPlan

_Served = Mapping[Protocol, frozenset[SocketAddress]]


class Planner:
    """Makes plans; keeps what it made of each Service while that stays the same.

    Args:
        facts: What the plan must know of this node.
    """

    def __init__(self, facts: NodeFacts) -> None:
        self._facts = facts
        self._states: Mapping[ServiceKey, ServiceState] = {}
        self._claims: dict[ServiceKey, ServiceClaims] = {}
        self._settlement = Settlement({}, {})
        self._served: _Served = {protocol: frozenset() for protocol in Protocol}
        self._made: dict[ServiceKey, tuple[PortPlan, ...]] = {}
        self._last = Plan.empty()
        self.planned_services = 0
        """How many Services were planned anew since the start."""

    def plan(self, snapshot: Snapshot) -> Plan:
        """Return the plan for a snapshot; what costs time is what changed since the last."""
        old, new = self._states, snapshot.services
        changed = {key for key, state in new.items() if old.get(key) is not state}
        gone = old.keys() - new.keys()
        self._states = new
        are_claims_other = self._claim(changed, gone)
        if are_claims_other:
            changed |= self._settle()
        for key in changed:
            claims = self._claims[key].ports
            self._made[key] = tuple(self._plan_port(new[key], claim) for claim in claims)
        self.planned_services += len(changed)
        if are_claims_other:
            self._last = Plan(self._all_ports(), self._all_ignored(), snapshot.revision)
        else:
            ports = {**self._last.ports, **dict(self._held_ports(changed))}
            self._last = replace(self._last, ports=ports, revision=snapshot.revision)
        return self._last

    def _claim(self, changed: Iterable[ServiceKey], gone: Collection[ServiceKey]) -> bool:
        """Take in what Services ask for; tell whether that is other than it was."""
        are_other = bool(gone)
        for key in gone:
            del self._claims[key], self._made[key]
        for key in changed:
            claims = claims_of(self._states[key].service, self._facts)
            if self._claims.get(key) != claims:
                self._claims[key] = claims
                are_other = True
        return are_other

    def _settle(self) -> set[ServiceKey]:
        """Settle the claims; return the Services with endpoints among what came or went."""
        self._settlement = settle(self._claims.values())
        before, self._served = self._served, _served(self._settlement)
        moved = {protocol: before[protocol] ^ self._served[protocol] for protocol in Protocol}
        if not any(moved.values()):
            return set()
        return {
            key
            for key, ports in self._made.items()
            for port in ports
            if not moved[port.protocol].isdisjoint([v.address for v in port.endpoints])
        }

    def _plan_port(self, state: ServiceState, claim: PortClaim) -> PortPlan:
        usable = usable_endpoints(
            state.slices,
            port=claim.port.name,
            protocol=claim.protocol,
            family=claim.key.family,
            facts=self._facts,
            ours=self._served[claim.protocol],
        )
        return PortPlan(
            key=claim.key,
            protocol=claim.protocol,
            frontends=claim.frontends,
            endpoints=usable.verdicts,
            usable=usable.addresses,
            reason=usable.reason,
            affinity_timeout_s=state.service.affinity_timeout_s,
            notes=_notes(state.service, claim.port),
        )

    def _held_ports(self, keys: Iterable[ServiceKey]) -> Iterable[tuple[PortKey, PortPlan]]:
        """Yield the ports of some Services that hold a frontend, without what they lost."""
        for key in keys:
            for port in self._made[key]:
                lost = self._settlement.lost.get(port.key)
                if not lost:
                    yield port.key, port
                elif held := tuple(f for f in port.frontends if f not in lost):
                    yield port.key, replace(port, frontends=held)

    def _all_ports(self) -> dict[PortKey, PortPlan]:
        return dict(self._held_ports(sorted(self._made)))

    def _all_ignored(self) -> tuple[Ignored, ...]:
        ignored = [item for claims in self._claims.values() for item in claims.ignored]
        for key, frontends in self._settlement.lost.items():
            for frontend in frontends:
                holder = self._settlement.holders[frontend].key.name
                port = key.name.port or str(frontend.port)
                reason = f"{frontend} is already held by {holder}"
                ignored.append(Ignored(key.name.service, port, reason, is_conflict=True))
        return tuple(sorted(ignored, key=lambda i: (i.service, i.port, i.reason)))


def _served(settlement: Settlement) -> _Served:
    """Return every frontend's address, by protocol."""
    return {
        protocol: frozenset(f.address for f in settlement.holders if f.protocol is protocol)
        for protocol in Protocol
    }


def _notes(service: Service, port: ServicePort) -> tuple[str, ...]:
    """Say what is asked for and not served by this version."""
    notes = []
    if port.node_port:
        notes.append(f"node port {port.node_port} is not served by this version")
    notes.extend(f"external IP {ip} is not served" for ip in service.external_ips)
    notes.extend(
        f"load-balancer IP {ip} is not served by this version" for ip in service.load_balancer_ips
    )
    if service.is_internal_local:
        notes.append("internalTrafficPolicy Local is treated as Cluster by this version")
    return tuple(notes)
