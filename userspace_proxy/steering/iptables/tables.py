"""One of our tables as a whole: its chains, the jumps to them, and their removal.

Rule 1: our jumps stand before the rules of others: before those that were there, and those that
come later.
Rule 2: a rule of others is overtaken once. When it comes back to where it was, it stays: two
programs that both want to be first would rewrite the table for ever.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence

from ...errors import SteeringError
from .blob import Contents, Entry, TableInfo, TableReader
from .rules import CHAINS, PREFIX, ChainRule
from .writer import Edit, Writer

_HINTS = {
    errno.EPERM: "grant NET_ADMIN and NET_RAW, run as root, or run with --steering=none",
    errno.ENOENT: "modprobe ip_tables iptable_nat iptable_filter, or run with --steering=none",
}
# What a kernel without legacy tables answers: no such table, or no such option.
_MISSING = (errno.ENOENT, errno.ENOPROTOOPT)


class OurTable:
    """The chains and jumps of ours in one table.

    Args:
        name: ``nat`` or ``filter``.
        reader: Reads it.
        writer: Changes it.
    """

    jumps: Sequence[ChainRule] = ()
    """Those that there should be, in the order in which packets should meet them."""

    def __init__(self, name: str, reader: TableReader, writer: Writer) -> None:
        self.name = name
        self._reader = reader
        self._writer = writer
        self._overtaken: set[tuple[str, bytes]] = set()
        """Rules of others that we have put our jumps before, by chain and key."""
        self._overtaking: set[tuple[str, bytes]] = set()

    def info(self) -> TableInfo:
        """Return what changes when somebody adds or removes rules.

        Raises:
            SteeringError: The kernel has no such table, or gives no right.
        """
        try:
            return self._reader.info(self.name)
        except OSError as exc:
            raise explained(self.name, exc) from exc

    def read(self) -> Contents:
        """Return its built-in chains and ours.

        Raises:
            SteeringError: As :meth:`info`.
        """
        try:
            return self._reader.read(self.name, PREFIX)
        except OSError as exc:
            raise explained(self.name, exc) from exc

    def count_jump_faults(self, contents: Contents) -> int:
        """Return how many of our jumps are missing, doubled, changed, or behind others' rules."""
        return sum(
            not self._stands(jump, contents) or bool(self._rivals(jump, contents))
            for jump in self.jumps
        )

    def count_missing_jumps(self, contents: Contents) -> int:
        """Return how many of our jumps are missing, doubled or changed."""
        return sum(not self._stands(jump, contents) for jump in self.jumps)

    def _change(self, edit: Callable[[Edit], bool], *, is_much: bool = False) -> bool:
        """Change the table as :meth:`~.writer.Writer.change` does."""
        is_changed = self._writer.change(self.name, edit, is_much=is_much)
        # Not before: the edit may be made again, or in vain.
        self._overtaken |= self._overtaking
        self._overtaking = set()
        return is_changed

    def put_chains(self, edit: Edit) -> None:
        """Make our chains where they are missing."""
        for chain in CHAINS[self.name]:
            edit.make_chain(chain)

    def put_jumps(self, edit: Edit, contents: Contents) -> None:
        """Put the jumps right; our chains must be there.

        Args:
            edit: The change that they are part of.
            contents: What is in force.
        """
        faulty = set()
        self._overtaking = set()
        for jump in self.jumps:
            rivals = self._rivals(jump, contents)
            self._overtaking |= rivals
            if rivals or not self._stands(jump, contents):
                faulty.add(jump.chain)
        for chain in faulty:
            _remove_jumps(edit, chain, contents.chains[chain])
        for jump in reversed(self.jumps):
            if jump.chain in faulty:
                edit.insert_first(jump.chain, jump.rule)

    def _stands(self, jump: ChainRule, contents: Contents) -> bool:
        """Return whether a jump is there once, as it should be."""
        entries = contents.chains[jump.chain]
        have = [entry.condition for entry in entries if entry.verdict == jump.rule.target]
        return have == [self._writer.expected(jump.rule).condition]

    def _rivals(self, jump: ChainRule, contents: Contents) -> set[tuple[str, bytes]]:
        """Return the rules before a jump that weren't overtaken yet; empty where it is missing."""
        before: set[tuple[str, bytes]] = set()
        for entry in contents.chains[jump.chain]:
            if entry.verdict == jump.rule.target:
                return before - self._overtaken
            # Another proxy of ours has other frontends, and its chains' names are in brackets.
            if not entry.verdict.removeprefix("(").startswith(PREFIX):
                before.add((jump.chain, entry.key))
        return set()

    def remove_all(self) -> None:
        """Remove our jumps and chains, and nothing else; idempotent."""
        if any(chain.startswith(PREFIX) for chain in self.read().chains):
            self._change(self._remove_all)

    def _remove_all(self, edit: Edit) -> bool:
        contents = self.read()
        ours = [chain for chain in contents.chains if chain.startswith(PREFIX)]
        for source, entries in contents.chains.items():
            if source not in ours:
                _remove_jumps(edit, source, entries)
        # Chains of ours may jump to each other, so all are emptied before one goes.
        for chain in ours:
            edit.flush(chain)
        for chain in ours:
            edit.remove_chain(chain)
        return bool(ours)


def _remove_jumps(edit: Edit, source: str, entries: list[Entry]) -> None:
    """Remove all rules of a chain that jump to chains of ours."""
    for index in reversed(range(len(entries))):
        if entries[index].verdict.startswith(PREFIX):
            edit.remove_number(source, index)


def explained(table: str, exc: OSError) -> SteeringError:
    """Return one line for the operator, with the way out."""
    if exc.errno in _MISSING:
        return SteeringError(
            f"cannot read the iptables table {table}: this kernel has no legacy tables",
            hint=_HINTS[errno.ENOENT],
        )
    return SteeringError(
        f"cannot read the iptables table {table}: {exc.strerror}",
        hint=_HINTS.get(exc.errno or 0, ""),
    )
