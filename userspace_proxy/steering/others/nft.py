"""The nftables chains of all programs.

Of other programs' sets those are read that are part of a rule (``tcp dport { 22, 80 }``), and of
those with a name (``ip daddr @blocked``) the ones whose elements change only with the ruleset's
generation. Their user data, which may be of any kind, isn't.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from ...errors import SteeringError
from ...kernel.nf_tables import Ruleset
from ...kernel.nf_tables.chains import Chain, ChainTable, Step, Tables
from ...kernel.nf_tables.looked_up import (
    ELEMENTS_MAX,
    is_constant,
    is_of_rule,
    set_of,
    write_out,
)
from ...kernel.nf_tables.reader import FAMILIES, ListedElement, ListedSet
from ...kernel.nf_tables.rules import read_marking, read_step
from .firewalls import base_chains

CHAINS_MAX = 200
"""How many chains are read with their rules from one that the kernel calls; a firewall has tens."""

_NUMBERS = {name: number for number, name in FAMILIES.items()}


class NftReader:
    """Reads chains in this thread's network namespace; for use in one thread.

    Raises:
        SteeringError: The kernel has no nftables, or permission is denied.
    """

    def __init__(self) -> None:
        self._ruleset = Ruleset()
        # By family and table, and by name, since the last listing of chains.
        self._sets: dict[tuple[int, str], dict[str, ListedSet]] = {}
        self._elements: dict[tuple[int, str, str], Sequence[ListedElement]] = {}

    def chains(self) -> Tables:
        """Return all chains without their rules, and read sets again afterwards."""
        self._sets, self._elements = {}, {}
        tables: Tables = {}
        for found in self._ruleset.chains():
            family = FAMILIES.get(found.family, str(found.family))
            table = ChainTable(family, found.table)
            place = found.name, found.kind, found.hook, found.priority, found.policy
            tables.setdefault(table, {})[found.name] = Chain(table, *place, is_read=False)
        return tables

    def with_steps(self, chain: Chain) -> Chain:
        """Return a chain with its rules; as it is if they can't be read, or it was removed."""
        family, table, _ = chain.table
        try:
            listed = self._ruleset.rules(_NUMBERS[family], table, chain.name)
        except SteeringError:
            return chain
        rules = (rule.expressions() for rule in listed)
        steps = (read(rule) for rule in rules for read in (read_marking, read_step))
        place = _NUMBERS[family], table
        found = (one for step in steps if step for one in self._written_out(step, *place))
        return replace(chain, steps=tuple(found), is_read=True)

    def _written_out(self, step: Step, family: int, table: str) -> Iterator[Step]:
        """Yield a rule with the elements of the sets that it looks up."""
        if (one := set_of(step)) is None:
            yield step
            return
        try:
            found = self._set(family, table, one.name)
            elements = self._elements_of(found, family, table) if found else ()
        except SteeringError:
            # The table was removed meanwhile.
            found, elements = None, ()
        for written in write_out(step, found, elements):
            yield from self._written_out(written, family, table)

    def _set(self, family: int, table: str, name: str) -> ListedSet | None:
        """Return a set whose elements may be read."""
        place = family, table
        if place not in self._sets:
            self._sets[place] = {one.name: one for one in self._ruleset.sets(*place)}
        found = self._sets[place].get(name)
        return found if found and is_constant(found) else None

    def _elements_of(self, one: ListedSet, family: int, table: str) -> Sequence[ListedElement]:
        """Return a set's elements, or more than :data:`ELEMENTS_MAX`."""
        place = family, table, one.name
        if place not in self._elements:
            self._elements[place] = (
                self._ruleset.constants(*place)
                if is_of_rule(one)
                else self._ruleset.first_elements(*place, ELEMENTS_MAX)
            )
        return self._elements[place]

    def reached(self, chains: Mapping[str, Chain], base: Chain) -> dict[str, Chain]:
        """Return a chain and those that it leads to, with their rules, by name.

        At most :data:`CHAINS_MAX`, those that fewest jumps lead to.

        Args:
            chains: Those of its table, by name.
        """
        found: dict[str, Chain] = {}
        waiting = deque([base.name])
        while waiting and len(found) < CHAINS_MAX:
            name = waiting.popleft()
            if name in chains and name not in found:
                found[name] = self.with_steps(chains[name])
                waiting += [step.target for step in found[name].steps]
        return found

    def generation(self) -> int:
        """Return the ruleset's number, which grows with each change by any program.

        Raises:
            SteeringError: The kernel refuses.
        """
        return self._ruleset.generation()

    def close(self) -> None:
        """Close the socket."""
        self._ruleset.close()


def read_chains(hooks: Sequence[str] = ("input",)) -> Tables:
    """Return all chains; with rules those of type filter that are passed at some hooks."""
    reader = NftReader()
    try:
        tables = reader.chains()
        for hook in hooks:
            for base in list(base_chains(tables, kind="filter", hook=hook)):
                chains = tables[base.table]
                chains |= reader.reached(chains, base)
        return tables
    finally:
        reader.close()


def read_generation() -> int:
    """Return a number that grows with each change of nftables; 0 if it can't be read."""
    try:
        with Ruleset() as ruleset:
            return ruleset.generation()
    except SteeringError:
        return 0
