"""Keeps the table in the kernel as desired.

    difference ─▶ one transaction ─▶ in force ─▶ stale conntrack entries removed
    refused, or changed by others ─▶ table read in full ─▶ what differs, or the whole table

Rule 1: unless another program has changed the table, it contains what was written last.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Collection, Iterable, Mapping

from ...errors import SteeringConflict, SteeringError
from ...kernel import conntrack
from ...kernel.interfaces import not_forwarding, without_ipv6
from ...kernel.nf_tables import NftablesError, Ruleset
from ...kernel.nf_tables.table import Definition, Listing, NftTable
from ...model import Balance, Frontend, IPFamily, Protocol, SocketAddress
from ..base import REFUSE, Bind, EndpointChoice, Forward, SteeringFacts, Target, render_targets
from ..earlier_nat import EarlierNat
from ..names import STEERING_TABLES
from ..programmer import NatProgrammer, Ports, ProgrammedSteering, Touched
from .elements import elements_of
from .kernel_path import Forwards, KernelPath, find_missing
from .rules import (
    MAPS,
    NAT_PRIORITY,
    SETS,
    Shape,
    all_elements,
    count_uses,
    differing_elements,
    differing_frontends,
    is_looked_up,
    read_ports,
    refuse_port_of,
    to_ip_of,
    write_changes,
    write_prerouting,
    write_table,
)


def missing() -> str:
    """Return what nftables lacks to work here; empty where it lacks nothing."""
    try:
        Ruleset().close()
    except SteeringError as exc:
        return exc.message
    return ""


def find_no_kernel_path(proxy_name: str) -> dict[IPFamily | Balance, str]:
    """Return what ``no_kernel_path`` of a started :class:`NftablesSteering` would be.

    Raises:
        SteeringError: A privilege or a kernel part is missing.
    """
    return dict((*not_forwarding().items(), *find_missing(proxy_name).items()))


class NftablesSteering(ProgrammedSteering["NftablesProgrammer"]):
    """Maps from frontends to ports in a table of this proxy, and to endpoints in another one."""

    name = "nftables"
    bind = Bind.PROXY_PORT
    needs_transparent = True

    def __init__(self, facts: SteeringFacts) -> None:
        super().__init__(facts, lambda: NftablesProgrammer(facts))
        self._missing: Mapping[IPFamily | Balance, str] = {}

    async def start(self) -> Mapping[Frontend, int]:
        """Part of Steering."""
        recovered = await super().start()
        name = self.facts.proxy_name
        self._missing = await self._do(lambda _programmer: find_missing(name))
        await self._look_at_forwarding()
        return recovered

    async def repair(self) -> int:
        """Part of Steering."""
        count = await super().repair()
        await self._look_at_forwarding()
        return count

    async def apply(self, wanted: Mapping[Frontend, Target]) -> None:
        """Part of Steering."""
        ports, forwards = self._ports(wanted), _forwards(wanted)
        await self._do(lambda programmer: programmer.apply_all(ports, forwards))

    async def change(self, changed: Mapping[Frontend, Target], gone: Collection[Frontend]) -> None:
        """Part of Steering."""
        touched: Touched = {**dict.fromkeys(gone), **self._ports(changed)}
        forwards = _forwards(changed)
        await self._do(lambda programmer: programmer.change_all(touched, forwards))

    async def forget_stale(self) -> None:
        """Part of Steering."""
        await self._do(lambda programmer: programmer.forget_stale())

    async def render(self) -> str:
        """Part of Steering."""
        ports, forwards = await self._do(
            lambda programmer: (programmer.in_force(), programmer.forwards_in_force())
        )
        targets: dict[Frontend, Target] = {}
        for frontend, port in ports.items():
            targets[frontend] = REFUSE if port == self._refuse_port else port
            if endpoints := forwards.get(frontend):
                targets[frontend] = Forward(port, (EndpointChoice(endpoints),))
        return render_targets(targets)

    async def kernel_connections(self) -> Mapping[Frontend, int] | None:
        """Part of Steering."""
        return await self._do(lambda programmer: programmer.kernel_connections())

    async def _look_at_forwarding(self) -> None:
        """Follow sysctls, which change without notice, for instance when the CNI starts."""
        obstacles = await self._do(lambda _programmer: not_forwarding())
        self.no_kernel_path = dict((*obstacles.items(), *self._missing.items()))


class NftablesProgrammer(NatProgrammer):
    """The table of one proxy.

    Raises:
        SteeringError: A privilege or a kernel part is missing.
    """

    def __init__(self, facts: SteeringFacts) -> None:
        # First, because nftables may be missing.
        self._table = NftTable(STEERING_TABLES.of(facts.proxy_name))
        super().__init__(facts)
        self._refuse_port = facts.refuse_port
        self._earlier = EarlierNat(NAT_PRIORITY)
        self._translated_earlier: dict[Frontend, str] = {}
        self._checks_sockets = True
        """Whether the kernel can look up sockets (nft_socket)."""
        self._uses: Counter[bytes] = Counter()
        self._rules: tuple[Definition, ...] | None = None
        """Everything but the elements, as the kernel lists it; None where it is unknown."""
        self._kernel_path = KernelPath(facts.proxy_name)
        self._forwards: dict[Frontend, Forward] = {}
        """The desired targets of frontends that are on the kernel path, or have been."""
        self._ended: dict[Frontend, Forward] = {}
        """What frontends had that are no longer steered, until their flows are ended."""

    def unguarded(self) -> str:
        """Part of Programmer."""
        return "" if self._checks_sockets else "this kernel has no nft_socket"

    def unsteered(self) -> Mapping[Frontend, str]:
        """Part of Programmer."""
        return self._translated_earlier

    def start(self) -> Ports:
        """Part of Programmer."""
        conntrack.check(4)
        return self._recover(self._table.read())

    def apply_all(self, ports: Ports, forwards: dict[Frontend, Forward]) -> None:
        """Make the kernel steer exactly these frontends, some of them to endpoints."""
        if self._applied is not None:
            gone = dict.fromkeys(self._applied.keys() - ports.keys())
            self.change_all({**gone, **ports}, forwards)
        else:
            self._forwards = forwards
            self._kernel_path.load(forwards)
            self.apply(ports)
        self.forget_stale()

    def change_all(self, touched: Touched, forwards: Mapping[Frontend, Forward]) -> None:
        """Steer some frontends; those of ``touched`` without a forward lead to ports alone.

        First to endpoints, then to ports: the proxy would pin clients that reach it meanwhile.
        """
        moved = {f: forwards.get(f) for f in touched if self._forwards.get(f) != forwards.get(f)}
        before = {frontend: self._forwards.get(frontend) for frontend in moved}
        self._set_forwards(moved)
        try:
            self._kernel_path.change(moved, [f for f, port in touched.items() if port is None])
            self.change(touched)
        except SteeringError:
            self._set_forwards(before)
            with contextlib.suppress(SteeringError):
                self._kernel_path.change(before)
            raise
        self._note_ended(touched, before)

    def forget_stale(self) -> None:
        """Part of Steering."""
        with contextlib.suppress(SteeringError):
            self._forget_stale()

    def kernel_connections(self) -> Mapping[Frontend, int] | None:
        """As in :class:`..base.Steering`."""
        return self._kernel_path.connections()

    def forwards_in_force(self) -> dict[Frontend, tuple[SocketAddress, ...]]:
        """Return the endpoints of frontends on the kernel path, read from the kernel."""
        return self._kernel_path.in_force()

    def in_force(self) -> Ports:
        """Part of Programmer."""
        listing = self._table.look()
        if listing is None:
            return {}
        return read_ports(
            elements_of(listing, SETS), [m for m in MAPS.values() if is_looked_up(listing, m)]
        )

    def clean_up(self) -> None:
        """Part of Programmer."""
        self._kernel_path.remove()
        listing = self._table.read()
        if listing is not None:
            self._table.remove()
        self._forget_all(read_ports(elements_of(listing, SETS)) if listing else {})
        self._rules = None

    def close(self) -> None:
        """Part of Programmer."""
        self._table.close()
        self._kernel_path.close()
        self._earlier.close()
        self._address.close()

    def _load(self) -> None:
        # Connections that began while no rules were maintained may lead anywhere.
        self._stale |= dict.fromkeys(self._applied or {}) | self.start()
        self._write_all()

    def _write(self, before: Touched, touched: Touched) -> None:
        self._note_stale(before)
        to_ip, rules = self._to_ip, self._rules
        try:
            if self._table.is_touched():
                self._put_right()
            else:
                self._write_difference(before, touched)
        except NftablesError:
            # What is in force was written here, so it isn't drift. Rules that must follow an
            # address have to be written yet.
            if self._to_ip == to_ip:
                self._rules = rules
            raise

    def _restore(self, touched: Touched, before: Touched) -> None:
        self._put_right()

    def _repair(self) -> int:
        count = 0
        if self._table.is_touched() or self._rules is None:
            count = self._put_right()
        count += self._kernel_path.repair()
        if self._address.has_changed():
            self._follow_address()
        self._forget_stale()
        ports = self._applied or {}
        self._translated_earlier = self._earlier.look(ports.keys()) | without_ipv6(ports)
        return count

    def _set_forwards(self, forwards: Forwards) -> None:
        for frontend, forward in forwards.items():
            if forward is None:
                self._forwards.pop(frontend, None)
            else:
                self._forwards[frontend] = forward

    def _choices(self, frontend: Frontend) -> Collection[EndpointChoice]:
        forward = self._forwards.get(frontend)
        if forward is None and frontend not in (self._applied or {}):
            forward = self._ended.get(frontend)
        if forward is None or (frontend.protocol is Protocol.TCP and not forward.is_on):
            # Open connections stay; what no endpoint has answered is the proxy's.
            return ()
        return forward.choices

    def _forget_stale(self) -> None:
        super()._forget_stale()
        self._ended = {}

    def _note_ended(self, touched: Touched, before: Forwards) -> None:
        """Note frontends with UDP flows, or unanswered SYNs, to endpoints that they no longer have.

        A SYN to an endpoint that doesn't answer is sent again, and follows its entry for up to two
        minutes; so does a new connection from the same port.
        """
        for frontend, forward in before.items():
            if forward is None:
                continue
            if touched[frontend] is None:
                self._ended[frontend] = forward
                continue
            is_concerned = forward.is_on or frontend.protocol is Protocol.UDP
            if is_concerned and forward.choices != self._choices(frontend):
                self._stale.setdefault(frontend, forward.port)

    def _recover(self, listing: Listing | None) -> Ports:
        if listing is None:
            return {}
        if listing.is_owned:
            raise SteeringConflict(
                f"cannot use the nftables table inet {self._table.name}: another program owns it",
                hint="stop that program, or run with --steering=iptables",
            )
        self._to_ip = to_ip_of(listing)
        refuse_ports = {self._refuse_port, refuse_port_of(listing)}
        ports = read_ports(elements_of(listing, SETS))
        return {f: 0 if port in refuse_ports else port for f, port in ports.items()}

    def _shape(self) -> Shape:
        return Shape(self._table.name, self._refuse_port, self._to_ip, self._checks_sockets)

    def _write_difference(self, before: Touched, touched: Touched) -> None:
        """Write a difference; where the kernel has something else, everything that differs."""
        changes, uses = differing_frontends(before, touched, self._uses, self._refuse_port)
        try:
            self._table.write(write_changes(self._table.name, changes))
        except NftablesError:
            self._put_right()
        else:
            for key, count in uses.items():
                self._uses[key] = count
                if not count:
                    del self._uses[key]
        if self._address.has_changed():
            self._follow_address()

    def _follow_address(self) -> None:
        """Rewrite the rules that depend on interfaces, if they must change."""
        to_ip = self._address.choose(self._to_ip)
        if to_ip == self._to_ip:
            return
        self._to_ip, self._rules = to_ip, None
        self._table.write([write_prerouting(self._shape())])
        self._rules = self._table.read_definitions()

    def _put_right(self) -> int:
        """Compare the table in full and write what differs; return how much did."""
        listing = self._table.read()
        wanted = all_elements(self._applied or {}, self._refuse_port)
        if listing is None:
            return len(wanted) + self._write_all()
        changes = differing_elements(elements_of(listing, SETS), wanted)
        if listing.definitions != self._rules:
            faults = _count_differing(listing.definitions, self._rules or ())
            self._write_all()
            return changes.element_count() + max(faults, 1)
        # An element that is written was missing or different for a while, so its connections may
        # lead anywhere.
        self._stale |= read_ports(changes.removed) | dict.fromkeys(read_ports(changes.added))
        try:
            self._table.write(write_changes(self._table.name, changes))
        except NftablesError:
            self._write_all()
        self._uses = count_uses(self._applied or {}, self._refuse_port)
        return changes.element_count()

    def _write_all(self) -> int:
        """Write the table anew; return how many rules it has."""
        ports = self._applied or {}
        # Until the kernel has accepted them: a repair must try again.
        self._rules = None
        self._to_ip = self._address.choose(self._to_ip)
        changes = differing_elements(set(), all_elements(ports, self._refuse_port))
        commands = write_changes(self._table.name, changes)
        try:
            self._table.write([write_table(self._shape()), *commands])
        except NftablesError:
            if not self._checks_sockets:
                raise
            # For a kernel without nft_socket.
            shape = self._shape()._replace(checks_sockets=False)
            self._table.write([write_table(shape), *commands])
            self._checks_sockets = False
        self._rules = self._table.read_definitions()
        self._uses = count_uses(ports, self._refuse_port)
        # Other rules may have led anywhere.
        self._stale |= {frontend: self._stale.get(frontend) for frontend in ports}
        return len(self._rules or ())


def _forwards(targets: Mapping[Frontend, Target]) -> dict[Frontend, Forward]:
    return {f: target for f, target in targets.items() if isinstance(target, Forward)}


def _count_differing(some: Iterable[Definition], others: Iterable[Definition]) -> int:
    have, want = Counter(some), Counter(others)
    return ((have - want) + (want - have)).total()
