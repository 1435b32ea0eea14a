"""Applies the desired table to the kernel; every call blocks, in one thread.

    difference ─▶ one transaction ─▶ stale conntrack entries
    refused, or touched by others ─▶ table read in full ─▶ what differs, or all anew

Rule 1: unless another program has changed the table, it has what was written last.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterable, Mapping

from ...errors import SteeringConflict, SteeringError
from ...kernel import conntrack
from ...kernel.conntrack import Change, Dialled
from ...kernel.interfaces import PreroutingAddress, without_ipv6
from ...kernel.nf_tables import NftablesError
from ...kernel.nf_tables.table import Definition, Listing, OurTable
from ...model import Frontend, IPFamily, Protocol
from ..base import SteeringFacts, nothing_applied
from ..earlier_nat import EarlierNat
from ..names import table_name
from .elements import NUMBERS
from .rules import (
    MAPS,
    NAT_PRIORITY,
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

Ports = dict[Frontend, int]
Touched = Mapping[Frontend, int | None]
"""The ports of some frontends; None: not steered."""


class Programmer:
    """The rules in this thread's network namespace.

    Args:
        facts: Of this node; all are used but the Service ranges.

    Raises:
        SteeringError: A privilege or a part of the kernel is missing.
    """

    def __init__(self, facts: SteeringFacts) -> None:
        self._refuse_port = facts.refuse_port
        self._table = OurTable(table_name(facts.proxy_name))
        self._address = PreroutingAddress(facts.node_addresses)
        self._earlier = EarlierNat(NAT_PRIORITY)
        self.unsteered: dict[Frontend, str] = {}
        """As in :class:`~..base.Steering`, as of the last repair."""
        self._to_ip = ""
        self.checks_sockets = True
        """Whether the guard can tell our sockets from others'; known after ``apply``."""
        self._ports: Ports | None = None
        """Where frontends should be steered to; None before the first ``apply``."""
        self._uses: Counter[bytes] = Counter()
        self._rules: tuple[Definition, ...] | None = None
        """All but the elements as the kernel lists them; None where it isn't known."""
        self._stale: dict[Frontend, int | None] = {}
        """Frontends whose stale conntrack entries are still to be removed, and the port that
        their entries led to before; None where nobody knows."""

    def start(self) -> Ports:
        """Return the proxy ports that an earlier run's rules point to; 0: refused.

        Raises:
            SteeringConflict: Another program owns the table.
            SteeringError: A privilege or a kernel part is missing.
        """
        conntrack.check(4)
        return self._recover(self._table.read())

    def apply(self, ports: Ports) -> None:
        """Steer exactly these frontends.

        Raises:
            SteeringError: The kernel refused; what was in force is.
        """
        if self._ports is not None:
            self.change(_differing(self._ports, ports))
            return
        self._ports = ports
        try:
            # What was made while nobody looked after the rules may lead anywhere.
            self._stale |= dict.fromkeys(ports) | self.start()
            self._load()
            self._forget_stale()
        except SteeringError:
            self._ports = None
            raise

    def change(self, touched: Touched) -> None:
        """Steer some frontends to other ports, or no longer (None).

        Raises:
            SteeringError: The kernel refused and what was in force is; or nothing was applied.
        """
        if self._ports is None:
            raise nothing_applied()
        have = self._ports
        touched = {f: port for f, port in touched.items() if have.get(f) != port}
        before = {frontend: have.get(frontend) for frontend in touched}
        _merge(have, touched)
        try:
            self._note_stale(before)
            if self._table.is_touched():
                self._put_right()
            else:
                self._write(before, touched)
            self._forget_stale()
        except SteeringError:
            _merge(have, before)
            with contextlib.suppress(SteeringError):
                self._put_right()
            raise

    def repair(self) -> int:
        """Put right what differs from the last ``apply``; return how much did.

        Raises:
            SteeringError: The kernel refused.
        """
        if self._ports is None:
            return 0
        count = 0
        if self._table.is_touched() or self._rules is None:
            count = self._put_right()
        elif self._address.has_changed():
            count = self._follow_address()
        self._forget_stale()
        self.unsteered = self._earlier.look(self._ports.keys()) | without_ipv6(self._ports)
        return count

    def render(self) -> Ports:
        """Return where the frontends are steered to by rules in force."""
        listing = self._table.look()
        if listing is None:
            return {}
        return read_ports(listing.elements, [m for m in MAPS.values() if is_looked_up(listing, m)])

    def clean_up(self) -> None:
        """Remove our table; idempotent."""
        listing = self._table.read()
        if listing is not None:
            self._table.remove()
            self._stale |= read_ports(listing.elements)
        self._ports = {}
        self._forget_stale()
        self._ports, self._rules = None, None

    def close(self) -> None:
        """Let go of all sockets; what is in force stays in force."""
        self._table.close()
        self._earlier.close()
        self._address.close()

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
        ports = read_ports(listing.elements)
        return {f: 0 if port in refuse_ports else port for f, port in ports.items()}

    def _shape(self) -> Shape:
        return Shape(self._table.name, self._refuse_port, self._to_ip, self.checks_sockets)

    def _write(self, before: Touched, touched: Touched) -> None:
        """Write a difference; where the kernel has something else, all that differs."""
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

    def _follow_address(self) -> int:
        """Write the rules that depend on interfaces, if they must change; return how many."""
        to_ip = self._address.choose(self._to_ip)
        if to_ip == self._to_ip:
            return 0
        self._to_ip, self._rules = to_ip, None
        self._table.write([write_prerouting(self._shape())])
        self._rules = self._table.read_definitions()
        return 1

    def _put_right(self) -> int:
        """Compare the table in full and write what differs; return how much did."""
        listing = self._table.read()
        wanted = all_elements(self._ports or {}, self._refuse_port)
        if listing is None:
            count = sum(map(len, wanted.values()))
            return count + self._load()
        changes = differing_elements(listing.elements, wanted)
        if listing.definitions != self._rules or self._address.choose(self._to_ip) != self._to_ip:
            faults = _count_differing(listing.definitions, self._rules or ())
            self._load()
            return changes.count() + max(faults, 1)
        # What came was missing or another for a while: its connections may have gone anywhere.
        self._stale |= read_ports(changes.gone) | dict.fromkeys(read_ports(changes.come))
        try:
            self._table.write(write_changes(self._table.name, changes))
        except NftablesError:
            self._load()
        self._uses = count_uses(self._ports or {}, self._refuse_port)
        return changes.count()

    def _load(self) -> int:
        """Write the table anew; return how many rules it has."""
        ports = self._ports or {}
        # Until the kernel has taken them: a repair must try again.
        self._rules = None
        self._to_ip = self._address.choose(self._to_ip)
        changes = differing_elements({}, all_elements(ports, self._refuse_port))
        commands = write_changes(self._table.name, changes)
        try:
            self._table.write([write_table(self._shape()), *commands])
        except NftablesError:
            if not self.checks_sockets:
                raise
            self._load_without_sockets(commands)
        self._rules = self._table.read_definitions()
        self._uses = count_uses(ports, self._refuse_port)
        # While the rules weren't ours they may have led anywhere.
        self._stale |= {frontend: self._stale.get(frontend) for frontend in ports}
        return len(self._rules or ())

    def _load_without_sockets(self, commands: list[list[bytes]]) -> None:
        """Write the table for a kernel without nft_socket."""
        self.checks_sockets = False
        try:
            self._table.write([write_table(self._shape()), *commands])
        except NftablesError:
            self.checks_sockets = True
            raise

    def _note_stale(self, before: Touched) -> None:
        """Note whose entries may lead wrong now.

        A TCP connection to what was steered before can't have gone past us, and later packets of
        the others are none of ours: a listing of all connections less.
        """
        for frontend, old in before.items():
            if old is None or frontend.protocol is Protocol.UDP:
                self._stale[frontend] = old

    def _forget_stale(self) -> None:
        """Remove the conntrack entries that frontends got under other rules, or without any."""
        ports = self._ports or {}
        for family in IPFamily:
            changes = [
                Change(
                    NUMBERS[frontend.protocol],
                    Dialled(frontend.ip, frontend.port),
                    before,
                    ports.get(frontend),
                )
                for frontend, before in self._stale.items()
                if frontend.family is family
            ]
            if changes:
                conntrack.forget_changed(family, changes)
        self._stale = {}


def _merge(ports: Ports, touched: Touched) -> None:
    for frontend, port in touched.items():
        if port is None:
            ports.pop(frontend, None)
        else:
            ports[frontend] = port


def _differing(before: Ports, ports: Ports) -> dict[Frontend, int | None]:
    """Return the frontends that are steered elsewhere now, or no longer (None)."""
    touched: dict[Frontend, int | None] = {f: p for f, p in ports.items() if before.get(f) != p}
    if len(before) + sum(1 for f in touched if f not in before) != len(ports):
        touched |= dict.fromkeys(before.keys() - ports.keys())
    return touched


def _count_differing(some: Iterable[Definition], others: Iterable[Definition]) -> int:
    have, want = Counter(some), Counter(others)
    return ((have - want) + (want - have)).total()
