"""The nftables chains of all programs.

Sets and elements of other programs are never read: their user data may be of any kind.
"""

from __future__ import annotations

from dataclasses import replace

from ...errors import SteeringError
from ...kernel.nf_tables import Ruleset
from ...kernel.nf_tables.reader import FAMILIES
from .chains import Chain, Tables, base_chains
from .rules import read_step

# How many chains' rules are read; a firewall has tens.
_CHAINS_MAX = 200
_NUMBERS = {name: number for number, name in FAMILIES.items()}


class NftReader:
    """Reads chains in this thread's network namespace; for use in one thread.

    Raises:
        SteeringError: The kernel has no nftables, or permission is denied.
    """

    def __init__(self) -> None:
        self._ruleset = Ruleset()

    def chains(self) -> Tables:
        """Return all chains without their rules."""
        tables: Tables = {}
        for found in self._ruleset.chains():
            table = f"{FAMILIES.get(found.family, found.family)} {found.table}"
            chain = Chain(table, found.name, found.kind, found.hook, found.priority, found.policy)
            tables.setdefault(table, {})[found.name] = chain
        return tables

    def with_steps(self, chain: Chain) -> Chain:
        """Return a chain with its rules; without any if it was removed meanwhile."""
        family, _, table = chain.table.partition(" ")
        try:
            listed = self._ruleset.rules(_NUMBERS[family], table, chain.name)
        except SteeringError:
            return chain
        steps = (read_step(rule.expressions()) for rule in listed)
        return replace(chain, steps=tuple(step for step in steps if step is not None))

    def generation(self) -> int:
        """Return the ruleset's number, which grows with each change by any program.

        Raises:
            SteeringError: The kernel refuses.
        """
        return self._ruleset.generation()

    def close(self) -> None:
        """Close the socket."""
        self._ruleset.close()


def read_input_chains() -> Tables:
    """Return all chains; with rules those that packets to this node pass."""
    reader = NftReader()
    try:
        tables = reader.chains()
        wanted = list(base_chains(tables, kind="filter", hook="input"))
        known = {str(chain) for chain in wanted}
        room = _CHAINS_MAX
        while wanted and room:
            room -= 1
            chain = reader.with_steps(wanted.pop())
            chains = tables[chain.table]
            chains[chain.name] = chain
            for step in chain.steps:
                target = chains.get(step.verdict.partition(" ")[2])
                if target is not None and str(target) not in known:
                    known.add(str(target))
                    wanted.append(target)
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
