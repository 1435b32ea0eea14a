"""The nat table: brings what clients dial to the proxy ports.

Rule 1: what is there and what should be there are compared as bytes, chain by chain.
Rule 2: both chains and their jumps change in one commit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ...errors import SteeringError
from .blob import Contents, TableInfo, TableReader
from .rules import NAT, NAT_JUMPS, OUT, PRE, NatRule
from .tables import OurTable
from .writer import TableEdit, Writer

# libiptc looks for each rule that goes from its chain's start; beyond so many, writing the chain
# anew is less work.
REWRITE_ABOVE = 200


@dataclass(frozen=True, slots=True)
class _ChainChange:
    missing: tuple[bytes, ...]
    surplus: tuple[NatRule, ...]
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

    def __init__(self, reader: TableReader, writer: Writer) -> None:
        super().__init__(NAT, reader, writer)
        self._wanted: dict[str, dict[bytes, NatRule]] = {PRE: {}, OUT: {}}
        self._to_ip = ""
        self._known_info: TableInfo | None = None
        self._removed: list[NatRule] = []
        self._added: list[NatRule] = []

    def want(self, rules: Iterable[NatRule], to_ip: str) -> None:
        """Say what the table should be from now on.

        Args:
            rules: REDIRECT rules, one a frontend.
            to_ip: Where PREROUTING sends packets instead; empty for the interface's address.
        """
        self._to_ip = to_ip
        self._wanted = {PRE: {}, OUT: {}}
        self.change(removed=(), added=rules)
        self.forget()

    def change(self, *, removed: Iterable[NatRule], added: Iterable[NatRule]) -> None:
        """Say how what is wanted differs from what was; a new target is both."""
        for rule in removed:
            for chain, its_rule in self._in_chains(rule):
                self._wanted[chain].pop(self._writer.write_nat(its_rule), None)
            self._removed.append(rule)
        for rule in added:
            for chain, its_rule in self._in_chains(rule):
                self._wanted[chain][self._writer.write_nat(its_rule)] = its_rule
            self._added.append(rule)

    def forget(self) -> None:
        """Compare in full the next time, whatever the table's size says."""
        self._known_info = None

    def put(self) -> NatChange:
        """Make the table what it should be.

        When nobody has touched it since, only the difference is looked at: at 10,000 Services
        that is a tenth of the work.

        Raises:
            SteeringError: The kernel refused; what was in force is.
        """
        try:
            change = self._put_difference() or self._put_all()
        except SteeringError:
            self.forget()
            raise
        self._removed, self._added = [], []
        self._known_info = self.info()
        return change

    def _put_difference(self) -> NatChange | None:
        """Return None where a full comparison is needed."""
        if self._known_info is None or self.info() != self._known_info:
            return None
        touched = frozenset((*self._removed, *self._added))
        if len(self._removed) > REWRITE_ABOVE:
            return None
        if touched:
            try:
                if not self._writer.change(NAT, self._edit_difference):
                    return None
            except SteeringError:
                # A rule was replaced by another of its size; the comparison will tell.
                return None
        return NatChange(0, touched)

    def _edit_difference(self, edit: TableEdit) -> bool:
        if self.info() != self._known_info:
            return False
        for rule in self._removed:
            for chain, its_rule in self._in_chains(rule):
                edit.remove(chain, its_rule)
        for rule in self._added:
            for chain, its_rule in self._in_chains(rule):
                edit.append(chain, self._writer.write_nat(its_rule))
        return True

    def _in_chains(self, rule: NatRule) -> tuple[tuple[str, NatRule], ...]:
        in_pre = rule._replace(to_ip=self._to_ip) if self._to_ip else rule
        return (PRE, in_pre), (OUT, rule)

    def _put_all(self) -> NatChange:
        contents = self.read()
        changes = self._compare(contents)
        faults = self.count_jump_faults(contents)
        count = faults + sum(change.count for change in changes.values())
        if count == 0 and PRE in contents.chains and OUT in contents.chains:
            return NatChange(0, frozenset())
        self._writer.change(NAT, self._edit)
        touched = {rule for change in changes.values() for rule in change.surplus}
        for chain, change in changes.items():
            # Without its jump a chain steered nothing, whatever stood in it.
            raws = self._wanted[chain] if faults else change.missing
            touched.update(self._wanted[chain][raw] for raw in raws)
        return NatChange(count, frozenset(touched))

    def rules(self) -> Mapping[str, list[NatRule]]:
        """Return the rules that are in force: those of chains to which their jump leads."""
        contents = self.read()
        if self.count_jump_faults(contents):
            return {PRE: [], OUT: []}
        return {chain: self._known(contents, chain) for chain in (PRE, OUT)}

    def left_behind(self) -> Mapping[str, list[NatRule]]:
        """Return the rules of our chains, whether or not a jump leads there."""
        contents = self.read()
        return {chain: self._known(contents, chain) for chain in (PRE, OUT)}

    def _known(self, contents: Contents, chain: str) -> list[NatRule]:
        rules = (self._writer.read_nat(entry.raw) for entry in contents.chains.get(chain, ()))
        return [rule for rule in rules if rule is not None]

    def _compare(self, contents: Contents) -> dict[str, _ChainChange]:
        changes = {}
        for chain, wanted in self._wanted.items():
            have = Counter(entry.raw for entry in contents.chains.get(chain, ()))
            missing = tuple(raw for raw in wanted if raw not in have)
            surplus: list[NatRule] = []
            unknown = 0
            for raw, times in have.items():
                times -= raw in wanted
                rule = self._writer.read_nat(raw) if times else None
                if rule is None:
                    unknown += times
                else:
                    surplus += [rule] * times
            changes[chain] = _ChainChange(missing, tuple(surplus), unknown)
        return changes

    def _edit(self, edit: TableEdit) -> bool:
        contents = self.read()
        self.put_chains(edit)
        for chain, change in self._compare(contents).items():
            if change.unknown or len(change.surplus) > REWRITE_ABOVE:
                edit.flush(chain)
                missing: Iterable[bytes] = self._wanted[chain]
            else:
                for rule in change.surplus:
                    edit.remove(chain, rule)
                missing = change.missing
            for raw in missing:
                edit.append(chain, raw)
        self.put_jumps(edit, contents)
        return True
