"""Makes one IP family's tables what was asked for; runs in the helper process.

    guard for old and new ports ─▶ nat ─▶ guard for the new ports ─▶ stale conntrack

A port is guarded before the first packet comes to it and until the last one did; conntrack
entries that were made while another rule or none was in force go when the new ones are.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from ...errors import SteeringError
from .. import conntrack
from ..conntrack import Change, Dialled
from ..interfaces import PreroutingAddress
from ..names import PREFIX, ChainNames, label_of
from .blob import SOCKET_REVISION, TableInfo, TableReader
from .guard import GuardTable
from .nat import NatTable
from .rules import OUT, PRE, PROTOCOLS, Guard, NatFrontend, NatRule, make_guard
from .tables import explained
from .writer import Writer

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
        writer = Writer(version, names)
        try:
            reader = self._reader = TableReader(version, names)
        except OSError as exc:
            raise explained("nat", exc) from exc
        self._nat = NatTable(reader, writer, version)
        self._guard = GuardTable(reader, writer)
        self.checks_sockets = reader.has_match("socket", SOCKET_REVISION) and writer.knows_sockets()
        """Whether the guard can tell our sockets from others'."""
        self._address = PreroutingAddress(facts.node_addresses)
        self._rules: Rules | None = None
        self._to_ip = ""
        self._infos: tuple[TableInfo, ...] = ()
        self._repairs = 0
        self._stale: dict[NatFrontend, NatRule] = {}
        """Rules that came or went, whose stale conntrack entries are still to be removed."""

    def start(self) -> list[NatRule]:
        """Return the rules that an earlier run left, one a frontend; to port 0: refused.

        Raises:
            SteeringError: A privilege or a kernel part is missing.
        """
        refuse_ports = {self._facts.refuse_port, *self._guard.refuse_ports()}
        left = self._nat.left_behind()
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
        self._become(wanted, (*left, *(self._rules or {}).values()), self._want_all)

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

        def want() -> None:
            self._nat.change(removed, added.values())

        self._become(wanted, removed, want)

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
        self._guard.forget()
        return self._put(())

    def render(self) -> list[NatRule]:
        """Return the rules in force that steer clients on pods and on the node alike."""
        rules = self._nat.rules()
        everywhere = {rule._replace(to_ip="") for rule in rules[PRE]}
        return [rule for rule in rules[OUT] if rule in everywhere]

    def labels(self) -> list[str]:
        """Return the labels of all proxies whose chains are here, sorted; "" for none.

        Raises:
            SteeringError: The kernel has no such table, or gives no right.
        """
        found: set[str] = set()
        for table in (self._nat.name, self._guard.name):
            try:
                chains = self._reader.read_everybodys(table, PREFIX).chains
            except OSError as exc:
                raise explained(table, exc) from exc
            found.update(label for chain in chains if (label := label_of(chain)) is not None)
        return sorted(found)

    def clean_up(self) -> None:
        """Remove everything of ours; idempotent."""
        left = self._nat.left_behind()
        self._nat.remove_all()
        self._guard.remove_all()
        self._rules = {}
        self._forget_stale(left)
        self._rules = None

    def _become(self, wanted: Rules, leaving: Iterable[NatRule], want: Callable[[], None]) -> None:
        """Make these the rules; when the kernel refuses, the old ones stay wanted."""
        before, self._rules = self._rules, wanted
        try:
            want()
            self._put(leaving)
        except SteeringError:
            self._rules = before
            self._want_all()
            raise

    def _want_all(self) -> None:
        self._nat.want((self._rules or {}).values(), self._to_ip)

    def _put(self, leaving: Iterable[NatRule]) -> int:
        """Make the tables right; return how many rules weren't."""
        rules = (self._rules or {}).values()
        to_ip = self._prerouting_ip()
        if to_ip != self._to_ip:
            self._to_ip = to_ip
            self._want_all()
        ports = _ports(rules)
        guard = self._make_guard(ports)
        still_in_use = _ports(leaving)
        for protocol in PROTOCOLS:
            still_in_use[protocol] |= ports[protocol]
        drifted = self._guard.put(
            guard if still_in_use == ports else self._make_guard(still_in_use)
        )
        change = self._nat.put()
        # From here on the rules are other ones, whatever fails: the next try must know.
        self._stale |= {rule.frontend: rule for rule in change.touched}
        self._guard.put(guard)
        self._infos = self._read_infos()
        self._forget_stale(self._stale.values())
        self._stale = {}
        return drifted + change.count

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

    def _read_infos(self) -> tuple[TableInfo, ...]:
        return self._nat.info(), self._guard.info()


def _ports(rules: Iterable[NatRule]) -> dict[str, set[int]]:
    """Return the ports that rules lead to, by protocol."""
    ports: dict[str, set[int]] = {protocol: set() for protocol in PROTOCOLS}
    for rule in rules:
        ports[rule.protocol].add(rule.to_port)
    return ports
