"""The guard made of routes and an nftables table.

    local 10.96.7.1 dev lo table local proto 117 src NODE        one an address
    table inet userspace-proxy/local                             lets in what is a frontend

Without the table (:class:`OpenGuard`) it is none: for a network namespace of our own, where no
daemon of others is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from ...errors import SteeringConflict
from ...kernel.nf_tables import NftablesError
from ...kernel.nf_tables.table import Definition, OurTable
from ...model import Frontend, IPFamily
from .guard import Guard
from .guard_table import (
    Elements,
    all_elements,
    elements_of,
    frontend_element,
    write_elements,
    write_guard,
)
from .kernel import Kernel
from .rtnetlink import Route, network_of
from .wanted import Difference, Wanted, is_loopback


class OpenGuard(Guard):
    """Routes alone: the kernel refuses where nobody listens.

    Args:
        kernel: The routing tables; closed by their owner.
        owner: The number of the proxy.
    """

    def __init__(self, kernel: Kernel, owner: int) -> None:
        self._kernel = kernel
        self._owner = owner

    def is_touched(self) -> bool:
        """Part of Guard."""
        return False

    def change(self, difference: Difference, wanted: Wanted) -> None:
        """Part of Guard."""
        self._remove_routes(difference.networks_go, wanted)
        self._add_routes(self._routes(difference.networks_come, wanted), wanted)

    def put_right(self, wanted: Wanted) -> int:
        """Part of Guard."""
        table = self._kernel.local_table()
        have = {route for route in table.ours if route.metric == self._owner}
        ranges = [network for network in wanted.ranges if network not in table.others]
        want = set(self._routes([*wanted.networks, *ranges], wanted))
        missing, surplus = want - have, have - want
        # A route whose source changes has to go before it comes.
        self._kernel.change(go=sorted(surplus))
        count = self._put_guard_right(wanted)
        were_refused = wanted.refused.keys()
        wanted.refused = {}
        self._add_routes(sorted(missing), wanted)
        differing = {route.network for route in missing | surplus}
        return count + len(differing - were_refused - wanted.refused.keys())

    def look(self, wanted: Wanted) -> Callable[[Frontend], bool]:
        """Part of Guard."""
        table = self._kernel.local_table()
        here = {r.network for r in table.ours if r.metric == self._owner} | table.others
        has_ranges = all(network in here for network in wanted.ranges)

        def is_brought_here(frontend: Frontend) -> bool:
            ip = frontend.ip
            if is_loopback(ip) or network_of(ip) in here:
                return True
            return has_ranges and wanted.is_in_ranges(ip)

        return is_brought_here

    def clean_up(self) -> None:
        """Part of Guard."""
        ours = self._kernel.local_table().ours
        self._kernel.change(go=sorted(route for route in ours if route.metric == self._owner))

    def close(self) -> None:
        """Part of Guard; the routing tables are somebody else's to close."""

    def _put_guard_right(self, wanted: Wanted) -> int:
        return 0

    def _add_routes(self, routes: Sequence[Route], wanted: Wanted) -> None:
        refused = self._kernel.change(come=routes)
        wanted.refused.update({item.network: refused[item] for item in routes if item in refused})

    def _remove_routes(self, networks: Iterable[str], wanted: Wanted) -> None:
        self._kernel.change(go=self._routes(networks, wanted))
        for network in networks:
            wanted.refused.pop(network, None)

    def _routes(self, networks: Iterable[str], wanted: Wanted) -> list[Route]:
        def source(network: str) -> str:
            return wanted.sources.get(IPFamily.of(network), "")

        return [Route(network, source(network), self._owner) for network in sorted(networks)]


class NftGuard(OpenGuard):
    """Routes, and the table that guards them.

    Args:
        kernel: The routing tables; closed by their owner.
        owner: The number of the proxy.
        table: The table's name.

    Raises:
        SteeringError: nftables doesn't work here.
    """

    needs_transparent = True

    def __init__(self, kernel: Kernel, owner: int, table: str) -> None:
        super().__init__(kernel, owner)
        self._table = OurTable(table)
        self._rules: tuple[Definition, ...] | None = None
        """All but the elements as the kernel lists them; None where it isn't known."""

    def is_touched(self) -> bool:
        """Part of Guard."""
        return self._rules is None or self._table.is_touched()

    def change(self, difference: Difference, wanted: Wanted) -> None:
        """Part of Guard."""
        go, come = difference.networks_go, difference.networks_come
        if go:
            self._remove_routes(go, wanted)
        self._table.write(
            write_elements(
                self._table.name,
                go=all_elements(go, difference.served_go),
                come=all_elements(come, difference.served_come),
            )
        )
        if come:
            self._add_routes(self._routes(come, wanted), wanted)

    def look(self, wanted: Wanted) -> Callable[[Frontend], bool]:
        """Part of Guard."""
        is_brought_here = super().look(wanted)
        listing = self._table.look()
        is_whole = listing is not None and self._rules in (None, listing.definitions)
        let_in = elements_of(listing) if listing is not None and is_whole else set()

        def is_as_wanted(frontend: Frontend) -> bool:
            if not is_brought_here(frontend) or not wanted.is_ours(frontend.ip):
                return is_brought_here(frontend)
            is_in = frontend_element(frontend) in let_in
            return is_whole and is_in == (frontend in wanted.served)

        return is_as_wanted

    def clean_up(self) -> None:
        """Part of Guard."""
        super().clean_up()
        if self._table.read() is not None:
            self._table.remove()
        self._rules = None

    def close(self) -> None:
        """Part of Guard."""
        self._table.close()

    def _put_guard_right(self, wanted: Wanted) -> int:
        """Write what differs in the table; routes that should go have gone."""
        listing = self._table.read()
        want = all_elements(wanted.networks, wanted.served)
        if listing is None:
            return len(want) + self._load(want, wanted)
        if listing.is_owned:
            raise SteeringConflict(
                f"cannot use the nftables table inet {self._table.name}: another program owns it",
                hint="stop that program, or run with --steering=iptables",
            )
        have = elements_of(listing)
        go, come = have - want, want - have
        if listing.definitions != self._rules:
            return len(go) + len(come) + self._load(want, wanted)
        try:
            self._table.write(write_elements(self._table.name, go=go, come=come))
        except NftablesError:
            self._load(want, wanted)
        return len(go) + len(come)

    def _load(self, want: Elements, wanted: Wanted) -> int:
        """Write the table anew; return 1."""
        # Until the kernel has taken it: a repair must try again.
        self._rules = None
        name = self._table.name
        elements = write_elements(name, go=set(), come=want)
        try:
            self._table.write([write_guard(name, wanted.ranges), *elements])
        except NftablesError:
            guard = write_guard(name, wanted.ranges, checks_sockets=False)
            self._table.write([guard, *elements])
            self.unguarded = "this kernel has no nft_socket"
        self._rules = self._table.read_definitions()
        return 1
