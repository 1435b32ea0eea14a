"""The guard made of routes and an nftables table.

    local 10.96.7.1 dev lo table local proto 117 src NODE        one per address
    table inet userspace-proxy/local                             admits frontends

:class:`OpenGuard` has no table: for a network namespace created for this proxy, which contains no
other daemons.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from ...kernel.netlink.rtnetlink import LocalRoute
from ...kernel.nf_tables.kept_table import KeptTable
from ...kernel.nf_tables.table import Steps
from ...kernel.nf_tables.writer import SetElement
from ...model import Frontend, IPFamily, is_loopback
from .desired import DesiredState, StateChange, network_of
from .guard import LocalGuard
from .guard_table import SETS, all_elements, frontend_element, write_guard
from .kernel import RoutingTables


class OpenGuard(LocalGuard):
    """Routes of one proxy, by its number: the kernel refuses where there is no listener."""

    def __init__(self, tables: RoutingTables, owner: int, desired: DesiredState) -> None:
        super().__init__(desired)
        self._tables = tables
        self._owner = owner

    def change(self, change: StateChange) -> None:
        """Part of LocalGuard."""
        self._remove_routes(change.removed_networks)
        self._add_routes(change.added_networks)

    def put_right(self) -> int:
        """Part of LocalGuard."""
        desired = self._desired
        table = self._tables.local_table()
        have = {route for route in table.ours if route.metric == self._owner}
        ranges = [network for network in desired.ranges if network not in table.others]
        want = set(self._routes([*desired.networks, *ranges]))
        missing, surplus = want - have, have - want
        # A route whose source changes is removed before it is added.
        self._tables.change(removed=sorted(surplus))
        count = self._put_table_right()
        were_refused = desired.refused.keys()
        desired.refused = {}
        self._add(sorted(missing))
        differing = {route.network for route in missing | surplus}
        return count + len(differing - were_refused - desired.refused.keys())

    def look(self) -> Callable[[Frontend], bool]:
        """Part of LocalGuard."""
        desired = self._desired
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

    def _put_table_right(self) -> int:
        return 0

    def _add_routes(self, networks: Iterable[str]) -> None:
        self._add(self._routes(networks))

    def _add(self, routes: Sequence[LocalRoute]) -> None:
        refused = self._tables.change(added=routes)
        causes = {route.network: refused[route] for route in routes if route in refused}
        self._desired.refused.update(causes)

    def _remove_routes(self, networks: Iterable[str]) -> None:
        self._tables.change(removed=self._routes(networks))
        for network in networks:
            self._desired.refused.pop(network, None)

    def _routes(self, networks: Iterable[str]) -> list[LocalRoute]:
        sources = self._desired.sources
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

    def __init__(
        self, tables: RoutingTables, owner: int, desired: DesiredState, table: str
    ) -> None:
        super().__init__(tables, owner, desired)
        self._table = KeptTable(table, SETS, self._create, self._elements)

    def unguarded(self) -> str:
        """Part of LocalGuard."""
        return "" if self._table.is_complete else "this kernel has no nft_socket"

    def is_touched(self) -> bool:
        """Part of LocalGuard."""
        return not self._table.is_known()

    def change(self, change: StateChange) -> None:
        """Part of LocalGuard."""
        removed, added = change.removed_networks, change.added_networks
        if removed:
            self._remove_routes(removed)
        self._table.change(
            all_elements(removed, change.removed_frontends),
            all_elements(added, change.added_frontends),
        )
        if added:
            self._add_routes(added)

    def look(self) -> Callable[[Frontend], bool]:
        """Part of LocalGuard."""
        is_routed_here, desired = super().look(), self._desired
        listing = self._table.look()
        is_intact = listing is not None and self._table.is_as_written(listing)
        admitted = listing.elements_of(SETS) if listing is not None and is_intact else set()

        def is_as_desired(frontend: Frontend) -> bool:
            if not is_routed_here(frontend) or not desired.is_routed(frontend.ip):
                return is_routed_here(frontend)
            is_admitted = frontend_element(frontend) in admitted
            return is_intact and is_admitted == (frontend in desired.admitted)

        return is_as_desired

    def clean_up(self) -> None:
        """Part of LocalGuard."""
        super().clean_up()
        self._table.remove()

    def close(self) -> None:
        """Part of LocalGuard."""
        self._table.close()

    def _put_table_right(self) -> int:
        # Surplus routes are removed already.
        return self._table.put_right().count

    def _create(self, checks_sockets: bool) -> Steps:
        guard = write_guard(self._table.name, self._desired.ranges, checks_sockets=checks_sockets)
        return [guard]

    def _elements(self) -> set[SetElement]:
        return all_elements(self._desired.networks, self._desired.admitted)
