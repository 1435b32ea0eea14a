"""Steers by two tables: one maps frontends to endpoints, the other maps frontends to ports.

change ─▶ kernel path's table ─▶ table of ports ─▶ stale conntrack entries removed
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Mapping

from ...errors import SteeringError
from ...filters.frontends import Translation
from ...kernel.interfaces import not_forwarding, without_ipv6
from ...kernel.nf_tables.kept_table import KeptTable, Repair
from ...kernel.nf_tables.nft_table import Steps
from ...kernel.nf_tables.writer import SetElement
from ...kernel.offers import (
    FOR_KERNEL_PATH,
    FOR_NFTABLES,
    FOR_SOURCE_HASH,
    LACKS_NOTHING,
    KernelOffers,
)
from ...model import Balance, Frontend, IPFamily, Protocol, SocketAddress, Taken
from ..base import (
    REFUSE,
    Bind,
    EndpointChoice,
    KernelTarget,
    Refusal,
    SteeringFacts,
    Target,
    render_targets,
)
from ..names import STEERING_TABLES
from ..programmer import Affected, NatProgrammer, Ports, ProgrammedSteering, ReleasedPorts
from .kernel_path import KernelPath, KernelTargets
from .kernel_rules import NAT_PRIORITY as KERNEL_PRIORITY
from .rules import (
    ALL_MAPS,
    NAT_PRIORITY,
    OTHER_PORTS,
    SETS,
    Shape,
    all_elements,
    count_uses,
    differing_frontends,
    each_port,
    guard_key,
    is_guard,
    is_looked_up,
    read_frontend,
    read_ports,
    refuse_port_of,
    to_ip_of,
    used_elements,
    write_prerouting,
    write_table,
)

# A placeholder for the unknown port of a frontend that was translated to endpoints.
_NO_PORT = 0


def missing(kernel: KernelOffers) -> str:
    """Return what ``nftables`` steering lacks on this node; empty if it can work."""
    return kernel.obstacle(FOR_NFTABLES, "nftables")


def find_no_kernel_path(kernel: KernelOffers) -> dict[IPFamily | Balance | Protocol, str]:
    """Return the ``no_kernel_path`` that a started :class:`NftablesSteering` would have."""
    if lacks := kernel.obstacle((*FOR_NFTABLES, *FOR_KERNEL_PATH), "nftables"):
        return dict.fromkeys(IPFamily, lacks)
    obstacles: dict[IPFamily | Balance | Protocol, str] = dict(not_forwarding().items())
    if no_hash := kernel.words(FOR_SOURCE_HASH):
        obstacles[Balance.SOURCE_HASH] = no_hash
    return obstacles


class NftablesSteering(ProgrammedSteering["NftablesProgrammer"]):
    """Steering by two tables: one maps frontends to ports, the other maps them to endpoints."""

    name = "nftables"
    bind = Bind.PROXY_PORT
    needs_transparent = True

    def __init__(self, facts: SteeringFacts, kernel: KernelOffers = LACKS_NOTHING) -> None:
        super().__init__(facts, lambda: NftablesProgrammer(facts))
        self._kernel = kernel

    async def start(self) -> Mapping[Frontend, int]:
        recovered = await super().start()
        await self._look_at_forwarding()
        return recovered

    async def repair(self) -> int:
        count = await super().repair()
        await self._look_at_forwarding()
        return count

    async def apply(self, wanted: Mapping[Frontend, Target]) -> None:
        ports, targets = self._ports(wanted), _kernel_targets(wanted)
        await self._do(lambda programmer: programmer.apply_all(ports, targets))

    async def change(self, changed: Mapping[Frontend, Target], gone: Collection[Frontend]) -> None:
        affected: Affected = {**dict.fromkeys(gone), **self._ports(changed)}
        targets = _kernel_targets(changed)
        await self._do(lambda programmer: programmer.change_all(affected, targets))

    async def forget_stale(self) -> None:
        await self._do(lambda programmer: programmer.forget_stale())

    async def render(self) -> str:
        ports, endpoints_of = await self._do(
            lambda programmer: (programmer.in_force(), programmer.endpoints_in_force())
        )
        targets: dict[Frontend, Target] = {}
        for frontend, port in ports.items():
            otherwise = REFUSE if port == self._refuse_port else port
            targets[frontend] = otherwise
            if endpoints := endpoints_of.get(frontend):
                targets[frontend] = KernelTarget(otherwise, (EndpointChoice(endpoints),))
        return render_targets(targets)

    async def kernel_connections(self) -> Mapping[Frontend, int] | None:
        return await self._do(lambda programmer: programmer.kernel_connections())

    async def other_ports(self) -> Mapping[Frontend, int]:
        return await self._do(lambda programmer: programmer.other_ports())

    async def _look_at_forwarding(self) -> None:
        """Read the forwarding sysctls, which CNI plugins, for example, change without an event."""
        kernel = self._kernel
        self.no_kernel_path = await self._do(lambda _programmer: find_no_kernel_path(kernel))


class NftablesProgrammer(NatProgrammer):
    """The tables of one proxy; the constructor and most methods may raise a SteeringError."""

    def __init__(self, facts: SteeringFacts) -> None:
        # Open the table first, because that fails if nftables is missing.
        name = STEERING_TABLES.of(facts.proxy_name)
        with contextlib.ExitStack() as opened:
            self._table = KeptTable(name, SETS, self._create, self._elements)
            opened.callback(self._table.close)
            super().__init__(facts)
            opened.callback(super().close)
            self._kernel_path = KernelPath(facts.proxy_name)
            self._kernel_path.pair_with(self._table)
            opened.pop_all()
        self._refuse_port = self._earlier_refuse_port = facts.refuse_port
        self._without_ipv6: dict[Frontend, Taken] = {}
        self._uses: dict[bytes, int] = {}
        """The number of frontends that use each port and ClusterIP, by its key."""
        self._released: ReleasedPorts[bytes] = ReleasedPorts()
        self._targets: dict[Frontend, KernelTarget] = {}
        """The desired targets of frontends that are, or were, on the kernel path."""
        self._ended: dict[Frontend, tuple[EndpointChoice, ...]] = {}
        """Former endpoints of frontends, from an earlier target, an earlier run or a refused
        change, until the flows to these endpoints have been ended."""

    def unguarded(self) -> str:
        return "" if self._table.is_complete else "this kernel has no nft_socket"

    def unsteered(self) -> Mapping[Frontend, str | Taken]:
        return {**self._taken_earlier, **self._without_ipv6}

    def start(self) -> Ports:
        self._entries.check(4)
        listing = self._table.read(ALL_MAPS)
        if listing is None:
            return {}
        self._to_ip = to_ip_of(listing)
        self._earlier_refuse_port = refuse_port_of(listing)
        refuse_ports = {self._refuse_port, self._earlier_refuse_port}
        ports = read_ports(listing.elements_of(ALL_MAPS))
        return {f: 0 if port in refuse_ports else port for f, port in ports.items()}

    def apply_all(self, ports: Ports, targets: dict[Frontend, KernelTarget]) -> None:
        """Steer exactly these frontends; translate the frontends in ``targets`` to endpoints."""
        if self._applied is not None:
            gone = dict.fromkeys(self._applied.keys() - ports.keys())
            self.change_all({**gone, **ports}, targets)
        else:
            self._targets = targets
            self._kernel_path.load(targets, self._note_left)
            self.apply(ports)
        self.forget_stale()

    def change_all(self, affected: Affected, targets: Mapping[Frontend, KernelTarget]) -> None:
        """Steer some frontends; a frontend without a kernel target points only to its port.

        Endpoints are written before ports, because the proxy would create affinity entries for
        clients that reach it in between.
        """
        moved = {f: targets.get(f) for f in affected if self._targets.get(f) != targets.get(f)}
        before = {frontend: self._targets.get(frontend) for frontend in moved}
        self._set_targets(moved)
        try:
            self._kernel_path.change(moved, [f for f, port in affected.items() if port is None])
            self.change(affected)
        except SteeringError:
            self._note_refused(moved)
            self._set_targets(before)
            applied = self._applied or {}
            self._kernel_path.undo(before, [f for f in affected if f not in applied])
            raise
        self._note_ended(affected, before)

    def forget_stale(self) -> None:
        with contextlib.suppress(SteeringError):
            self._forget_stale()

    def kernel_connections(self) -> Mapping[Frontend, int] | None:
        return self._kernel_path.connections()

    def other_ports(self) -> dict[Frontend, int]:
        counts = ((family, self._table.counts(name)) for family, name in OTHER_PORTS.items())
        found = {read_frontend(key, f): n for f, some in counts for key, n in some.items() if n}
        return {frontend: packets for frontend, packets in found.items() if frontend is not None}

    def endpoints_in_force(self) -> dict[Frontend, tuple[SocketAddress, ...]]:
        return self._kernel_path.in_force()

    def in_force(self) -> Ports:
        listing = self._table.look()
        if listing is None:
            return {}
        ports = read_ports(
            listing.elements_of(SETS), [m for m in ALL_MAPS if is_looked_up(listing, m)]
        )
        # Until the first apply, the earlier run's refuse port is in use, so report this run's port
        # for it.
        refused = refuse_port_of(listing)
        return {f: self._refuse_port if port == refused else port for f, port in ports.items()}

    def clean_up(self) -> None:
        self._note_left(self._kernel_path.in_force())
        self._kernel_path.remove()
        listing = self._table.look()
        self._table.remove()
        self._forget_all(read_ports(listing.elements_of(SETS)) if listing else {})

    def close(self) -> None:
        self._table.close()
        self._kernel_path.close()
        super().close()

    def _load(self) -> None:
        left = self.start()
        self._note_earlier({f: port or self._earlier_refuse_port for f, port in left.items()})
        self._released.add(guard_key(f, port) for f, port in left.items() if port)
        self._uses = count_uses(self._applied or {}, self._refuse_port)
        self._table.write_all()

    def _write(self, before: Affected, affected: Affected) -> None:
        self._note_stale(before)
        changes, uses = differing_frontends(before, affected, self._uses, self._refuse_port)
        unused = (k for k, count in uses.items() if not count and self._uses.get(k))
        self._released.add(filter(is_guard, unused))
        self._uses |= uses
        self._note_repair(self._table.change(changes.removed, changes.added))
        self._follow_address()

    def _restore(self, affected: Affected, before: Affected) -> None:
        self._uses = count_uses(self._applied or {}, self._refuse_port)
        self._note_repair(self._table.put_right())

    def _repair(self) -> int:
        repair = self._table.repair()
        self._note_repair(repair)
        with self._released.end_round() as ended:
            if unguarded := {key for key in ended if not self._uses.get(key)}:
                self._note_repair(self._table.change(used_elements(unguarded), ()))
        count = repair.count + self._kernel_path.repair()
        self._follow_address()
        self._forget_stale()
        self._without_ipv6 = without_ipv6(self._applied or ())
        return count

    def _set_targets(self, targets: KernelTargets) -> None:
        for frontend, target in targets.items():
            if target is None:
                self._targets.pop(frontend, None)
            else:
                self._targets[frontend] = target

    def _translation_of(self, frontend: Frontend) -> Translation:
        target = self._targets.get(frontend)
        if target is not None and target.is_on:
            return Translation(KERNEL_PRIORITY)
        return Translation(NAT_PRIORITY, (self._applied or {}).get(frontend, 0))

    def _choices(self, frontend: Frontend) -> Collection[EndpointChoice]:
        target = self._targets.get(frontend)
        if target is None and frontend not in (self._applied or {}):
            return self._ended.get(frontend, ())
        if target is None or (frontend.protocol is Protocol.TCP and not target.is_on):
            # The proxy serves these clients, so no conntrack entry may lead to an endpoint. Open
            # TCP connections stay anyway.
            return ()
        return target.choices

    def _forget_stale(self) -> None:
        for frontend, endpoints in self._kernel_path.take_repaired().items():
            self._note_led([(frontend, (self._applied or {}).get(frontend, _NO_PORT))])
            if endpoints:
                self._note_endpoints(frontend, (EndpointChoice(endpoints),))
        super()._forget_stale()
        self._ended = {}

    def _note_ended(self, affected: Affected, before: KernelTargets) -> None:
        """Record the frontends that may have UDP flows or unanswered SYNs to former endpoints.

        A SYN to a silent endpoint is retransmitted, and follows its conntrack entry for up to two
        minutes, as does a new connection from the same port.
        """
        for frontend, target in before.items():
            if target is None:
                # Clients were refused before. If they are still refused, because no choice admits
                # them, the frontend's port hasn't changed.
                if frontend.protocol is Protocol.UDP and affected[frontend] == self._refuse_port:
                    self._note_led([(frontend, self._refuse_port)])
                continue
            port = self._refuse_port if isinstance(target.port, Refusal) else target.port
            if affected[frontend] is None:
                self._note_endpoints(frontend, target.choices)
                # The frontend may return to the kernel path before its entries are removed, so
                # record its port now.
                self._note_led([(frontend, port)])
                continue
            is_concerned = target.is_on or frontend.protocol is Protocol.UDP
            if is_concerned and target.choices != self._choices(frontend):
                self._note_led([(frontend, port)])

    def _note_left(self, left: Mapping[Frontend, tuple[SocketAddress, ...]]) -> None:
        """Record the endpoints to which an earlier run, or a refused first apply, sent clients.

        Then :meth:`forget_stale` also removes the conntrack entries of unanswered SYNs to former
        endpoints, and of flows of frontends that are no longer steered.
        """
        for frontend, endpoints in left.items():
            self._note_led([(frontend, _NO_PORT)])
            self._note_endpoints(frontend, (EndpointChoice(endpoints),))

    def _note_refused(self, targets: KernelTargets) -> None:
        """Record endpoints to which a refused change may have sent clients until it was undone."""
        for frontend, target in targets.items():
            if target is not None and target.is_on:
                self._note_led([(frontend, _NO_PORT)])
                self._note_endpoints(frontend, target.choices)

    def _note_endpoints(self, frontend: Frontend, choices: Collection[EndpointChoice]) -> None:
        """Record a frontend's former endpoints, to which no flows may remain."""
        known = self._ended.get(frontend, ())
        self._ended[frontend] = tuple(dict.fromkeys((*known, *choices)))

    def _create(self, checks_sockets: bool) -> Steps:
        self._choose_address()
        return [write_table(self._shape(checks_sockets))]

    def _elements(self) -> set[SetElement]:
        used = all_elements(self._applied or {}, self._refuse_port)
        return used | used_elements(self._released)

    def _shape(self, checks_sockets: bool) -> Shape:
        return Shape(self._table.name, self._refuse_port, self._to_ip, checks_sockets)

    def _note_repair(self, repair: Repair) -> None:
        """Record frontends whose elements were missing or wrong for a while.

        In that time, their connections may have been translated to any destination.
        """
        self._note_led((frontend, None) for frontend, _ in each_port(repair.added))
        self._note_led(each_port(repair.removed))

    def _choose_address(self) -> bool:
        """Choose the address for DNAT; return whether rules must change."""
        to_ip = self._choose_ip()
        if to_ip == self._to_ip:
            return False
        self._to_ip = to_ip
        # Unless the kernel accepts the new rules, the next repair rewrites the whole table.
        self._table.forget()
        return True

    def _follow_address(self) -> None:
        """Rewrite the rules that depend on interfaces, if these rules must change."""
        if self._address.has_changed() and self._choose_address():
            self._table.redefine([write_prerouting(self._shape(self._table.is_complete))])


def _kernel_targets(targets: Mapping[Frontend, Target]) -> dict[Frontend, KernelTarget]:
    return {f: target for f, target in targets.items() if isinstance(target, KernelTarget)}
