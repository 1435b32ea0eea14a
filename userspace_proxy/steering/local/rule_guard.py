"""The guard made of routing rules, for kernels without nftables.

    5:  from all to 10.96.7.1 ipproto tcp dport 80 lookup T proto 117     one per frontend
    6:  from all to 10.96.7.1 prohibit proto 117                          one per address
    T:  local default dev lo proto 117 src NODE

The kernel's own stack doesn't treat these addresses as local, so listeners need IP_TRANSPARENT to
answer from them (``dataplane.sockets``), and ports without a listener can't be refused by a reset:
they are prohibited, which a node that forwards reports to clients by ICMP. A frontend that refuses
is admitted while it has open connections. Fragments have no ports, so no rule matches them:
datagrams that don't fit into one packet are lost. No rule can contain port 65535.

Rule 1: each proxy has its own table number, which its rules contain.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from ...kernel.conntrack import PROTOCOL_NUMBERS
from ...kernel.netlink.rtnetlink import LOOK_UP, PROHIBIT, LocalRoute, RoutingRule, family_of
from ...model import Frontend, IPFamily
from .desired import DesiredState, StateChange, network_of
from .guard import LocalGuard
from .kernel import PROTOCOL, RoutingTables

# Cilium, AWS and Calico add rules from 9 on; these come before any that route pods' packets
# elsewhere.
FRONTEND_PRIORITY, ADDRESS_PRIORITY = 5, 6
# "upr" as its upper bytes; the lower three are the proxy's number.
_TABLES = 0x75000000
# Source: fib_rule_port_range_valid() in include/net/fib_rules.h.
_LAST_PORT = 65534
_DEFAULT = {IPFamily.IPV4: "0.0.0.0/0", IPFamily.IPV6: "::/0"}


def table_number(owner: int) -> int:
    """Return the number of a proxy's routing table."""
    return _TABLES + owner


def is_proxys_table(number: int) -> bool:
    """Return whether :func:`table_number` can return a number."""
    return _TABLES <= number < _TABLES + (1 << 25)


def frontend_rule(frontend: Frontend, table: int) -> RoutingRule:
    """Return the rule that admits a frontend."""
    return RoutingRule(
        family_of(frontend.ip),
        LOOK_UP,
        FRONTEND_PRIORITY,
        table,
        PROTOCOL,
        frontend.ip,
        PROTOCOL_NUMBERS[frontend.protocol],
        frontend.port,
    )


def address_rule(ip: str, table: int) -> RoutingRule:
    """Return the rule that rejects everything else at an address."""
    return RoutingRule(family_of(ip), PROHIBIT, ADDRESS_PRIORITY, table, PROTOCOL, ip)


def removal_order(rules: Iterable[RoutingRule]) -> list[RoutingRule]:
    """Return rules in the order to remove them: those that admit, then those that reject."""
    return sorted(rules, key=lambda rule: (rule.priority, rule))


class RuleGuard(LocalGuard):
    """Rules of one proxy, by its number, and their table."""

    tracks_connections = False
    needs_transparent = True
    unguarded = "there is no nftables here"

    def __init__(self, tables: RoutingTables, owner: int) -> None:
        self._tables = tables
        self._table = table_number(owner)
        self._families: frozenset[IPFamily] = frozenset()
        """Those whose packets the table delivers."""

    def change(self, change: StateChange, desired: DesiredState) -> None:
        """Part of LocalGuard."""
        if not {IPFamily.of(network) for network in change.added_networks} <= self._families:
            self._put_table_right(desired)
        for network in change.removed_networks:
            desired.refused.pop(network, None)
        self._change_rules(
            desired,
            added=self._rules(change.added_networks, change.added_frontends),
            removed=removal_order(self._rules(change.removed_networks, change.removed_frontends)),
        )

    def put_right(self, desired: DesiredState) -> int:
        """Part of LocalGuard."""
        have = self._own_rules()
        want = self._rules(desired.networks, desired.admitted)
        added = [rule for rule in want if rule not in have]
        removed = removal_order(have.difference(want))
        were_refused = desired.refused.keys()
        desired.refused = {}
        families = self._put_table_right(desired)
        self._change_rules(desired, added=added, removed=removed)
        ignored = were_refused | desired.refused.keys()
        added = [rule for rule in added if network_of(rule.to) not in ignored]
        return len(families - {IPFamily.of(n) for n in ignored}) + len(added) + len(removed)

    def look(self, desired: DesiredState) -> Callable[[Frontend], bool]:
        """Part of LocalGuard."""
        rules = self._tables.rules()
        families = {IPFamily.of(route.network) for route, _ in self._tables.routes(self._table)}

        def is_as_desired(frontend: Frontend) -> bool:
            if not desired.is_routed(frontend.ip):
                return True
            is_guarded = (
                frontend.family in families and address_rule(frontend.ip, self._table) in rules
            )
            is_admitted = frontend_rule(frontend, self._table) in rules
            return is_guarded and is_admitted == (frontend in desired.admitted)

        return is_as_desired

    def clean_up(self) -> None:
        """Part of LocalGuard."""
        self._tables.change(removed=removal_order(self._own_rules()))
        self._tables.change(removed=[route for route, _ in self._tables.routes(self._table)])
        self._families = frozenset()

    def _own_rules(self) -> set[RoutingRule]:
        return {rule for rule in self._tables.rules() if rule.table == self._table}

    def _rules(self, networks: Iterable[str], frontends: Iterable[Frontend]) -> list[RoutingRule]:
        """Return rules in the order to add them: an address is guarded first."""
        return [
            *(address_rule(n.partition("/")[0], self._table) for n in sorted(networks)),
            *(frontend_rule(f, self._table) for f in sorted(frontends) if f.port <= _LAST_PORT),
        ]

    def _change_rules(
        self, desired: DesiredState, *, added: Sequence[RoutingRule], removed: Sequence[RoutingRule]
    ) -> None:
        refused = self._tables.change(added=added, removed=removed)
        desired.refused.update({network_of(r.to): refused[r] for r in added if r in refused})

    def _put_table_right(self, desired: DesiredState) -> set[IPFamily]:
        """Write the table's route for each desired family; return the families that differed."""
        have = {route for route, _ in self._tables.routes(self._table)}
        families = {IPFamily.of(network) for network in desired.networks}
        families |= {IPFamily.of(route.network) for route in have}
        want = {
            LocalRoute(_DEFAULT[family], desired.sources.get(family, ""), table=self._table)
            for family in families
        }
        self._tables.change(removed=sorted(have - want))
        refused = self._tables.change(added=sorted(want - have))
        causes = {IPFamily.of(r.network): refused[r] for r in want if r in refused}
        for network in desired.networks:
            if IPFamily.of(network) in causes:
                desired.refused[network] = causes[IPFamily.of(network)]
        self._families = frozenset(families - causes.keys())
        return {IPFamily.of(route.network) for route in have ^ want}
