"""The guard made of routes and an nftables table.

    local 10.96.7.1 dev lo table local proto 117 src NODE        one per address
    table inet userspace-proxy/local                             admits frontends

:class:`OpenGuard` has no table: for a network namespace created for this proxy, which contains no
other daemons.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from ...errors import SteeringConflict
from ...kernel.netlink.rtnetlink import LocalRoute
from ...kernel.nf_tables import NftablesError
from ...kernel.nf_tables.table import Definition, NftTable
from ...model import Frontend, IPFamily, is_loopback
from ..nftables.elements import SetElement, elements_of
from .desired import DesiredState, StateChange, network_of
from .guard import LocalGuard
from .guard_table import SETS, all_elements, frontend_element, write_elements, write_guard
from .kernel import RoutingTables


class OpenGuard(LocalGuard):
    """Routes of one proxy, by its number: the kernel refuses where there is no listener."""

    def __init__(self, tables: RoutingTables, owner: int) -> None:
        self._tables = tables
        self._owner = owner

    def change(self, change: StateChange, desired: DesiredState) -> None:
        """Part of LocalGuard."""
        self._remove_routes(change.removed_networks, desired)
        self._add_routes(self._routes(change.added_networks, desired), desired)

    def put_right(self, desired: DesiredState) -> int:
        """Part of LocalGuard."""
        table = self._tables.local_table()
        have = {route for route in table.ours if route.metric == self._owner}
        ranges = [network for network in desired.ranges if network not in table.others]
        want = set(self._routes([*desired.networks, *ranges], desired))
        missing, surplus = want - have, have - want
        # A route whose source changes is removed before it is added.
        self._tables.change(removed=sorted(surplus))
        count = self._put_table_right(desired)
        were_refused = desired.refused.keys()
        desired.refused = {}
        self._add_routes(sorted(missing), desired)
        differing = {route.network for route in missing | surplus}
        return count + len(differing - were_refused - desired.refused.keys())

    def look(self, desired: DesiredState) -> Callable[[Frontend], bool]:
        """Part of LocalGuard."""
        table = self._tables.local_table()
        here = {r.network for r in table.ours if r.metric == self._owner} | table.others
        has_ranges = all(network in here for network in desired.ranges)

        def is_routed_here(frontend: Frontend) -> bool:
            ip = frontend.ip
            if is_loopback(ip) or network_of(ip) in here:
                return True
            return has_ranges and desired.is_in_ranges(ip)

        return is_routed_here

    def clean_up(self) -> None:
        """Part of LocalGuard."""
        ours = self._tables.local_table().ours
        self._tables.change(removed=sorted(route for route in ours if route.metric == self._owner))

    def _put_table_right(self, desired: DesiredState) -> int:
        return 0

    def _add_routes(self, routes: Sequence[LocalRoute], desired: DesiredState) -> None:
        refused = self._tables.change(added=routes)
        desired.refused.update({item.network: refused[item] for item in routes if item in refused})

    def _remove_routes(self, networks: Iterable[str], desired: DesiredState) -> None:
        self._tables.change(removed=self._routes(networks, desired))
        for network in networks:
            desired.refused.pop(network, None)

    def _routes(self, networks: Iterable[str], desired: DesiredState) -> list[LocalRoute]:
        sources = desired.sources
        return [
            LocalRoute(network, sources.get(IPFamily.of(network), ""), self._owner)
            for network in sorted(networks)
        ]


class NftGuard(OpenGuard):
    """Routes, and the table that guards them.

    Raises:
        SteeringError: nftables doesn't work here.
    """

    needs_transparent = True

    def __init__(self, tables: RoutingTables, owner: int, table: str) -> None:
        super().__init__(tables, owner)
        self._table = NftTable(table)
        self._rules: tuple[Definition, ...] | None = None
        """Everything but the elements, as the kernel lists it; None where it is unknown."""

    def is_touched(self) -> bool:
        """Part of LocalGuard."""
        return self._rules is None or self._table.is_touched()

    def change(self, change: StateChange, desired: DesiredState) -> None:
        """Part of LocalGuard."""
        removed, added = change.removed_networks, change.added_networks
        if removed:
            self._remove_routes(removed, desired)
        self._table.write(
            write_elements(
                self._table.name,
                removed=all_elements(removed, change.removed_frontends),
                added=all_elements(added, change.added_frontends),
            )
        )
        if added:
            self._add_routes(self._routes(added, desired), desired)

    def look(self, desired: DesiredState) -> Callable[[Frontend], bool]:
        """Part of LocalGuard."""
        is_routed_here = super().look(desired)
        listing = self._table.look()
        is_intact = listing is not None and self._rules in (None, listing.definitions)
        admitted = elements_of(listing, SETS) if listing is not None and is_intact else set()

        def is_as_desired(frontend: Frontend) -> bool:
            if not is_routed_here(frontend) or not desired.is_routed(frontend.ip):
                return is_routed_here(frontend)
            is_admitted = frontend_element(frontend) in admitted
            return is_intact and is_admitted == (frontend in desired.admitted)

        return is_as_desired

    def clean_up(self) -> None:
        """Part of LocalGuard."""
        super().clean_up()
        if self._table.read() is not None:
            self._table.remove()
        self._rules = None

    def close(self) -> None:
        """Part of LocalGuard."""
        self._table.close()

    def _put_table_right(self, desired: DesiredState) -> int:
        """Write what differs in the table; surplus routes are removed already."""
        listing = self._table.read()
        want = all_elements(desired.networks, desired.admitted)
        if listing is None:
            return len(want) + self._write_all(want, desired)
        if listing.is_owned:
            raise SteeringConflict(
                f"cannot use the nftables table inet {self._table.name}: another program owns it",
                hint="stop that program, or run with --steering=iptables",
            )
        have = elements_of(listing, SETS)
        removed, added = have - want, want - have
        if listing.definitions != self._rules:
            return len(removed) + len(added) + self._write_all(want, desired)
        try:
            self._table.write(write_elements(self._table.name, removed=removed, added=added))
        except NftablesError:
            self._write_all(want, desired)
        return len(removed) + len(added)

    def _write_all(self, want: set[SetElement], desired: DesiredState) -> int:
        """Write the table anew; return 1."""
        # Until the kernel has accepted it: a repair must try again.
        self._rules = None
        name = self._table.name
        elements = write_elements(name, removed=set(), added=want)
        try:
            self._table.write([write_guard(name, desired.ranges), *elements])
        except NftablesError:
            guard = write_guard(name, desired.ranges, checks_sockets=False)
            self._table.write([guard, *elements])
            self.unguarded = "this kernel has no nft_socket"
        self._rules = self._table.read_definitions()
        return 1
