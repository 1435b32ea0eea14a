"""The guard made of routing rules, for kernels without nftables.

    5:  from all to 10.96.7.1 ipproto tcp dport 80 lookup T proto 117     one per frontend
    6:  from all to 10.96.7.1 prohibit proto 117                          one per address
    T:  local default dev lo proto 117 src NODE

The kernel's own stack doesn't call these addresses local, so listeners need IP_TRANSPARENT to
answer from them (``dataplane.sockets``), and ports without a listener can't be refused by a reset:
they are prohibited, which a node that forwards reports to clients by ICMP. A frontend that refuses
is admitted while it has open connections. Fragments have no ports, so no rule matches them:
datagrams that don't fit into one packet are lost. No rule can contain port 65535.

Rule 1: each proxy has its own table number, which its rules contain.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from ...model import Frontend, IPFamily
from ..programmer import PROTOCOL_NUMBERS
from .guard import Guard
from .kernel import Kernel
from .rtnetlink import Route, Rule, network_of
from .wanted import Difference, Wanted

# "upr" as its upper bytes; the lower three are the proxy's number.
_TABLES = 0x75000000
# Source: fib_rule_port_range_valid() in include/net/fib_rules.h.
_LAST_PORT = 65534
_DEFAULT = {IPFamily.IPV4: "0.0.0.0/0", IPFamily.IPV6: "::/0"}


def table_number(owner: int) -> int:
    """Return the number of a proxy's routing table."""
    return _TABLES + owner


def is_proxys_table(number: int) -> bool:
    """Return whether a routing table is one that :func:`table_number` gives."""
    return _TABLES <= number < _TABLES + (1 << 25)


class RuleGuard(Guard):
    """Rules of one proxy, and the table that they lead to.

    Args:
        kernel: The routing tables; closed by their owner.
        owner: The number of the proxy.
    """

    knows_connections = False
    needs_transparent = True
    unguarded = "there is no nftables here"

    def __init__(self, kernel: Kernel, owner: int) -> None:
        self._kernel = kernel
        self._table = table_number(owner)
        self._families: frozenset[IPFamily] = frozenset()
        """Those whose packets the table delivers."""

    def is_touched(self) -> bool:
        """Part of Guard; routing events tell all."""
        return False

    def change(self, difference: Difference, wanted: Wanted) -> None:
        """Part of Guard."""
        if not {IPFamily.of(network) for network in difference.networks_come} <= self._families:
            self._put_table_right(wanted)
        for network in difference.networks_go:
            wanted.refused.pop(network, None)
        self._change_rules(
            wanted,
            come=[*self._walls(difference.networks_come), *self._gates(difference.served_come)],
            go=[*self._gates(difference.served_go), *self._walls(difference.networks_go)],
        )

    def put_right(self, wanted: Wanted) -> int:
        """Part of Guard."""
        have = {rule for rule in self._kernel.rules() if rule.table == self._table}
        want = [*self._walls(wanted.networks), *self._gates(wanted.served)]
        come = [rule for rule in want if rule not in have]
        go = gates_first(have.difference(want))
        were_refused = wanted.refused.keys()
        wanted.refused = {}
        families = self._put_table_right(wanted)
        self._change_rules(wanted, come=come, go=go)
        beside = were_refused | wanted.refused.keys()
        come = [rule for rule in come if network_of(rule.ip) not in beside]
        return len(families - {IPFamily.of(n) for n in beside}) + len(come) + len(go)

    def look(self, wanted: Wanted) -> Callable[[Frontend], bool]:
        """Part of Guard."""
        rules = self._kernel.rules()
        families = {route.family for route, _ in self._kernel.routes(self._table)}

        def is_as_wanted(frontend: Frontend) -> bool:
            if not wanted.is_ours(frontend.ip):
                return True
            is_walled = frontend.family in families and Rule(frontend.ip, self._table) in rules
            is_in = self._gate(frontend) in rules
            return is_walled and is_in == (frontend in wanted.served)

        return is_as_wanted

    def clean_up(self) -> None:
        """Part of Guard."""
        rules = {rule for rule in self._kernel.rules() if rule.table == self._table}
        self._kernel.change(go=gates_first(rules))
        self._kernel.change(go=[route for route, _ in self._kernel.routes(self._table)])
        self._families = frozenset()

    def close(self) -> None:
        """Part of Guard; the routing tables are somebody else's to close."""

    def _change_rules(self, wanted: Wanted, *, come: Sequence[Rule], go: Sequence[Rule]) -> None:
        refused = self._kernel.change(come=come, go=go)
        wanted.refused.update({network_of(r.ip): refused[r] for r in come if r in refused})

    def _put_table_right(self, wanted: Wanted) -> set[IPFamily]:
        """Have a route in our table for each family that is wanted; one that is there stays.

        Returns:
            The families whose route differed.
        """
        have = {route for route, _ in self._kernel.routes(self._table)}
        families = {IPFamily.of(network) for network in wanted.networks}
        families |= {route.family for route in have}
        want = {
            Route(_DEFAULT[family], wanted.sources.get(family, ""), table=self._table)
            for family in families
        }
        self._kernel.change(go=sorted(have - want))
        refused = self._kernel.change(come=sorted(want - have))
        causes = {route.family: refused[route] for route in want if route in refused}
        for network in wanted.networks:
            if IPFamily.of(network) in causes:
                wanted.refused[network] = causes[IPFamily.of(network)]
        self._families = frozenset(families - causes.keys())
        return {route.family for route in have ^ want}

    def _walls(self, networks: Iterable[str]) -> list[Rule]:
        return [Rule(network.partition("/")[0], self._table) for network in sorted(networks)]

    def _gates(self, frontends: Iterable[Frontend]) -> list[Rule]:
        return [self._gate(f) for f in sorted(frontends) if f.port <= _LAST_PORT]

    def _gate(self, frontend: Frontend) -> Rule:
        return Rule(frontend.ip, self._table, PROTOCOL_NUMBERS[frontend.protocol], frontend.port)


def gates_first(rules: Iterable[Rule]) -> list[Rule]:
    """Return rules in the order to remove them: what lets in before what prohibits the rest."""
    return sorted(rules, key=lambda rule: (rule.protocol == 0, rule))
