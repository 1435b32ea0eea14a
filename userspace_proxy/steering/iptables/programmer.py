"""Makes one IP family's tables what was asked for; runs in the helper process.

    guard for old and new ports ─▶ nat ─▶ guard for the new ports ─▶ stale conntrack

A port is guarded before the first packet comes to it and until the last one did; conntrack
entries that were made while another rule or none was in force go when the new ones are.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from typing import NamedTuple

from ...errors import SteeringError
from ...kernel import conntrack
from ...kernel.conntrack import Change, Dialled
from ...kernel.interfaces import PreroutingAddress
from ..names import ChainNames, label_of
from .legacy import LegacyTables
from .nat import NatChains, all_rules, reached_rules, rules_among
from .rules import (
    FILTER,
    GUARDS,
    NAT,
    NAT_JUMPS,
    OUT,
    PRE,
    PROTOCOLS,
    SOCKET_CHECK,
    Guard,
    NatFrontend,
    NatRule,
    make_guard,
    read_refuse_port,
)
from .small_edits import SmallEdits
from .table import Difference, Table, missing_jumps
from .text import parse_table

# The agent asks each second. The tables' size and layout show each rule that came or went; a
# rule that was replaced by one of the same size shows in the full comparison only.
FULL_COMPARISON_EVERY = 30
_PROTOCOLS = {"tcp": socket.IPPROTO_TCP, "udp": socket.IPPROTO_UDP}


class Facts(NamedTuple):
    """What the rules depend on besides the frontends; as in SteeringFacts."""

    refuse_port: int
    proxy_ports: tuple[int, int] | None = None
    node_addresses: tuple[str, ...] = ()
    proxy_name: str = ""


Rules = dict[NatFrontend, NatRule]


class Programmer:
    """The rules of one IP family in this process's network namespace.

    Args:
        version: 4 or 6.
        facts: Of this node.

    Raises:
        SteeringError: A library, a privilege or a kernel part is missing.
    """

    def __init__(self, version: int, facts: Facts) -> None:
        self._version = version
        self._facts = facts
        names = ChainNames(facts.proxy_name)
        self._tables = LegacyTables(version)
        small_edits = SmallEdits(version)
        self._nat = Table(NAT, self._tables, small_edits, names)
        self._filter = Table(FILTER, self._tables, small_edits, names)
        self._address = PreroutingAddress(facts.node_addresses)
        self._rules: Rules | None = None
        self._to_ip = ""
        self._layout = NatChains(version)
        self._infos: tuple[bytes, ...] = ()
        self._repairs = 0
        self._stale: dict[NatFrontend, NatRule] = {}
        """Rules that came or went, whose stale conntrack entries are still to be removed."""

    @cached_property
    def checks_sockets(self) -> bool:
        """Whether the guard can tell this proxy's sockets from others'."""
        return self._tables.would_take(FILTER, SOCKET_CHECK)

    def start(self) -> list[NatRule]:
        """Return the rules that an earlier run left, one for each frontend; to port 0: refused.

        Raises:
            SteeringError: A privilege or a kernel part is missing.
        """
        refuse_ports = {self._facts.refuse_port, *self._refuse_ports_in_force()}
        left = all_rules(self._nat.read())
        conntrack.check(self._version)
        self._to_ip = next((rule.to_ip for rule in left if rule.to_ip), "")
        rules = {rule.frontend: rule for rule in left}
        return [
            rule._replace(to_port=0) if rule.to_port in refuse_ports else rule
            for rule in rules.values()
        ]

    def apply(self, rules: Iterable[NatRule]) -> None:
        """Steer exactly these frontends.

        Raises:
            SteeringError: The kernel refused; what was in force is.
        """
        left = [r for r in self.start() if r.to_port] if self._rules is None else []
        wanted = {rule.frontend: rule for rule in rules}
        # What was made while nobody looked after the rules may lead anywhere.
        self._stale |= {rule.frontend: rule for rule in (*left, *wanted.values())}
        self._nat.forget()
        self._become(wanted, (*left, *(self._rules or {}).values()), self._lay_out)

    def change(self, rules: Iterable[NatRule], gone: Iterable[NatFrontend]) -> None:
        """Steer these frontends besides those of the last ``apply``, and some no longer.

        Raises:
            SteeringError: The kernel refused; what was in force is.
        """
        before = self._rules
        if before is None:
            raise SteeringError("cannot change rules: none were applied")
        added = {rule.frontend: rule for rule in rules}
        removed = [before[f] for f in (*added, *gone) if f in before]
        wanted = before | added
        for frontend in gone:
            wanted.pop(frontend, None)

        def lay_out() -> None:
            self._layout.change(removed, added.values())
            self._stale |= {rule.frontend: rule for rule in (*removed, *added.values())}

        self._become(wanted, removed, lay_out)

    def repair(self) -> int:
        """Put right what differs from the last ``apply``; return how many rules did."""
        if self._rules is None:
            return 0
        self._repairs += 1
        if (
            self._repairs % FULL_COMPARISON_EVERY
            and not self._address.has_changed()
            and self._read_infos() == self._infos
        ):
            return 0
        self._nat.forget()
        self._filter.forget()
        return self._put(())

    def render(self) -> list[NatRule]:
        """Return the rules in force that steer clients on pods and on the node alike."""
        contents = self._nat.read()
        if missing_jumps(contents, NAT_JUMPS):
            return []
        rules = reached_rules(contents)
        everywhere = {rule._replace(to_ip="") for rule in rules[PRE]}
        return [rule for rule in rules[OUT] if rule in everywhere]

    def labels(self) -> list[str]:
        """Return the labels of all proxies whose chains are here, sorted; "" for none.

        Raises:
            SteeringError: The kernel has no such table, or gives no right.
        """
        names = (
            name for table in (NAT, FILTER) for name in parse_table(self._tables.save(table), str)
        )
        return sorted({label for name in names if (label := label_of(name)) is not None})

    def clean_up(self) -> None:
        """Remove everything of this proxy; idempotent."""
        left = all_rules(self._nat.read())
        self._nat.remove_all()
        self._filter.remove_all()
        self._rules = {}
        self._forget_stale(left)
        self._rules = None

    def _become(
        self, wanted: Rules, leaving: Iterable[NatRule], lay_out: Callable[[], None]
    ) -> None:
        """Make these the rules; when the kernel refuses, the old ones stay wanted."""
        before, self._rules = self._rules, wanted
        try:
            lay_out()
            self._put(leaving)
        except SteeringError:
            self._rules = before
            self._lay_out()
            raise

    def _lay_out(self) -> None:
        self._layout = NatChains(self._version, (self._rules or {}).values(), self._to_ip)

    def _put(self, leaving: Iterable[NatRule]) -> int:
        """Make the tables right; return how many rules weren't."""
        rules = (self._rules or {}).values()
        to_ip = self._prerouting_ip()
        if to_ip != self._to_ip:
            self._to_ip = to_ip
            self._lay_out()
            self._stale |= {rule.frontend: rule for rule in rules}
        ports = _ports(rules)
        guard = self._make_guard(ports)
        still_in_use = _ports(leaving)
        for protocol in PROTOCOLS:
            still_in_use[protocol] |= ports[protocol]
        drifted = self._put_guard(
            guard if still_in_use == ports else self._make_guard(still_in_use)
        )
        difference = self._nat.put(self._layout.chains, NAT_JUMPS)
        # From here on the rules are other ones, whatever fails: the next try must know.
        self._stale |= {rule.frontend: rule for rule in self._touched_by(difference)}
        self._put_guard(guard)
        self._infos = self._read_infos()
        self._forget_stale(self._stale.values())
        self._stale = {}
        return drifted + difference.count

    def _put_guard(self, guard: Guard) -> int:
        return self._filter.put(guard.chains(), guard.jumps).count

    def _touched_by(self, difference: Difference) -> Iterable[NatRule]:
        """Return the rules that were in force no longer, or weren't yet."""
        rules = rules_among(difference.lines)
        if difference.has_other_jumps or len(rules) < len(difference.lines):
            # Without the jump to it a chain steered nothing, whatever was in it.
            rules += (self._rules or {}).values()
        return rules

    def _refuse_ports_in_force(self) -> set[int]:
        """Return the refuse ports of the rules in force; an earlier run may have had another."""
        chains = self._filter.read()
        lines = (line for chain in GUARDS.values() for line in chains.get(chain, ()))
        ports = (read_refuse_port(line, is_ipv6=self._version == 6) for line in lines)
        return {port for port in ports if port is not None}

    def _prerouting_ip(self) -> str:
        """Return the address for DNAT in PREROUTING; empty for REDIRECT, which is IPv6's."""
        return "" if self._version == 6 else self._address.choose(self._to_ip)

    def _make_guard(self, ports: Mapping[str, set[int]]) -> Guard:
        return make_guard(
            ports,
            refuse_port=self._facts.refuse_port,
            proxy_ports=self._facts.proxy_ports,
            is_ipv6=self._version == 6,
            checks_sockets=self.checks_sockets,
        )

    def _forget_stale(self, touched: Iterable[NatRule]) -> None:
        """Remove the conntrack entries that frontends got under other rules, or without any."""
        rules = self._rules or {}
        conntrack.forget_changed(
            self._version,
            [
                Change(
                    _PROTOCOLS[frontend.protocol],
                    Dialled(frontend.ip, frontend.port),
                    old.to_port,
                    rules[frontend].to_port if frontend in rules else None,
                )
                for frontend, old in {rule.frontend: rule for rule in touched}.items()
            ],
        )

    def _read_infos(self) -> tuple[bytes, ...]:
        return self._nat.info(), self._filter.info()


def _ports(rules: Iterable[NatRule]) -> dict[str, set[int]]:
    """Return the ports that rules lead to, by protocol."""
    ports: dict[str, set[int]] = {protocol: set() for protocol in PROTOCOLS}
    for rule in rules:
        ports[rule.protocol].add(rule.to_port)
    return ports
