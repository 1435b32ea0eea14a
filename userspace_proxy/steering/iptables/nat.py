"""The nat table: brings what clients dial to the proxy ports.

    PREROUTING ─▶ UPROXY-PRE ─▶ ┐
                                ├ UPROXY-O…   the tree of chains (tree), REDIRECT
    OUTPUT ─────▶ UPROXY-OUT ─▶ ┘

While PREROUTING needs DNAT, it has a tree of its own: UPROXY-P….

Rule 1: what is there and what should be there are compared as bytes, chain by chain.
Rule 2: a chain that differs is written anew; all chains and their jumps change in one commit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

from ...errors import SteeringError
from .blob import Contents, TableInfo, TableReader
from .rules import NAT, NAT_JUMPS, OUT, PRE, PREFIX, Jump, NatFrontend, NatRule
from .tables import OurTable
from .tree import ROOT, Line, Tree
from .writer import Edit, Writer

# Beyond so many rules at once, laying the tree out anew is less work.
LAY_OUT_ABOVE = 200
# Beyond so many lines iptables-restore writes them; below, starting it costs more than writing.
MUCH = 1000


@dataclass(frozen=True, slots=True)
class _ChainChange:
    missing: tuple[Line, ...]
    surplus: tuple[Line, ...]
    unknown: int
    """How many rules are there that we would never write."""

    @property
    def count(self) -> int:
        return len(self.missing) + len(self.surplus) + self.unknown


@dataclass(frozen=True, slots=True)
class NatChange:
    """What :meth:`NatTable.put` had to change."""

    count: int
    """How many rules and jumps."""
    touched: frozenset[NatRule]
    """Rules that came or went."""


class NatTable(OurTable):
    """Our chains of the nat table.

    Args:
        reader: Reads it.
        writer: Changes it.
    """

    jumps = NAT_JUMPS

    def __init__(self, reader: TableReader, writer: Writer, version: int) -> None:
        super().__init__(NAT, reader, writer)
        self._version = version
        self._tree = Tree(version)
        self._to_ip = ""
        self._wanted: dict[str, dict[Line, bytes]] = {PRE: {}, OUT: {}}
        """The lines of each chain, and their keys."""
        self._known_info: TableInfo | None = None
        self._changed: set[str] = set()
        """Chains whose lines are others than at the last :meth:`put`."""
        self._touched: set[NatRule] = set()

    def want(self, rules: Iterable[NatRule], to_ip: str) -> None:
        """Say what the table should be from now on.

        Args:
            rules: REDIRECT rules, one a frontend.
            to_ip: Where PREROUTING sends packets instead; empty for the interface's address.
        """
        self._to_ip = to_ip
        self._tree = Tree(self._version, rules)
        self._wanted = {PRE: {}, OUT: {}}
        for place in self._tree.places():
            for chain, line in self._sides(*place):
                self._wanted.setdefault(chain, {})[line] = self._writer.line_key(line)
        self.forget()

    def change(self, gone: Collection[NatRule], come: Collection[NatRule]) -> None:
        """Say how what is wanted differs from what was.

        Args:
            gone: Rules that are no longer wanted.
            come: Rules that are, new ones or such that take the place of their frontend's.
        """
        self._touched.update((*gone, *come))
        if len(gone) + len(come) > LAY_OUT_ABOVE:
            rules = {rule.frontend: rule for rule in self._tree.rules()}
            for rule in gone:
                rules.pop(rule.frontend, None)
            rules |= {rule.frontend: rule for rule in come}
            self.want(rules.values(), self._to_ip)
            return
        kept: set[NatFrontend] = {rule.frontend for rule in come}
        difference = self._tree.change(
            [rule.frontend for rule in gone if rule.frontend not in kept], come
        )
        for place in difference.gone:
            for chain, line in self._sides(*place):
                self._changed.add(chain)
                del self._wanted[chain][line]
                if not self._wanted[chain] and chain not in (PRE, OUT):
                    del self._wanted[chain]
        for place in difference.come:
            for chain, line in self._sides(*place):
                self._changed.add(chain)
                self._wanted.setdefault(chain, {})[line] = self._writer.line_key(line)

    def forget(self) -> None:
        """Compare in full the next time, whatever the table's size says."""
        self._known_info = None

    def put(self) -> NatChange:
        """Make the table what it should be.

        When nobody has touched it since, only the chains that change are looked at.

        Raises:
            SteeringError: The kernel refused; what was in force is.
        """
        try:
            change = self._put_changed() or self._put_all()
        except SteeringError:
            self.forget()
            raise
        self._changed, self._touched = set(), set()
        self._known_info = self.info()
        return change

    def rules(self) -> Mapping[str, list[NatRule]]:
        """Return the rules that are in force: those to which jumps lead."""
        contents = self.read()
        if self.count_missing_jumps(contents):
            return {PRE: [], OUT: []}
        return {chain: list(self._reached(contents, chain, ())) for chain in (PRE, OUT)}

    def left_behind(self) -> list[NatRule]:
        """Return the rules of all our chains, whether or not a jump leads there.

        Rules of the form before the tree, in two long chains, are found as well.
        """
        contents = self.read()
        entries = (
            entry
            for chain, entries in contents.chains.items()
            if chain.startswith(PREFIX)
            for entry in entries
        )
        rules = (self._writer.read_nat(entry.raw) for entry in entries)
        return [rule for rule in rules if rule is not None]

    def _sides(self, chain: str, line: Line) -> Iterator[tuple[str, Line]]:
        """Yield the lines of the table that a line of the tree becomes."""
        pre = "P" if self._to_ip else "O"
        if chain == ROOT:
            yield PRE, self._on_side(line, pre)
            yield OUT, self._on_side(line, "O")
            return
        for side in {"O", pre}:
            yield f"{PREFIX}{side}{chain}", self._on_side(line, side)

    def _on_side(self, line: Line, side: str) -> Line:
        if isinstance(line, Jump):
            return line._replace(chain=f"{PREFIX}{side}{line.chain}")
        return line._replace(to_ip=self._to_ip) if side == "P" else line

    def _put_changed(self) -> NatChange | None:
        """Return None where a full comparison is needed."""
        if self._known_info is None or self.info() != self._known_info:
            return None
        if self._changed:
            try:
                if not self._change(self._edit_changed):
                    return None
            except SteeringError:
                # Somebody put a rule in the place of one of its size; the comparison will tell.
                return None
        return NatChange(0, frozenset(self._touched))

    def _edit_changed(self, edit: Edit) -> bool:
        if self.info() != self._known_info:
            return False
        self._write(edit, self._changed)
        return True

    def _put_all(self) -> NatChange:
        contents = self.read()
        changes = self._compare(contents)
        faults = self.count_jump_faults(contents)
        count = faults + sum(change.count for change in changes.values())
        if count == 0 and contents.chains.keys() >= self._wanted.keys():
            return NatChange(0, frozenset())
        lines = sum(len(self._wanted.get(chain, ())) for chain in changes)
        self._change(self._edit_all, is_much=lines > MUCH)
        return NatChange(count, frozenset(self._touched_by(changes, all_of_it=faults > 0)))

    def _touched_by(
        self, changes: Mapping[str, _ChainChange], *, all_of_it: bool
    ) -> Iterator[NatRule]:
        """Yield the rules that were in force no longer, or weren't yet."""
        for change in changes.values():
            for line in (*change.missing, *change.surplus):
                if isinstance(line, NatRule):
                    yield line
                else:
                    all_of_it = True
        if all_of_it:
            # Without its jump a chain steered nothing, whatever stood in it.
            yield from self._tree.rules()

    def _reached(self, contents: Contents, chain: str, way: tuple[Jump, ...]) -> Iterator[NatRule]:
        for entry in contents.chains.get(chain, ()):
            if jump := self._writer.read_jump(entry):
                yield from self._reached(contents, jump.chain, (*way, jump))
                continue
            rule = self._writer.read_nat(entry.raw)
            if rule is not None and all(jump.covers(rule) for jump in way):
                yield rule

    def _compare(self, contents: Contents) -> dict[str, _ChainChange]:
        """Return the differences of the chains that differ."""
        changes = {}
        ours = {chain for chain in contents.chains if chain.startswith(PREFIX)}
        for chain in self._wanted.keys() | ours:
            wanted = {key: line for line, key in self._wanted.get(chain, {}).items()}
            have = Counter(entry.key for entry in contents.chains.get(chain, ()))
            is_there = chain in ours and chain in self._wanted
            if is_there and have.keys() == wanted.keys() and have.total() == len(wanted):
                continue
            surplus: list[Line] = []
            unknown = 0
            for entry in contents.chains.get(chain, ()):
                if have[entry.key] > (entry.key in wanted):
                    have[entry.key] -= 1
                    line = self._writer.read_nat(entry.raw) or self._writer.read_jump(entry)
                    if line is None:
                        unknown += 1
                    else:
                        surplus.append(line)
            missing = tuple(line for key, line in wanted.items() if key not in have)
            changes[chain] = _ChainChange(missing, tuple(surplus), unknown)
        return changes

    def _edit_all(self, edit: Edit) -> bool:
        contents = self.read()
        self._write(edit, self._compare(contents))
        self.put_jumps(edit, contents)
        return True

    def _write(self, edit: Edit, chains: Collection[str]) -> None:
        """Write some chains anew, and remove those of them that aren't wanted."""
        wanted = sorted(chain for chain in chains if chain in self._wanted)
        for chain in wanted:
            edit.make_chain(chain)
        for chain in chains:
            edit.flush(chain)
        for chain in wanted:
            for line in sorted(self._wanted[chain], key=self._wanted[chain].__getitem__):
                edit.append(chain, line)
        for chain in chains:
            if chain not in self._wanted:
                edit.drop_chain(chain)
