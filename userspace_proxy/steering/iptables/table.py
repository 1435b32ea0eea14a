"""One legacy table: makes this proxy's chains and the jumps to them what they should be.

Rule 1: what is in force is read from the kernel, and compared as text. While the kernel's number
for the table is the one after the last change, what was put then is in force.
Rule 2: a change is one commit under the xtables lock: all of it or nothing.
Rule 3: the jumps are before the rules of others. A rule of others is overtaken once; when it
returns to where it was, it stays: two programs that both want to be first would rewrite the table
for ever.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from ...errors import SteeringError
from ..names import PREFIX, ChainNames
from .legacy import LegacyTables
from .lock import xtables_lock
from .rules import ChainRule
from .small_edits import SmallEdits, are_few
from .text import (
    Chains,
    Lines,
    edits_between,
    parse_table,
    rename_chains,
    target_of,
)

# How often a change is made again when others write without the lock.
ATTEMPTS = 10


@dataclass(frozen=True, slots=True)
class Difference:
    """How a table differed from what it should be; true if it did."""

    count: int = 0
    """How many rules and jumps were missing, surplus or out of order."""
    lines: Lines = ()
    """The rules among them."""
    has_other_jumps: bool = False
    """Whether a jump differed: without it, no chain steered anything."""
    edits: Lines = ()
    """What puts it right."""
    overtaken: frozenset[tuple[str, str]] = field(default=frozenset())
    """Chain and line of the rules that the jumps are put before."""

    def __bool__(self) -> bool:
        return bool(self.edits)


class Table:
    """The chains and jumps of this proxy in one table.

    Args:
        name: ``nat`` or ``filter``.
        tables: Those of the IP family.
        small_edits: Makes a few edits.
        names: What the chains are called in the kernel.
    """

    def __init__(
        self, name: str, tables: LegacyTables, small_edits: SmallEdits, names: ChainNames
    ) -> None:
        self.name = name
        self._tables = tables
        self._small_edits = small_edits
        self._names = names
        self._in_force: Chains | None = None
        """What was put last; None when it isn't known to be in force."""
        self._jumps: Sequence[ChainRule] = ()
        self._info = b""
        """The kernel's number after the last change."""
        self._overtaken: frozenset[tuple[str, str]] = frozenset()

    def info(self) -> bytes:
        """Return what changes when a rule is added or removed.

        Raises:
            SteeringError: The kernel has no such table, or the right is missing.
        """
        return self._tables.info(self.name)

    def read(self) -> dict[str, Lines]:
        """Return all chains; those of other proxies have their names in brackets.

        Raises:
            SteeringError: As :meth:`info`, or the table can't be read.
        """
        return parse_table(self._tables.save(self.name), self._names.known)

    def forget(self) -> None:
        """Compare in full the next time, whatever the kernel's number is."""
        self._in_force = None

    def put(self, chains: Chains, jumps: Sequence[ChainRule]) -> Difference:
        """Make the table's chains and jumps these.

        Args:
            chains: All of this proxy; the table keeps them, so they must not change.
            jumps: In the order in which packets should meet them.

        Returns:
            How the table differed; no difference when only the wanted chains had changed.

        Raises:
            SteeringError: The kernel refused; what was in force still is.
        """
        try:
            difference = self._put(chains, jumps)
            self._info = self.info()
        except SteeringError:
            self.forget()
            raise
        self._in_force, self._jumps = chains, jumps
        return difference

    def remove_all(self) -> None:
        """Remove the chains and all jumps to them, and nothing else; idempotent."""
        self.forget()
        if any(map(_is_ours, self.read())):
            with xtables_lock() as lock:
                self._write_compared(_removal, lock)

    def _put(self, chains: Chains, jumps: Sequence[ChainRule]) -> Difference:
        def compare_all(contents: Chains) -> Difference:
            return compare(contents, chains, jumps, self._overtaken)

        edits = self._edits_since(chains, jumps)
        if edits is None and not (difference := compare_all(self.read())):
            return difference
        if edits is not None and not edits:
            return Difference()
        with xtables_lock() as lock:
            if edits and self.info() == self._info and self._could_edit(edits, chains, lock):
                return Difference()
            return self._write_compared(compare_all, lock)

    def _edits_since(self, chains: Chains, jumps: Sequence[ChainRule]) -> list[str] | None:
        """Return the edits of what was put last, or None if it isn't known to be in force."""
        if self._in_force is None or jumps != self._jumps or self.info() != self._info:
            return None
        return list(edits_between(self._in_force, chains))

    def _could_edit(self, edits: Sequence[str], chains: Chains, lock: int) -> bool:
        """Make edits of what was put last; return False where that turns out not to be in force."""
        named = self._named(edits)
        try:
            if are_few(len(edits), sum(map(len, chains.values()))):
                self._small_edits.make(self.name, named)
            else:
                self._tables.restore(self.name, named, lock)
        except SteeringError:
            # Another program replaced a rule by one of the same size: a comparison finds it.
            return False
        return True

    def _write_compared(self, compare_all: Callable[[Chains], Difference], lock: int) -> Difference:
        """Write what a comparison asks for; again if others write without the lock meanwhile."""
        for left in reversed(range(ATTEMPTS)):
            before = self.info()
            difference = compare_all(self.read())
            try:
                if difference:
                    self._tables.restore(self.name, self._named(difference.edits), lock)
            except SteeringError:
                if not left or self.info() == before:
                    raise
            else:
                self._overtaken |= difference.overtaken
                return difference
        raise AssertionError("the loop ends by return or raise")

    def _named(self, edits: Sequence[str]) -> list[str]:
        return [rename_chains(edit, self._names.in_kernel) for edit in edits]


def compare(
    contents: Chains,
    chains: Chains,
    jumps: Sequence[ChainRule],
    overtaken: frozenset[tuple[str, str]] = frozenset(),
) -> Difference:
    """Return how a table differs from what it should be.

    Args:
        contents: All its chains.
        chains: What this proxy's should be.
        jumps: The jumps to them, in their order.
        overtaken: Chain and line of rules that may be before the jumps.
    """
    ours = {chain: lines for chain, lines in contents.items() if _is_ours(chain)}
    # A chain to which others jump can't be removed, only emptied.
    kept = dict.fromkeys(_targets_of_others(contents) & (ours.keys() - chains.keys()), ())
    count = 0
    differing: list[str] = []
    for chain in ours.keys() | chains.keys():
        have, want = ours.get(chain, ()), chains.get(chain, ())
        if have != want:
            surplus, missing = Counter(have) - Counter(want), Counter(want) - Counter(have)
            lines = [*surplus.elements(), *missing.elements()]
            # Only their order may differ.
            count += max(1, len(lines))
            differing += lines
    edits = list(edits_between(ours, {**chains, **kept}))
    faulty = missing_jumps(contents, jumps)
    rivals = {jump: _rivals(jump, contents) - overtaken for jump in jumps if jump not in faulty}
    late = [jump for jump in rivals if rivals[jump]]
    edits += _put_first({jump.chain for jump in (*faulty, *late)}, jumps, contents)
    return Difference(
        count=count + len(faulty) + len(late),
        lines=tuple(differing),
        has_other_jumps=bool(faulty or late),
        edits=tuple(edits),
        overtaken=frozenset().union(*rivals.values()),
    )


def missing_jumps(contents: Chains, jumps: Sequence[ChainRule]) -> list[ChainRule]:
    """Return the jumps that aren't there once, as they should be."""
    return [jump for jump in jumps if not _stands(jump, contents)]


def _put_first(sources: set[str], jumps: Sequence[ChainRule], contents: Chains) -> Iterator[str]:
    """Yield the edits that put the jumps of some chains before all rules of others."""
    for source in sorted(sources):
        yield from _remove_jumps(source, contents[source])
    for jump in reversed(jumps):
        if jump.chain in sources:
            yield f"-I {jump.chain} 1 {jump.rule}"


def _remove_jumps(source: str, lines: Lines) -> Iterator[str]:
    return (f"-D {source} {line}" for line in lines if PREFIX in line and _is_ours(target_of(line)))


def _removal(contents: Chains) -> Difference:
    ours = [chain for chain in contents if _is_ours(chain)]
    edits = [
        edit
        for chain, lines in contents.items()
        if chain not in ours
        for edit in _remove_jumps(chain, lines)
    ]
    edits += [f"-F {chain}" for chain in ours] + [f"-X {chain}" for chain in ours]
    return Difference(edits=tuple(edits))


def _stands(jump: ChainRule, contents: Chains) -> bool:
    lines = contents[jump.chain]
    target = jump.rule.target
    return [line for line in lines if target in line and target_of(line) == target] == [
        str(jump.rule)
    ]


def _rivals(jump: ChainRule, contents: Chains) -> frozenset[tuple[str, str]]:
    """Return the rules of others before a jump; other proxies have other frontends."""
    lines = contents[jump.chain]
    before = lines[: lines.index(str(jump.rule))]
    return frozenset(
        (jump.chain, line)
        for line in before
        if not target_of(line).removeprefix("(").startswith(PREFIX)
    )


def _targets_of_others(contents: Chains) -> set[str]:
    return {
        target_of(line)
        for chain, lines in contents.items()
        if not _is_ours(chain)
        for line in lines
        if PREFIX in line
    }


def _is_ours(chain: str) -> bool:
    return chain.startswith(PREFIX)
