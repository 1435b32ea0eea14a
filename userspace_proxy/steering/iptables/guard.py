"""The filter table: who may reach the ports that frontends are steered to.

Rule 1: the rules are few and their order matters, so on any difference both chains are written
anew, in one commit.
"""

from __future__ import annotations

from collections import Counter

from .blob import Contents, TableInfo, TableReader
from .rules import CHAINS, FILTER, Guard
from .tables import OurTable
from .writer import Edit, Writer


class GuardTable(OurTable):
    """Our chains of the filter table.

    Args:
        reader: Reads it.
        writer: Changes it.
    """

    def __init__(self, reader: TableReader, writer: Writer) -> None:
        super().__init__(FILTER, reader, writer)
        self._wanted = Guard()
        self._known_info: TableInfo | None = None

    def put(self, guard: Guard) -> int:
        """Make the guard this one.

        Returns:
            How many rules and jumps were missing, too many or out of order.

        Raises:
            SteeringError: The kernel refused; what was in force is.
        """
        known = self._known_info
        if known is not None and guard == self._wanted and self.info() == known:
            return 0
        self._wanted, self.jumps = guard, guard.jumps
        self.forget()
        contents = self.read()
        count = self._count_faults(contents) + self.count_jump_faults(contents)
        if count:
            self._change(self._edit)
        self._known_info = self.info()
        return count

    def refuse_ports(self) -> set[int]:
        """Return the refuse ports that rules in force name; an earlier run may have had another."""
        chains = self.read().chains
        entries = (entry for chain in CHAINS[FILTER] for entry in chains.get(chain, ()))
        ports = (self._writer.read_refusal(entry.raw) for entry in entries)
        return {port for port in ports if port is not None}

    def forget(self) -> None:
        """Compare in full the next time, whatever the table's size says."""
        self._known_info = None

    def _count_faults(self, contents: Contents) -> int:
        have = [
            (chain, entry.condition, entry.effect)
            for chain in CHAINS[FILTER]
            for entry in contents.chains.get(chain, ())
        ]
        want = []
        for chain, rule in self._wanted.rules:
            entry = self._writer.expected(rule)
            want.append((chain, entry.condition, entry.effect))
        if have == want:
            return 0
        surplus, missing = Counter(have) - Counter(want), Counter(want) - Counter(have)
        return max(1, surplus.total() + missing.total())

    def _edit(self, edit: Edit) -> bool:
        contents = self.read()
        self.put_chains(edit)
        for chain in CHAINS[FILTER]:
            edit.flush(chain)
        for chain, rule in self._wanted.rules:
            edit.append(chain, rule)
        self.put_jumps(edit, contents)
        return True
