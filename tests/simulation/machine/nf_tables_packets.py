"""Routes packets: the kernel's hooks in their order, with the verdicts of nf_tables' chains.

    from the network   prerouting ─▶ here: input        ─▶ a socket, or the stack refuses
                                  └▶ elsewhere: forward ─▶ postrouting ─▶ an endpoint
    from this node     output ─▶ here: prerouting, input; elsewhere: postrouting

Chains are evaluated for a flow's first packet; its conntrack entry decides about all others.

Source: net/netfilter/core.c, nf_nat_core.c (nf_nat_inet_fn), nft_chain_nat.c.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import NamedTuple

from .conntrack_entries import Entry, Flow, Place
from .netlink_routes import LOOPBACK, Routes
from .nf_tables import NfTables
from .nf_tables_expressions import BREAK, Moment, Packet, Registers, metadata, step_of
from .nf_tables_state import (
    ACCEPT,
    CONTINUE,
    DROP,
    FORWARD,
    GOTO,
    INET,
    INPUT,
    IP,
    IP6,
    JUMP,
    OUTPUT,
    POSTROUTING,
    PREROUTING,
    RETURN,
    Chain,
    Rule,
    Ruleset,
    Table,
    Verdict,
)

# NF_IP_PRI_NAT_DST and NF_IP_PRI_NAT_SRC: all nat chains of a hook are evaluated there.
_NAT_AT = {PREROUTING: -100, OUTPUT: -100, POSTROUTING: 100, INPUT: 100}

TCP = 6
_Chains = tuple[list[tuple[Table, Chain]], list[tuple[Table, Chain]]]
Listens = Callable[[int, int], bool | None]
"""Returns whether the socket on a port, by protocol, is transparent; None if there is none."""


class Kind(enum.Enum):
    """The outcome of a first packet."""

    TO_PORT = "port"
    """A socket of this node receives the packet on another port or address than it was sent to."""
    TO_ENDPOINT = "endpoint"
    """The packet is translated to another host's address."""
    REFUSED = "refused"
    """The packet is refused with RST or ICMP, by a rule or because no socket listens."""
    DROPPED = "dropped"
    UNTOUCHED = "untouched"
    """The packet is delivered to its original destination."""


class Outcome(NamedTuple):
    """The outcome of a packet, and its destination."""

    kind: Kind
    place: Place | None = None
    is_masqueraded: bool = False
    has_entry: bool = True
    """Whether later packets of its flow are routed in the same way."""
    is_here: bool = False
    """Whether a socket of this node receives it at the address that it was sent to."""


class Evaluation(Moment):
    """Evaluates chains at one moment, for one packet after another."""

    def run(self, table: Table, chain: Chain, packet: Packet) -> int:
        """Evaluate a base chain for a packet; return ACCEPT, DROP or REJECTED."""
        code = self._run(table, chain, packet)
        return chain.policy if code in (CONTINUE, RETURN) else code

    def _run(self, table: Table, chain: Chain, packet: Packet) -> int:
        for rule in chain.rules:
            # Cost: half of all rules are skipped here.
            if rule.guard is not None and metadata(rule.guard[0], packet) != rule.guard[1]:
                continue
            verdict = self._rule(table, rule, packet)
            if verdict is None or verdict.code == CONTINUE:
                continue
            if verdict.code == JUMP:
                code = self._run(table, table.chains[verdict.chain], packet)
                if code not in (CONTINUE, RETURN):
                    return code
            elif verdict.code == GOTO:
                code = self._run(table, table.chains[verdict.chain], packet)
                return CONTINUE if code == RETURN else code
            elif verdict.code == RETURN:
                return RETURN
            elif verdict.code != BREAK:
                return verdict.code
        return CONTINUE

    def _rule(self, table: Table, rule: Rule, packet: Packet) -> Verdict | None:
        registers = Registers()
        for one in rule.expressions:
            step = one.step[0] if one.step else step_of(one)
            verdict = step(self, registers, packet, table)
            if verdict is not None and verdict.code != CONTINUE:
                return verdict
        return None


def _all_listen(_protocol: int, _port: int) -> bool:
    return True


class Packets:
    """Sends packets through the hooks of one network namespace.

    Args:
        draw: Returns a random integer in [0, n).
        listens: As described at :data:`Listens`.
    """

    def __init__(
        self,
        tables: NfTables,
        routes: Routes,
        now: Callable[[], float],
        draw: Callable[[int], int],
        listens: Listens = _all_listen,
    ) -> None:
        self._tables = tables
        self._routes = routes
        self._now = now
        self._draw = draw
        self.listens = listens
        self._chains_of: Ruleset | None = None
        self._found: dict[tuple[int, int], _Chains] = {}

    def verdict(
        self,
        flow: Flow,
        *,
        is_local: bool = False,
        draw: Callable[[int], int] | None = None,
        mark: int = 0,
    ) -> Outcome:
        """Return the outcome that a flow's first packet would have; change nothing.

        Args:
            is_local: Whether a program of this node sends it.
            draw: Replaces the ``draw`` of the class.
        """
        evaluation = Evaluation(self._now(), draw or self._draw, has_effects=False)
        return self._first(flow, evaluation, is_local, mark)

    def send(self, flow: Flow, *, is_local: bool = False) -> tuple[Outcome, Entry | None]:
        """Send a flow's first packet or a later one; return its outcome, and its entry if any."""
        entries = self._tables.conntrack.entries
        if (entry := entries.get(flow)) is not None:
            return self._followed(entry), entry
        evaluation = Evaluation(self._now(), self._draw, has_effects=True)
        outcome = self._first(flow, evaluation, is_local, 0)
        if not outcome.has_entry:
            return outcome, None
        is_translated = outcome.place is not None and outcome.place != flow.dialled
        to = outcome.place if outcome.place is not None else flow.dialled
        return outcome, self._tables.conntrack.add(flow, to, is_translated=is_translated)

    def _followed(self, entry: Entry) -> Outcome:
        """Return the outcome of a later packet; only the filter chains of input are evaluated."""
        to = entry.leads_to
        if not self._is_here(to.ip):
            is_translated = to != entry.flow.dialled
            return Outcome(Kind.TO_ENDPOINT, to) if is_translated else Outcome(Kind.UNTOUCHED)
        packet = self._packet(entry.flow, to)
        packet.in_link = self._routes.link_to(entry.flow.client.ip)
        packet.is_translation_over = True
        evaluation = Evaluation(self._now(), self._draw, has_effects=False)
        if (ended := self._pass(INPUT, packet, evaluation)) is not None:
            return ended
        return self._received(packet)

    def _packet(self, flow: Flow, to: Place, mark: int = 0) -> Packet:
        packet = Packet(flow, to, mark)
        packet.socket_at = self.listens
        packet.is_local = self._is_here
        return packet

    def _received(self, packet: Packet) -> Outcome:
        """Return a packet's outcome at a socket of this node, or without one."""
        if self.listens(packet.flow.protocol, packet.to.port) is None:
            # The network stack's RST removes an entry without a reply.
            return Outcome(Kind.REFUSED, packet.to, has_entry=packet.flow.protocol != TCP)
        if packet.to != packet.flow.dialled:
            return Outcome(Kind.TO_PORT, packet.to)
        return Outcome(Kind.UNTOUCHED, is_here=True)

    def _first(self, flow: Flow, evaluation: Evaluation, is_local: bool, mark: int) -> Outcome:
        packet = self._packet(flow, flow.dialled, mark)
        packet.in_link = None if is_local else self._routes.link_to(flow.client.ip)
        packet.out_link = self._routes.link_to(flow.dialled.ip) if is_local else None
        if (
            ended := self._pass(OUTPUT if is_local else PREROUTING, packet, evaluation)
        ) is not None:
            return ended
        is_here = self._is_here(packet.to.ip)
        if is_here and is_local:
            packet.in_link, packet.out_link = LOOPBACK, None
            packet.is_translation_over = True
            if (ended := self._pass(PREROUTING, packet, evaluation)) is not None:
                return ended
        if is_here:
            if (ended := self._pass(INPUT, packet, evaluation)) is not None:
                return ended
            return self._received(packet)
        packet.out_link = self._routes.link_to(packet.to.ip)
        for hook in (POSTROUTING,) if is_local else (FORWARD, POSTROUTING):
            if (ended := self._pass(hook, packet, evaluation)) is not None:
                return ended
        if packet.to == flow.dialled:
            return Outcome(Kind.UNTOUCHED)
        return Outcome(Kind.TO_ENDPOINT, packet.to, packet.is_masqueraded)

    def _pass(self, hook: int, packet: Packet, evaluation: Evaluation) -> Outcome | None:
        """Evaluate all chains of a hook; return an outcome if one drops or refuses the packet."""
        packet.hook = hook
        packet.address_here = self._address_here(packet)
        others, nat = self._chains(hook, packet.flow.version)
        at = _NAT_AT.get(hook, 0)
        for table, chain in [one for one in others if one[1].priority <= at]:
            if (ended := _ended(evaluation.run(table, chain, packet))) is not None:
                return ended
        if not packet.is_translation_over:
            for table, chain in nat:
                if (ended := _ended(evaluation.run(table, chain, packet))) is not None:
                    return ended
                if packet.has_translated:
                    break
            packet.has_translated = False
        for table, chain in [one for one in others if one[1].priority > at]:
            if (ended := _ended(evaluation.run(table, chain, packet))) is not None:
                return ended
        return None

    def _chains(self, hook: int, version: int) -> _Chains:
        """Return the filter chains of a hook, and its nat chains, each in their order."""
        if self._chains_of is not self._tables.ruleset:
            self._chains_of, self._found = self._tables.ruleset, {}
        if (hook, version) not in self._found:
            self._found[hook, version] = self._find_chains(hook, version)
        return self._found[hook, version]

    def _find_chains(self, hook: int, version: int) -> _Chains:
        families = (INET, IP if version == 4 else IP6)
        found = [
            (table, chain)
            for table in self._tables.ruleset.tables.values()
            if table.family in families
            for chain in table.chains.values()
            if chain.hook == hook
        ]
        # The last added chain comes first among equal priorities (nf_hook_entries_grow).
        found.sort(key=lambda one: (one[1].priority, -one[1].order))
        return (
            [one for one in found if one[1].kind != "nat"],
            [one for one in found if one[1].kind == "nat"],
        )

    def _is_here(self, ip: str) -> bool:
        return self._routes.is_local(ip) or ip.startswith("127.")

    def _address_here(self, packet: Packet) -> str:
        """Return the address that ``redirect`` translates to; empty if it drops the packet."""
        version = packet.flow.version
        if packet.hook == OUTPUT or packet.in_link is None:
            return "127.0.0.1" if version == 4 else "::1"
        return self._routes.address_of(packet.in_link.number, version)


def _ended(code: int) -> Outcome | None:
    if code == ACCEPT:
        return None
    kind = Kind.DROPPED if code == DROP else Kind.REFUSED
    return Outcome(kind, has_entry=False)


def in_words(outcome: Outcome) -> str:
    """Format a packet's outcome; a port of this node is shown without its address."""
    place = outcome.place
    if outcome.kind is Kind.TO_PORT and place is not None:
        return f"port {place.port}"
    if outcome.kind is Kind.TO_ENDPOINT and place is not None:
        return f"endpoint {place.ip}:{place.port}"
    return outcome.kind.value
