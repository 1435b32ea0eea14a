"""One table of this proxy: read, written, and watched for changes by other programs."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from .errors import NftablesError
from .reader import ANONYMOUS_SET, Expression, ListedChain, ListedRule, ListedSet
from .ruleset import Ruleset
from .watch import TableWatch
from .writer import INET, TABLE_OWNED, Elements, TableWriter

Definition = ListedChain | ListedRule | ListedSet
Steps = Sequence[Sequence[bytes]]
"""The messages of changes, each of which leaves the table in order."""


@dataclass(frozen=True, slots=True)
class Listing:
    """A table as the kernel has it."""

    is_owned: bool
    """By the socket of a process, perhaps another one."""
    definitions: tuple[Definition, ...]
    """All but the elements, as the kernel lists them."""
    elements: Mapping[str, Elements] = field(default_factory=dict)
    """Of each set and map; none where they weren't asked for."""

    def rules(self, chain: str) -> list[list[Expression]]:
        """Return the rules of a chain as expressions."""
        return [
            one.expressions()
            for one in self.definitions
            if isinstance(one, ListedRule) and one.chain == chain
        ]


class OurTable:
    """One table in this thread's network namespace.

    Args:
        name: Its name.
        family: Its family.

    Raises:
        SteeringError: A privilege or a kernel part is missing.
    """

    def __init__(self, name: str, family: int = INET) -> None:
        self.name = name
        self.family = family
        with contextlib.ExitStack() as opened:
            self._ruleset = opened.enter_context(Ruleset())
            self._watch = TableWatch(self._ruleset, name, family)
            opened.pop_all()

    def is_touched(self) -> bool:
        """Return whether another program has changed it since :meth:`read`."""
        return self._watch.is_touched()

    def read(self) -> Listing | None:
        """Return what is in force, or None without a table; what others did is known then."""
        self._watch.settle()
        return self.look()

    def look(self, *, with_elements: bool = True) -> Listing | None:
        """Return what is in force, or None without a table; for the watch nothing changes."""
        family, name = self.family, self.name
        found = [one for one in self._ruleset.tables(family) if one.name == name]
        if not found:
            return None
        # A set without a name belongs to a rule, and its elements never change.
        sets = [s for s in self._ruleset.sets(family, name) if not s.flags & ANONYMOUS_SET]
        return Listing(
            is_owned=bool(found[0].flags & TABLE_OWNED),
            definitions=(
                *sets,
                *(chain for chain in self._ruleset.chains(family) if chain.table == name),
                *self._ruleset.rules(family, name),
            ),
            elements={
                one.name: self._ruleset.elements(family, name, one.name)
                for one in sets
                if with_elements
            },
        )

    def read_definitions(self) -> tuple[Definition, ...] | None:
        """Return all but the elements, or None if they may be another program's by now."""
        listing = self.look(with_elements=False)
        return None if listing is None or self.is_touched() else listing.definitions

    def writer(self) -> TableWriter:
        """Return what collects changes of this table."""
        return TableWriter(self.name, self.family)

    def write(self, steps: Steps) -> None:
        """Make changes as one transaction; none of them is nothing to do.

        In a user namespace of its own a process can't have a socket that takes more than some
        5,000 Services at once. There each step is a transaction, in their order.

        Raises:
            NftablesError: The kernel refused.
        """
        try:
            self._commit([message for step in steps for message in step])
        except NftablesError as exc:
            if exc.code != errno.EMSGSIZE:
                raise
            for step in steps:
                self._commit(step)

    def remove(self) -> None:
        """Remove it, if it is there."""
        table = self.writer()
        table.remove()
        self.write([table.messages])

    def close(self) -> None:
        """Close the sockets; what is in force stays in force, unless it is owned."""
        self._watch.close()
        self._ruleset.close()

    def _commit(self, messages: Sequence[bytes]) -> None:
        if messages:
            with self._watch.own_change():
                self._ruleset.commit(messages)
