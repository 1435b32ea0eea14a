"""The guards, which route addresses here, and reject traffic to them that isn't for a frontend.

    local 10.96.7.1 dev lo table local proto 117 src NODE        one route per address
    table inet userspace-proxy/local                             admits frontends

Rule 1: an address is guarded before it is routed here, and loses its route before its guard: the
node's daemons must never be reachable on a Service's address.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Collection, Iterable, Sequence

from ...errors import SteeringError
from ...kernel.netlink.rtnetlink import LocalRoute
from ...kernel.nf_tables.kept_table import KeptTable
from ...kernel.nf_tables.nft_table import Steps
from ...kernel.nf_tables.writer import SetElement
from ...kernel.offers import FOR_GUARD, KernelOffers
from ...kernel.privileges import has_net_admin
from ...model import Frontend, IPFamily, is_loopback, own_network
from ..base import SteeringFacts
from ..names import GUARD_TABLES, owner_number
from .desired import DesiredState, StateChange
from .guard_table import (
    FRONTENDS,
    SETS,
    all_elements,
    frontend_element,
    read_frontends,
    write_guard,
)
from .kernel import RoutingTables

_NEEDS_NFTABLES = "it needs nftables to keep clients from other daemons' ports on this node"


class LocalGuard(abc.ABC):
    """The contract of one proxy's routes and guard in this thread's network namespace.

    Every method that reads or changes the kernel's state may raise SteeringError.
    """

    needs_transparent = False
    """Whether listeners must be transparent sockets, as in :class:`~..base.Steering`."""

    def __init__(self, desired: DesiredState) -> None:
        self._desired = desired

    def unguarded(self) -> str:
        return ""

    def is_affected(self) -> bool:
        """Return whether another program has changed the guard, apart from routes."""
        return False

    @abc.abstractmethod
    def change(self, change: StateChange) -> None:
        """Write a change of the desired state; the kernel must have the previous state.

        A network that the kernel refuses individually is added to ``desired.refused``.

        Raises:
            SteeringError: The kernel refused a step; part of the change may be applied.
        """

    @abc.abstractmethod
    def put_right(self) -> int:
        """Compare all kernel state with the desired state, and repair differences.

        Refused networks are retried; afterwards, ``desired.refused`` contains the networks that the
        kernel still refuses.

        Returns: The number of differences, without refused networks.

        Raises:
            SteeringError: The kernel refused a step; other steps may be applied.
        """

    @abc.abstractmethod
    def look(self) -> Callable[[Frontend], bool]:
        """Read the kernel's state; return a test of whether it is as desired for a frontend."""

    @abc.abstractmethod
    def clean_up(self) -> None:
        """Remove all routes and tables of this proxy; idempotent."""

    def recover(self) -> Collection[Frontend]:
        """Return the frontends that an earlier run admitted; empty without a table."""
        return ()

    def routed(self) -> Collection[str]:
        """Return the single addresses that this run or an earlier run of the proxy routes here."""
        return ()

    def close(self) -> None:  # noqa: B027 - most guards have no sockets
        """Close sockets; routes and rules stay in the kernel."""


class NoGuard(LocalGuard):
    """The guard without NET_ADMIN: it refuses frontends that need a route."""

    def change(self, change: StateChange) -> None:
        self.put_right()

    def put_right(self) -> int:
        self._desired.refused = {
            network: SteeringError(
                f"cannot route {network} to this node: NET_ADMIN is missing",
                hint="run as root or grant NET_ADMIN; loopback addresses need nothing",
            )
            for network in {*self._desired.networks, *self._desired.ranges}
        }
        return 0

    def look(self) -> Callable[[Frontend], bool]:
        return lambda frontend: not self._desired.is_routed(frontend.ip)

    def clean_up(self) -> None:
        """Do nothing, because without privileges nothing was added."""


class OpenGuard(LocalGuard):
    """One proxy's routes without a table: the kernel refuses clients where no listener is bound.

    For a network namespace created for this proxy, which contains no other daemons.
    """

    def __init__(self, tables: RoutingTables, owner: int, desired: DesiredState) -> None:
        super().__init__(desired)
        self._tables = tables
        self._owner = owner

    def change(self, change: StateChange) -> None:
        self._remove_routes(change.removed_networks)
        self._add_routes(change.added_networks)

    def put_right(self) -> int:
        desired = self._desired
        table = self._tables.local_table()
        have = {route for route in table.ours if route.metric == self._owner}
        ranges = [network for network in desired.ranges if network not in table.others]
        want = set(self._routes([*desired.networks, *ranges]))
        missing, surplus = want - have, have - want
        # If the source of a route changes, the route is removed before it is added again.
        self._tables.change(removed=sorted(surplus))
        count = self._put_table_right()
        were_refused = desired.refused.keys()
        desired.refused = {}
        self._add(sorted(missing))
        differing = {route.network for route in missing | surplus}
        return count + len(differing - were_refused - desired.refused.keys())

    def look(self) -> Callable[[Frontend], bool]:
        desired = self._desired
        table = self._tables.local_table()
        here = {r.network for r in table.ours if r.metric == self._owner} | table.others
        has_ranges = all(network in here for network in desired.ranges)

        def is_routed_here(frontend: Frontend) -> bool:
            ip = frontend.ip
            if is_loopback(ip) or own_network(ip) in here:
                return True
            return has_ranges and desired.is_in_ranges(ip)

        return is_routed_here

    def clean_up(self) -> None:
        ours = self._tables.local_table().ours
        self._tables.change(removed=sorted(route for route in ours if route.metric == self._owner))

    def routed(self) -> Collection[str]:
        ours = [r.network for r in self._tables.local_table().ours if r.metric == self._owner]
        ips = {network: network.partition("/")[0] for network in ours}
        return {ip for network, ip in ips.items() if network == own_network(ip)}

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
    """One proxy's routes, and the table that guards their addresses."""

    needs_transparent = True

    def __init__(
        self, tables: RoutingTables, owner: int, desired: DesiredState, table: str
    ) -> None:
        super().__init__(tables, owner, desired)
        self._table = KeptTable(table, SETS, self._create, self._elements)

    def unguarded(self) -> str:
        return "" if self._table.is_complete else "this kernel has no nft_socket"

    def is_affected(self) -> bool:
        return not self._table.is_known()

    def recover(self) -> Collection[Frontend]:
        listing = self._table.look(FRONTENDS.values())
        return read_frontends(listing.elements_of(FRONTENDS.values())) if listing else ()

    def change(self, change: StateChange) -> None:
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
        super().clean_up()
        self._table.remove()

    def close(self) -> None:
        self._table.close()

    def _put_table_right(self) -> int:
        # Surplus routes have already been removed, so that no address is routed here unguarded.
        return self._table.put_right().count

    def _create(self, checks_sockets: bool) -> Steps:
        guard = write_guard(self._table.name, self._desired.ranges, checks_sockets=checks_sockets)
        return [guard]

    def _elements(self) -> set[SetElement]:
        return all_elements(self._desired.networks, self._desired.admitted)


def missing(kernel: KernelOffers, *, own_namespace: bool) -> str:
    """Return what prevents local steering on this node; empty if nothing does.

    Frontends on loopback addresses have no requirements.

    Args:
        own_namespace: Whether the network namespace was created for this proxy: it contains no
            other daemons, so nftables isn't needed.
    """
    if not has_net_admin():
        return "NET_ADMIN is missing"
    lacks = "" if own_namespace else _missing_for_guard(kernel)
    return f"{_NEEDS_NFTABLES}: {lacks}" if lacks else ""


def _missing_for_guard(kernel: KernelOffers) -> str:
    return kernel.obstacle(FOR_GUARD, "nftables")


def make_guard(
    tables: RoutingTables,
    facts: SteeringFacts,
    desired: DesiredState,
    *,
    own_namespace: bool,
    kernel: KernelOffers,
) -> LocalGuard:
    """Return a guard that fits the process's rights and the kernel.

    Raises:
        SteeringError: There is no nftables, and the network namespace may have other daemons.
    """
    if not has_net_admin():
        return NoGuard(desired)
    owner = owner_number(facts.proxy_name)
    if lacks := _missing_for_guard(kernel):
        if own_namespace:
            return OpenGuard(tables, owner, desired)
        raise SteeringError(
            f"cannot steer by local: {_NEEDS_NFTABLES}: {lacks}",
            hint="run with --steering=none",
        )
    return NftGuard(tables, owner, desired, GUARD_TABLES.of(facts.proxy_name))
