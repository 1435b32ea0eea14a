"""Maintains this proxy's chains, and the jumps to them, in one legacy table.

    -A UPROXY-OUT -d 10.96.7.1/32 …        ──▶ chain "UPROXY-OUT", line "-d 10.96.7.1/32 …"
    applied chains, desired chains         ──▶ edits: ":CHAIN - [0:0]", "-A CHAIN LINE", …

Rule 1: the state is read from the kernel, and compared as text: this proxy's lines have the form
that ``iptables-save`` prints. While the table's size and layout are as after the last write, that
write is assumed to be intact.
Rule 2: edits are lines as ``iptables-restore --noflush`` accepts them. Rules are removed by their
text, never by their number, which may be another program's rule by then.
Rule 3: a change is one commit under the xtables lock: all or nothing.
Rule 4: the jumps precede the rules of other programs. The jumps are moved before another program's
rule only once. If the rule then returns to the first position, it stays there, because two programs
that both require this position would rewrite the table forever.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache

from ...errors import SteeringError
from ..names import PREFIX, ChainNames
from .legacy import LegacyTables, xtables_lock
from .rules import BuiltInJump
from .small_edits import SmallEdits, are_few

Lines = tuple[str, ...]
Chains = Mapping[str, Lines]
"""The lines of each chain, in order."""
# The number of attempts to make a change while other programs write without the lock.
ATTEMPTS = 10
_WORD = re.compile(r'"(?:\\.|[^"\\])*"|\S+')
_OUR_CHAIN = re.compile(rf"(?<!\S){PREFIX}\S+")


@dataclass(frozen=True, slots=True)
class TableDifference:
    """The difference between a table and its desired state; falsy if there is none."""

    count: int = 0
    """The number of rules and jumps that are missing, surplus or out of order."""
    lines: Lines = ()
    """The rules that differ, without the jumps."""
    has_other_jumps: bool = False
    """Whether a jump differs: without the jump to it, a chain has no effect."""
    edits: Lines = ()
    """The edits that correct the table."""
    overtaken: frozenset[tuple[str, str]] = field(default=frozenset())
    """Other programs' rules before which the edits put the jumps, each as chain and line."""

    def __bool__(self) -> bool:
        return bool(self.edits)


class LegacyTable:
    """The chains and jumps of this proxy in one table, ``nat`` or ``filter``."""

    def __init__(
        self, name: str, tables: LegacyTables, small_edits: SmallEdits, names: ChainNames
    ) -> None:
        self.name = name
        self._tables = tables
        self._small_edits = small_edits
        self._names = names
        self._in_force: Chains | None = None
        """The chains written last; None if they may no longer be in the kernel."""
        self._jumps: Sequence[BuiltInJump] = ()
        self._info = b""
        """The table's size and layout after the last change; empty if they couldn't be read."""
        self._overtaken: frozenset[tuple[str, str]] = frozenset()

    def info(self) -> bytes:
        return self._tables.info(self.name)

    def has_changed(self) -> bool:
        """Return whether another program may have written since the last change."""
        return self.info() != self._info

    def read(self) -> dict[str, Lines]:
        """Return all chains; names of other proxies' chains are put in brackets."""
        return parse_table(self._tables.save(self.name), self._names.known)

    def forget(self) -> None:
        """Force the next change to compare the whole table, even if its size is unchanged."""
        self._in_force = None

    def put(self, chains: Chains, jumps: Sequence[BuiltInJump]) -> TableDifference:
        """Write the table's chains and jumps.

        Args:
            chains: All chains of this proxy; this object keeps them, so don't modify them.
            jumps: The jumps, in the order in which packets should pass them.

        Returns:
            How the table differed; no difference if only the desired chains had changed.

        Raises:
            SteeringError: The kernel refused the edits, or the xtables lock is held; the old state
                is unchanged.
        """
        edits = self._edits_since(chains, jumps)
        self.forget()
        difference = self._put(edits, chains, jumps)
        # The change is applied, even if the table can't be read now.
        self._info = b""
        with suppress(SteeringError):
            self._info = self.info()
            self._in_force, self._jumps = chains, jumps
        return difference

    def remove_all(self) -> None:
        """Remove this proxy's chains and all jumps to them, and nothing else; idempotent.

        Raises:
            SteeringError: The table can't be read or changed, or the xtables lock is held.
        """
        self.forget()
        if any(map(_is_ours, self.read())):
            with xtables_lock() as lock:
                self._write_compared(_removal, lock)

    def _put(
        self, edits: list[str] | None, chains: Chains, jumps: Sequence[BuiltInJump]
    ) -> TableDifference:
        def compare_all(contents: Chains) -> TableDifference:
            return compare(contents, chains, jumps, self._overtaken)

        if edits is None and not (difference := compare_all(self.read())):
            return difference
        if edits is not None and not edits:
            return TableDifference()
        with xtables_lock() as lock:
            if edits and self.info() == self._info and self._could_edit(edits, chains, lock):
                return TableDifference()
            return self._write_compared(compare_all, lock)

    def _edits_since(self, chains: Chains, jumps: Sequence[BuiltInJump]) -> list[str] | None:
        """Return the edits since the last write; None if that write may have been undone."""
        if self._in_force is None or jumps != self._jumps or self.info() != self._info:
            return None
        return list(edits_between(self._in_force, chains))

    def _could_edit(self, edits: Sequence[str], chains: Chains, lock: int) -> bool:
        """Apply edits to the last written state; return False if the kernel's state differs."""
        named = self._named(edits)
        try:
            if are_few(len(edits), sum(map(len, chains.values()))):
                self._small_edits.make(self.name, named)
            else:
                self._tables.restore(self.name, named, lock)
        except SteeringError:
            # Another program replaced a rule with one of the same size; a full comparison finds it.
            return False
        return True

    def _write_compared(
        self, compare_all: Callable[[Chains], TableDifference], lock: int
    ) -> TableDifference:
        """Compare, write and return the differences; retry if other programs write meanwhile."""
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
    jumps: Sequence[BuiltInJump],
    overtaken: frozenset[tuple[str, str]] = frozenset(),
) -> TableDifference:
    """Return how a table differs from its desired state.

    Args:
        chains: The desired chains of this proxy.
        overtaken: The chain and line of other programs' rules that may precede the jumps.
    """
    ours = {chain: lines for chain, lines in contents.items() if _is_ours(chain)}
    # A chain to which other programs' rules jump can be flushed, but not deleted.
    kept = dict.fromkeys(_targets_of_others(contents) & (ours.keys() - chains.keys()), ())
    count = 0
    differing: list[str] = []
    for chain in ours.keys() | chains.keys():
        have, want = ours.get(chain, ()), chains.get(chain, ())
        if have != want:
            surplus, missing = Counter(have) - Counter(want), Counter(want) - Counter(have)
            lines = [*surplus.elements(), *missing.elements()]
            # If only the order of the lines differs, count one difference.
            count += max(1, len(lines))
            differing += lines
    edits = list(edits_between(ours, {**chains, **kept}))
    absent = missing_jumps(contents, jumps)
    ahead = {
        jump: _rules_before(jump, contents) - overtaken for jump in jumps if jump not in absent
    }
    late = [jump for jump in ahead if ahead[jump]]
    edits += _put_first({jump.chain for jump in (*absent, *late)}, jumps, contents)
    return TableDifference(
        count=count + len(absent) + len(late),
        lines=tuple(differing),
        has_other_jumps=bool(absent or late),
        edits=tuple(edits),
        overtaken=frozenset().union(*ahead.values()),
    )


def missing_jumps(contents: Chains, jumps: Sequence[BuiltInJump]) -> list[BuiltInJump]:
    """Return the jumps that don't exist exactly once."""
    return [jump for jump in jumps if not _exists_once(jump, contents)]


def parse_table(text: str, known: Callable[[str], str]) -> dict[str, Lines]:
    """Return the chains of one table.

    Args:
        known: Converts a chain's name in the kernel to the name used in the result.

    Raises:
        SteeringError: A rule's chain isn't declared: the table is incomplete.
    """
    chains: dict[str, list[str]] = {}
    known = cache(known)
    # Don't use splitlines(): it also splits at characters such as U+2028, which a rule's comment
    # may contain.
    for line in text.split("\n"):
        if line.startswith(":"):
            chains[known(line[1:].partition(" ")[0])] = []
        elif line.startswith("-A "):
            _, _, rest = line.partition(" ")
            chain, _, rule = rest.partition(" ")
            lines = chains.get(known(chain))
            if lines is None:
                raise SteeringError(f"cannot read an iptables table: {chain!r} is not declared")
            lines.append(_rename(rule, known))
    return {chain: tuple(lines) for chain, lines in chains.items()}


def rename_chains(edit: str, in_kernel: Callable[[str], str]) -> str:
    """Return an edit with this proxy's chain names replaced by their names in the kernel."""
    if edit.startswith(":"):
        chain, _, rest = edit[1:].partition(" ")
        return f":{in_kernel(chain)} {rest}"
    return _rename(edit, in_kernel)


def split_target(line: str) -> tuple[str, str]:
    """Return a line's conditions and, from ``-j`` or ``-g`` on, its target."""
    for word in _WORD.finditer(line):
        if word[0] in ("-j", "-g"):
            return line[: word.start()].rstrip(), line[word.start() :]
    return line, ""


def target_of(line: str) -> str:
    """Return a line's target or chain; empty for a rule without a target, such as a counter."""
    words = split_target(line)[1].split()
    return words[1] if words else ""


def edits_between(have: Chains, want: Chains) -> Iterator[str]:
    """Yield the edits from existing to desired chains; a chain that differs is rewritten."""
    for chain in want:
        if chain not in have:
            yield f":{chain} - [0:0]"
    for chain, lines in want.items():
        before = have.get(chain, ())
        if before != lines:
            if before:
                yield f"-F {chain}"
            yield from (f"-A {chain} {line}" for line in lines)
    gone = [chain for chain in have if chain not in want]
    # Chains may jump to each other, so all are flushed before any is deleted.
    yield from (f"-F {chain}" for chain in gone)
    yield from (f"-X {chain}" for chain in gone)


def _rename(text: str, new_name: Callable[[str], str]) -> str:
    return _OUR_CHAIN.sub(lambda found: new_name(found[0]), text) if PREFIX in text else text


def _put_first(sources: set[str], jumps: Sequence[BuiltInJump], contents: Chains) -> Iterator[str]:
    """Yield the edits that put the jumps in these chains before all rules of other programs."""
    for source in sorted(sources):
        yield from _remove_jumps(source, contents[source])
    for jump in reversed(jumps):
        if jump.chain in sources:
            yield f"-I {jump.chain} 1 {jump.line}"


def _remove_jumps(source: str, lines: Lines) -> Iterator[str]:
    return (f"-D {source} {line}" for line in lines if PREFIX in line and _is_ours(target_of(line)))


def _removal(contents: Chains) -> TableDifference:
    ours = [chain for chain in contents if _is_ours(chain)]
    edits = [
        edit
        for chain, lines in contents.items()
        if chain not in ours
        for edit in _remove_jumps(chain, lines)
    ]
    edits += [f"-F {chain}" for chain in ours] + [f"-X {chain}" for chain in ours]
    return TableDifference(edits=tuple(edits))


def _exists_once(jump: BuiltInJump, contents: Chains) -> bool:
    target = jump.target
    lines = [line for line in contents[jump.chain] if target in line and target_of(line) == target]
    return lines == [jump.line]


def _rules_before(jump: BuiltInJump, contents: Chains) -> frozenset[tuple[str, str]]:
    """Return the rules of other programs before a jump, without the rules of other proxies."""
    lines = contents[jump.chain]
    before = lines[: lines.index(jump.line)]
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
