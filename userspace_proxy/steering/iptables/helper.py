"""The helper process, which answers requests one by one, and exits when its parent does.

    guard for old and new ports ─▶ nat ─▶ stale conntrack entries     later: guard for new ports

A port is guarded from before its first packet until after its last packet (``ReleasedPorts``). Once
new rules are applied, conntrack entries that older rules created are removed.

Rule 1: answers aren't written to standard output, which python-iptables replaces with a pipe while
it creates a rule.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from typing import Any

from ...errors import SteeringConflict, SteeringError
from ...frames import receive_frame, send_frame
from ...model import Frontend, Protocol
from ..base import SteeringFacts
from ..names import ChainNames, label_of
from ..programmer import Affected, NatProgrammer, Ports, ReleasedPorts
from .helper_process import as_rows, from_rows
from .legacy import LegacyTables
from .legacy_table import LegacyTable, TableDifference, missing_jumps, parse_table
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
    NatRule,
    PortGuard,
    make_guard,
    read_refuse_port,
)
from .small_edits import SmallEdits

# The agent calls repair every second. The tables' size and layout reveal added and removed rules;
# only a full comparison finds a rule that was replaced with another rule of the same size.
FULL_COMPARISON_EVERY = 30


def main(descriptor: int, version: int, parent: int) -> int:
    """Serve the parent until it exits; return the exit status."""
    if os.getppid() != parent:
        return 0
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # By default, systemd signals all processes of a service (KillMode=control-group), but the
        # agent still needs this process to clean up.
        signal.signal(number, signal.SIG_IGN)
    connection = socket.socket(fileno=descriptor)
    parent_end = os.pidfd_open(parent)
    server = RequestServer(version)
    while True:
        # Other children of the parent may hold the parent's end of the socket, so EOF isn't a
        # reliable sign.
        readable, _, _ = select.select([descriptor, parent_end], [], [])
        if descriptor not in readable:
            return 0
        try:
            request, _ = receive_frame(connection)
            send_frame(connection, json.dumps(server.answer(json.loads(request))).encode())
        except (EOFError, ConnectionError):
            return 0


class RequestServer:
    """An adapter between JSON requests and a programmer's methods."""

    def __init__(self, version: int) -> None:
        self._version = version
        self._programmer: LegacyProgrammer | None = None

    def answer(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the answer: ``value``, or ``error``, ``hint`` and ``is_conflict``."""
        try:
            return {"value": self._do(request)}
        except SteeringError as exc:
            is_conflict = isinstance(exc, SteeringConflict)
            return {"error": exc.message, "hint": exc.hint, "is_conflict": is_conflict}

    def _do(self, request: Mapping[str, Any]) -> Any:
        if self._programmer is None:
            facts: dict[str, Any] = {
                name: tuple(value) if isinstance(value, list) else value
                for name, value in request["facts"].items()
            }
            self._programmer = LegacyProgrammer(self._version, SteeringFacts(**facts))
        programmer = self._programmer
        match request["do"]:
            case "start":
                return as_rows(programmer.start())
            case "apply":
                return programmer.apply(from_rows(request["ports"]))
            case "change":
                return programmer.change(from_rows(request["ports"]))
            case "repair":
                return programmer.repair()
            case "in_force":
                return as_rows(programmer.in_force())
            case "clean_up":
                return programmer.clean_up()
            case "checks_sockets":
                return programmer.checks_sockets
            case "labels":
                return programmer.labels()
            case other:
                raise AssertionError(f"no such request: {other}")


class LegacyProgrammer(NatProgrammer):
    """The programmer of one IP family's iptables rules.

    Raises:
        SteeringError: A library, a privilege or a kernel part is missing.
    """

    def __init__(self, version: int, facts: SteeringFacts) -> None:
        # Create the tables first, because that fails if the programs are missing.
        self._tables, small_edits = LegacyTables(version), SmallEdits(version)
        super().__init__(facts)
        self._version = version
        names = ChainNames(facts.proxy_name)
        self._nat = LegacyTable(NAT, self._tables, small_edits, names)
        self._filter = LegacyTable(FILTER, self._tables, small_edits, names)
        self._layout = NatChains(version)
        self._released: ReleasedPorts[tuple[Protocol, int]] = ReleasedPorts()
        self._repairs = 0

    @cached_property
    def checks_sockets(self) -> bool:
        """Whether the guard can distinguish this proxy's sockets from other programs' sockets."""
        return self._tables.would_accept(FILTER, SOCKET_CHECK)

    def start(self) -> Ports:
        refuse_ports = {self._facts.refuse_port, *self._refuse_ports_in_force()}
        left = all_rules(self._nat.read())
        self._entries.check(self._version)
        self._to_ip = next((rule.to_ip for rule in left if rule.to_ip), "")
        ports = _ports_of(left)
        return {f: 0 if port in refuse_ports else port for f, port in ports.items()}

    def in_force(self) -> Ports:
        """Return the ports of frontends that are steered for both pods and the node itself."""
        contents = self._nat.read()
        if missing_jumps(contents, NAT_JUMPS):
            return {}
        rules = reached_rules(contents)
        from_pods = {rule._replace(to_ip="") for rule in rules[PRE]}
        return _ports_of(rule for rule in rules[OUT] if rule in from_pods)

    def labels(self) -> list[str]:
        """Return the labels of all proxies with chains here, sorted."""
        names = (
            name for table in (NAT, FILTER) for name in parse_table(self._tables.save(table), str)
        )
        return sorted({label for name in names if (label := label_of(name)) is not None})

    def clean_up(self) -> None:
        removed = _ports_of(all_rules(self._nat.read()))
        self._nat.remove_all()
        self._filter.remove_all()
        self._forget_all(removed)

    def _load(self) -> None:
        left = self.start()
        self._note_earlier(left)
        self._lay_out()
        self._put(left)

    def _write(self, before: Affected, affected: Affected) -> None:
        self._layout.change(_rules(before), _rules(affected))
        self._note_stale(before)
        self._put(before)

    def _restore(self, affected: Affected, before: Affected) -> None:
        self._lay_out()
        self._put(affected)

    def _repair(self) -> int:
        self._repairs += 1
        drifted = 0
        if (
            self._repairs % FULL_COMPARISON_EVERY == 0
            or self._address.has_changed()
            or self._nat.has_changed()
            or self._filter.has_changed()
        ):
            self._nat.forget()
            self._filter.forget()
            drifted = self._put_rules()
            if self._follow_address():
                self._put_rules()
            else:
                self._forget_stale()
        with self._released.end_round() as ended:
            if ended:
                self._put_guard()
        return drifted

    def _lay_out(self) -> None:
        self._layout = NatChains(self._version, _rules(self._applied or {}), self._to_ip)

    def _put(self, leaving: Affected) -> None:
        self._released.add((f.protocol, port) for f, port in leaving.items() if port)
        self._follow_address()
        self._put_rules()

    def _follow_address(self) -> bool:
        """Lay out the rules again if the address for DNAT has changed; return whether it has."""
        to_ip = self._choose_ip()
        # Only IPv4 needs an address; see PreroutingAddress.
        if self._version == 6 or to_ip == self._to_ip:
            return False
        self._to_ip = to_ip
        self._lay_out()
        self._note_led((self._applied or {}).items())
        return True

    def _put_rules(self) -> int:
        """Repair the rules; return the number of differences."""
        drifted = self._put_guard()
        difference = self._nat.put(self._layout.chains, NAT_JUMPS)
        # From here on, the new rules are applied, even if a later step fails.
        self._note_affected(difference)
        self._forget_stale()
        return drifted + difference.count

    def _put_guard(self) -> int:
        guard = self._make_guard()
        return self._filter.put(guard.chains, guard.jumps).count

    def _note_affected(self, difference: TableDifference) -> None:
        """Record the frontends whose rules differed; all frontends if a jump or other line did."""
        rules = rules_among(difference.lines)
        self._note_led(_each_port(rules))
        if difference.has_other_jumps or len(rules) < len(difference.lines):
            # A chain without a jump to it had no effect, so connections to all frontends may be
            # stale.
            self._note_led((self._applied or {}).items())

    def _refuse_ports_in_force(self) -> set[int]:
        """Return the refuse ports in the kernel's rules; an earlier run may have used others."""
        chains = self._filter.read()
        lines = (line for chain in GUARDS.values() for line in chains.get(chain, ()))
        ports = (read_refuse_port(line, is_ipv6=self._version == 6) for line in lines)
        return {port for port in ports if port is not None}

    def _make_guard(self) -> PortGuard:
        ports: dict[str, set[int]] = {protocol: set() for protocol in PROTOCOLS}
        used = ((f.protocol, port) for f, port in (self._applied or {}).items())
        for protocol, port in (*used, *self._released):
            ports[protocol.lower()].add(port)
        return make_guard(
            ports,
            refuse_port=self._facts.refuse_port,
            proxy_ports=self._facts.proxy_ports,
            is_ipv6=self._version == 6,
            checks_sockets=self.checks_sockets,
        )


def _rules(ports: Affected) -> list[NatRule]:
    """Return the rules for the steered frontends."""
    return [
        NatRule(f.protocol.lower(), f.ip, f.port, port, last=f.last)
        for f, port in ports.items()
        if port is not None
    ]


def _ports_of(rules: Iterable[NatRule]) -> Ports:
    return dict(_each_port(rules))


def _each_port(rules: Iterable[NatRule]) -> Iterator[tuple[Frontend, int]]:
    return ((rule.frontend, rule.to_port) for rule in rules)
