"""What changes on the node beside the product: links, sysctls, and what other programs have there.

    step ─▶ the node ─▶ noted: what the product may not know yet, or must not touch

Rule 1: what lasts for a repair only is over when the step returns.
"""

from __future__ import annotations

from collections.abc import Callable

from ..nf_tables_state import INET, Table
from . import plan as p
from .drifting import FOREIGN, OF_LOCAL, drift
from .nftables_runs import FORWARDING, NftablesRuns
from .node import OURS, Machine
from .oracles import Oracles
from .pictures import difference
from .plan import Step
from .takers import TABLE, TAKERS
from .without_ipv6 import ipv4_of


class NodeChanges:
    """Carries such changes out.

    Args:
        runs: Repair within some of them, and are told what others have changed of theirs.
        note: Notes a text in the trace.
    """

    def __init__(
        self, node: Machine, oracles: Oracles, runs: NftablesRuns, note: Callable[[str], None]
    ) -> None:
        self._node = node
        self._oracles = oracles
        self._runs = runs
        self._note = note

    def put_link(self, step: Step) -> None:
        """Add a link, or change one."""
        link, node, known = step.link, self._node, self._oracles.links
        assert link is not None
        before, had = node.kernel.addresses, node.routes.links.get(link.number)
        if link == had:
            return
        if not node.routes.put(link):
            known.note_routes(link.number)
            return
        moved = before ^ node.kernel.addresses
        # A bridge's ports decide what it leads to.
        changed = {link.number, link.master, had.master if had else 0} - {0}
        if link.number == p.UPLINK:
            # Packets from any link may be translated to the best address; `redirect` needs no rule.
            is_other_best = p.NODE_ADDRESSES[0] in moved
            changed = set(node.routes.links) if is_other_best else {p.NO_LINK}
        known.note(changed, moved)

    def remove_link(self, step: Step) -> None:
        """Remove a link, if it is there."""
        links = self._node.routes.links
        if (had := links.get(step.number)) is None:
            return
        ports = {n for n, one in links.items() if one.master == had.number}
        self._node.routes.remove(step.number)
        self._oracles.links.note({had.number, *ports, *filter(None, (had.master,))})

    def switch_forwarding(self, step: Step) -> None:
        """Switch the forwarding of a family on or off."""
        self._node.sysctls.zeros ^= {FORWARDING[p.FORWARDED[step.number]]}

    def go_without_ipv6(self) -> None:
        """Have IPv6 switched off for as long as a repair takes."""
        if not self._runs.is_applied:
            return
        node, before = self._node, list(self._node.routes.links.values())
        for has_ipv6, links in ((False, map(ipv4_of, before)), (True, iter(before))):
            node.sysctls.has_ipv6 = has_ipv6
            for link in links:
                self.put_link(Step(p.LINK, link=link))
            self._runs.repair()

    def drift(self, step: Step) -> None:
        """Have another program change the product's tables, or one of its own."""
        if step.name in OF_LOCAL:
            # There is nothing of such a run.
            return
        if step.name in FOREIGN:
            self._beside(step.name, lambda: self._carry_out(step))
            return
        before = self._oracles.picture()
        if self._carry_out(step):
            self._runs.note_drift(difference(before, self._oracles.picture(), step.name))

    def take(self, step: Step) -> None:
        """Have a chain of another program take packets first, for as long as a repair takes."""
        if not self._runs.is_applied:
            return
        node, taker = self._node, TAKERS[step.number % len(TAKERS)]
        self._beside("taker", lambda: taker.add(node.another))
        self._oracles.taker = taker
        self._runs.change(step)
        self._runs.repair()
        if (table := node.tables.ruleset.tables.get((INET, TABLE))) is not None:
            self._beside("no taker", lambda: node.another.delete_table(table))
        self._oracles.taker = None
        self._runs.repair()

    def _carry_out(self, step: Step) -> bool:
        """Carry a drift out; return whether one of the product's tables has changed."""
        node = self._node
        return drift(step.name, step.number, node.another, node.own_tables, self._others())

    def _beside(self, name: str, happen: Callable[[], object]) -> None:
        """Have another program change what isn't the product's."""
        node, oracles = self._node, self._oracles
        # Cost: a picture takes as long as a repair, and is asked for only while ours aren't right.
        before = None if oracles.is_sure else oracles.picture()
        happen()
        self._note(f"foreign: {name}")
        if before is not None:
            oracles.beside(difference(before, oracles.picture(), name))
        if node.node.event_calls:
            # A transaction that isn't known yet may be one about the product's tables.
            oracles.lose_events()

    def _others(self) -> list[Table]:
        """Return the tables that other programs change."""
        tables = self._node.tables.ruleset.tables.values()
        return [one for one in tables if not one.name.startswith((OURS, TABLE))]
