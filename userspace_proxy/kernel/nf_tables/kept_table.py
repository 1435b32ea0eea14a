"""Keeps one table of this proxy equal to its desired contents.

    difference ─▶ one transaction ─▶ applied
    refused, or changed by others ─▶ table read in full ─▶ what differs, or the whole table

The caller supplies the contents: messages that create the table with its sets, chains and rules,
and the sets' elements.

Rule 1: unless another program has changed the table, it contains the last written state.
Rule 2: rules are compared with the kernel's listing that was read after the write, elements with
the desired elements.
"""

from __future__ import annotations

import contextlib
import errno
import socket
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence, Set
from dataclasses import dataclass
from functools import partial

from ...errors import SteeringConflict, SteeringError
from .nft_table import Definition, Listing, NftTable, Steps
from .ruleset import NftablesError
from .writer import INET, SetElement

# Errors of a kernel that lacks a feature. Other errors (out of memory, a late answer, a temporary
# refusal) don't show which features it supports.
_LACKS = frozenset({errno.ENOENT, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS})
# The number of attempts to read back a written table: the kernel may briefly lack memory.
_LISTINGS = 2


@dataclass(frozen=True, slots=True)
class Repair:
    """The differences that a repair removed."""

    count: int = 0
    """The number of elements and definitions that differed."""
    removed: Set[SetElement] = frozenset()
    added: Set[SetElement] = frozenset()
    """The elements that were added, now or by an earlier call whose answer was lost; all elements
    if the table was rewritten."""
    earlier: Set[SetElement] = frozenset()
    """The elements of ``added`` that only a call whose answer was lost may have written."""


class KeptTable(NftTable):
    """A table that is kept equal to its contents, in this thread's network namespace.

    Args:
        sets: The sets whose elements are kept, in the order in which elements are removed.
        create: Returns the steps that create the table without elements; the argument is whether to
            include features that some kernels lack.
        elements: Returns the desired elements, each once.
        sock: A copy of another process's socket that owns the table; closed with the object.
        is_owned: Whether this process may own the table; if not, an owned table belongs to another
            program.

    Raises:
        SteeringError: A privilege or a kernel part is missing.
    """

    def __init__(
        self,
        name: str,
        sets: Sequence[str],
        create: Callable[[bool], Steps],
        elements: Callable[[], Iterable[SetElement]],
        *,
        family: int = INET,
        sock: socket.socket | None = None,
        is_owned: bool = False,
    ) -> None:
        super().__init__(name, family, sock)
        self._sets = sets
        self._create = create
        self._elements = elements
        self._may_be_owned = is_owned
        self.is_complete = True
        """Whether the kernel supports all features that were tried."""
        self._written: tuple[Definition, ...] | None = None
        """Everything but the elements, as the kernel lists it; None if it is unknown."""
        self._is_unread = False
        """Whether the table wasn't read back after a write: differing definitions don't count."""
        self._is_right = False
        """Whether the last comparison or complete write succeeded."""
        self._may_be_added: set[SetElement] = set()
        """Missing elements that may have been written: the kernel's answer was lost."""
        self._may_be_removed: set[SetElement] = set()
        """Elements that may have been removed: the kernel's answer was lost."""

    def is_known(self) -> bool:
        """Return whether the table certainly contains the last written state."""
        return self._is_right and self._written is not None and not self.is_affected()

    def read(self, elements_of: Collection[str] | None = None) -> Listing | None:
        """List the kernel's table, as :meth:`.NftTable.read` does.

        Raises:
            SteeringConflict: Another program owns it.
        """
        listing = super().read(elements_of)
        if listing is not None and listing.is_owned and not self._may_be_owned:
            raise SteeringConflict(
                f"cannot use the nftables table inet {self.name}: another program owns it",
                hint="stop that program, or run with --steering=iptables",
            )
        return listing

    def is_as_written(self, listing: Listing) -> bool:
        return self._written in (None, listing.definitions)

    def change(
        self,
        removed: Iterable[SetElement],
        added: Iterable[SetElement],
        before_repair: Callable[[], None] = lambda: None,
    ) -> Repair:
        """Write a difference of elements; repair the table if that fails, or it may have changed.

        Args:
            before_repair: Called before a repair, which may write the whole table.

        Returns: The repaired differences; empty if only the given difference was written.

        Raises:
            SteeringError: The kernel refused, so nothing has changed; or the outcome is unknown.
        """
        if self.is_known() and self._accepts(removed, added):
            return Repair()
        before_repair()
        return self.put_right()

    def redefine(self, steps: Steps) -> None:
        """Change rules and chains; the caller's contents must already include the change.

        Raises:
            SteeringError: The kernel refused, so nothing has changed; or the outcome is unknown.
        """
        self.write(steps)
        self._note_written(self.read_definitions)

    def change_chains(self, steps: Steps, *, gone: Collection[str], new: Collection[str]) -> None:
        """Add and delete regular chains; the caller's contents must already include the change.

        The cost depends only on the number of these chains' rules.

        Args:
            gone: Names of the chains that the steps delete.
            new: Names of the chains that the steps add, in that order.

        Raises:
            SteeringError: The kernel refused, so nothing has changed; or the outcome is unknown.
        """
        before = self._written or ()
        self.write(steps)
        changed = partial(self.read_changed, before, frozenset(gone), new)
        self._note_written(changed if before else self.read_definitions)

    def repair(self) -> Repair:
        """Repair the table as :meth:`put_right` does, unless it is unchanged (10 µs to check)."""
        return Repair() if self.is_known() else self.put_right()

    def put_right(self) -> Repair:
        """Return the table's differences from its contents; write these, or the whole table.

        Raises:
            SteeringError: The kernel refused to list or change it, or the outcome is unknown.
        """
        self._is_right = False
        removed, added, definitions = self._compare()
        count = len({(name, key) for name, key, _ in removed | added})
        has_definitions = definitions is not None and definitions == self._written
        if not has_definitions and not self._is_unread:
            have, want = Counter(definitions or ()), Counter(self._written or ())
            count += max(((have - want) + (want - have)).total(), 1)
        try:
            if not has_definitions or not self._accepts(removed, added):
                added = set(self._elements())
                self._write_all(added)
        except NftablesError as exc:
            if not exc.is_certain:
                self._note_unconfirmed(removed, added)
            raise
        self._is_right = True
        # Include elements that an earlier call, whose answer was lost, may have written.
        earlier = self._may_be_added - added
        repair = Repair(count, removed | self._may_be_removed, added | earlier, earlier)
        self._may_be_removed, self._may_be_added = set(), set()
        return repair

    def _compare(
        self,
    ) -> tuple[set[SetElement], set[SetElement], tuple[Definition, ...] | None]:
        """Return elements to remove, elements to add, and the definitions (None without a table).

        Memory: there may be 200,000 elements, so only one copy of them is made.
        """
        listing = self.read()
        removed = listing.elements_of(self._sets) if listing else set()
        definitions = listing.definitions if listing else None
        del listing
        added: set[SetElement] = set()
        for element in self._elements():
            if element in removed:
                removed.remove(element)
            else:
                added.add(element)
        return removed, added, definitions

    def write_all(self) -> None:
        """Rewrite the whole table.

        Raises:
            SteeringError: The kernel refused, so nothing has changed; or the outcome is unknown.
        """
        self._is_right = False
        self.settle()
        self._write_all(self._elements())
        self._is_right = True

    def forget(self) -> None:
        """Make the next repair rewrite the whole table."""
        self._written, self._is_unread = None, False

    def remove(self) -> None:
        """Remove the table, if it exists; idempotent."""
        if self.look(elements_of=()) is not None:
            super().remove()
        self.forget()

    def steps(self, removed: Iterable[SetElement], added: Iterable[SetElement]) -> Steps:
        """Return the messages that change elements; after each message, the table is consistent."""
        writer = self.writer()
        writer.change_elements(self._sets, removed, added)
        return [[message] for message in writer.messages]

    def _accepts(self, removed: Iterable[SetElement], added: Iterable[SetElement]) -> bool:
        """Write a difference of elements; return whether the kernel has certainly applied it."""
        try:
            self.write(self.steps(removed, added))
        except NftablesError as exc:
            if not exc.is_certain:
                self._note_unconfirmed(removed, added)
            return False
        return True

    def _note_unconfirmed(self, removed: Iterable[SetElement], added: Iterable[SetElement]) -> None:
        """Record the changes that a transaction whose answer was lost may have made."""
        self._may_be_removed.update(removed)
        self._may_be_added.update(added)

    def _write_all(self, elements: Iterable[SetElement]) -> None:
        steps = self.steps((), elements)
        try:
            self.write([*self._create(self.is_complete), *steps])
        except NftablesError as exc:
            if not self.is_complete or exc.code not in _LACKS:
                raise
            self.write([*self._create(False), *steps])
            self.is_complete = False
        self._note_written(self.read_definitions)

    def _note_written(self, read: Callable[[], tuple[Definition, ...] | None]) -> None:
        """Read back the result of a transaction.

        The transaction has been applied, so a failure to list the table isn't an error: the next
        comparison rewrites the table.
        """
        self._written, self._is_unread = None, True
        # Retry, because rewriting the whole table would end the session affinity of all clients.
        for _ in range(_LISTINGS):
            with contextlib.suppress(SteeringError):
                self._written = read()
                self._is_unread = self._written is None and self.has_lost_events
                return
