"""Reads and writes one table of this proxy, and watches it for changes by other programs.

    any transaction ──▶ kernel: generation + 1 ──▶ events: what changed, then NEWGEN

Reading the generation takes 10 µs, so it is read every second. Events are read only after it has
changed, and only events of this table count.

Rule 1: a kernel filter drops the events of this program's changes, except for the new generation.
Rule 2: if events may be missing, the table counts as changed.

Source: include/uapi/linux/netfilter/nf_tables.h and nfnetlink.h; nf_tables_commit().
"""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import NamedTuple

from .. import classic_bpf as bpf
from ..netlink import Events
from ..netlink.messages import Message, number_in, read_all, text_in
from ..netlink.sockets import NETLINK_NETFILTER
from .reader import (
    ANONYMOUS_SET,
    NEW_GENERATION,
    Expression,
    ListedChain,
    ListedRule,
    ListedSet,
)
from .ruleset import NftablesError, Ruleset, query_errors
from .writer import DYNAMIC_SET, INET, TABLE, TABLE_OWNED, Elements, SetElement, TableWriter

NFNLGRP_NFTABLES = 7
# The maximum number of reads until a transaction's events have arrived; the kernel sends them a few
# microseconds after the transaction takes effect. A read takes 10 µs.
_READS = 100
# The offsets of fields in an event; a filter loads values as big-endian.
_KIND_AT, _SENDER_AT = 4, 12
_SUBSYSTEM = 0xA
# The size of struct nfgenmsg.
_HEADER_BYTES = 4

# The number of definitions whose listing takes as long as a request for one chain. Measured: a
# chain with two rules takes 58 µs, and a definition in a listing 12 µs.
_READ_FOR_ONE = 5

Definition = ListedChain | ListedRule | ListedSet
Steps = Sequence[Sequence[bytes]]
"""The messages of changes, by step; after each step, the table is consistent."""


@dataclass(frozen=True, slots=True)
class Listing:
    """A table as the kernel lists it."""

    is_owned: bool
    """Whether a socket of this process or of another process owns the table."""
    definitions: tuple[Definition, ...]
    """Everything but the elements."""
    elements: Mapping[str, Elements] = field(default_factory=dict)
    """The elements of each set and map; empty unless requested."""

    def elements_of(self, sets: Iterable[str]) -> set[SetElement]:
        return {
            (name, key, value)
            for name in sets
            for key, value in self.elements.get(name, {}).items()
        }

    def rules(self, chain: str) -> list[list[Expression]]:
        return [
            one.expressions()
            for one in self.definitions
            if isinstance(one, ListedRule) and one.chain == chain
        ]


class NftTable:
    """One table in this thread's network namespace; the constructor may raise a SteeringError."""

    def __init__(self, name: str, family: int = INET, sock: socket.socket | None = None) -> None:
        self.name = name
        self.family = family
        with contextlib.ExitStack() as opened:
            self._ruleset = opened.enter_context(Ruleset(sock))
            self._watch = TableWatch(self._ruleset, name, family)
            opened.pop_all()
        self._watches = [self._watch]

    @property
    def sock(self) -> socket.socket:
        """The socket that writes the table, and owns it if the table has an owner."""
        return self._ruleset.sock

    def pair_with(self, other: NftTable) -> None:
        """Make both tables ignore the many events of this program's changes to either table."""
        self._watches.append(other._watch)
        other._watches.append(self._watch)

    def is_affected(self) -> bool:
        """Return whether another program may have changed the table since :meth:`read`."""
        return self._watch.is_affected()

    @property
    def has_lost_events(self) -> bool:
        """Whether events were lost, so that :meth:`is_affected` may be true without a change."""
        return self._watch.has_lost

    def settle(self) -> None:
        """Forget earlier changes by other programs; call this before writing the whole table."""
        self._watch.settle()

    def read(self, elements_of: Collection[str] | None = None) -> Listing | None:
        """List the table as :meth:`look` does; :meth:`is_affected` then covers later changes."""
        self._watch.settle()
        return self.look(elements_of)

    def look(self, elements_of: Collection[str] | None = None) -> Listing | None:
        """List the table, with no effect on :meth:`is_affected`; None if it doesn't exist.

        Args:
            elements_of: The sets and maps whose elements to read; None for all except dynamic sets.
        """
        family, name = self.family, self.name
        found = [one for one in self._ruleset.tables(family) if one.name == name]
        if not found:
            return None
        # An anonymous set belongs to a rule, and its elements never change, so skip it.
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
                # Skip dynamic sets: packets add their elements, not this program.
                if (elements_of is None or one.name in elements_of) and not one.flags & DYNAMIC_SET
            },
        )

    def read_definitions(self) -> tuple[Definition, ...] | None:
        """Return all but the elements; None if the table is gone or may have been changed."""
        listing = self.look(elements_of=())
        return None if listing is None or self.is_affected() else listing.definitions

    def read_changed(
        self, before: Sequence[Definition], gone: Set[str], new: Collection[str]
    ) -> tuple[Definition, ...]:
        """Return the definitions after a change of chains, in the order of a listing.

        Args:
            before: The previous definitions; only new chains are read, because it is assumed that
                no other program changes only a chain that was created a moment ago.
            gone: Regular chains that were deleted since then.
            new: Regular chains that were added since then, in that order.
        """
        family, name = self.family, self.name
        # Cost: a request for one chain takes as long as the listing of several definitions.
        if len(new) * _READ_FOR_ONE > len(before):
            names = frozenset(new)
            new_rules = [rule for rule in self._ruleset.rules(family, name) if rule.chain in names]
        else:
            new_rules = [rule for chain in new for rule in self._ruleset.rules(family, name, chain)]
        return (
            *(one for one in before if isinstance(one, ListedSet)),
            *(one for one in before if isinstance(one, ListedChain) and one.name not in gone),
            *(ListedChain(family, name, chain) for chain in new),
            *(one for one in before if isinstance(one, ListedRule) and one.chain not in gone),
            *new_rules,
        )

    def counts(self, name: str) -> dict[bytes, int | None]:
        """Return the counters of a set's elements, as :meth:`.Ruleset.counts` does."""
        return self._ruleset.counts(self.family, self.name, name)

    def writer(self) -> TableWriter:
        return TableWriter(self.name, self.family)

    def write(self, steps: Steps) -> None:
        """Make changes as one transaction; without steps, do nothing.

        In a user namespace, a socket's buffer can't hold the messages for more than about 5,000
        Services. If the messages don't fit, each step becomes a transaction.

        Raises:
            NftablesError: The kernel refused, so nothing has changed; or the outcome is unknown.
        """
        try:
            self._commit([message for step in steps for message in step])
        except NftablesError as exc:
            if exc.code != errno.EMSGSIZE:
                raise
            try:
                for step in steps:
                    self._commit(step)
            except NftablesError as exc:
                # The steps before the refused step have been applied, so the outcome is uncertain.
                exc.is_certain = False
                self._watch.doubt()
                raise

    def remove(self) -> None:
        """Remove the table; idempotent."""
        table = self.writer()
        table.remove()
        self.write([table.messages])

    def close(self) -> None:
        """Close the sockets, which removes an owned table unless a copy is open; idempotent."""
        self._watch.close()
        self._ruleset.close()

    def _commit(self, messages: Sequence[bytes]) -> None:
        if messages:
            with contextlib.ExitStack() as ignoring:
                for watch in self._watches:
                    ignoring.enter_context(watch.own_change(self._ruleset.port))
                try:
                    self._ruleset.commit(messages)
                except NftablesError as exc:
                    if not exc.is_certain:
                        self._watch.doubt()
                    raise


class RulesetEvent(NamedTuple):
    """A change in one table, or the end of a transaction."""

    family: int
    table: str
    """The name of the changed table; empty for the end of a transaction."""
    generation: int = 0
    """The new generation of the ruleset, at the end of a transaction; otherwise 0."""


def read_event(message: Message) -> RulesetEvent | None:
    """Parse an event; None if the message is too short, or of another kernel subsystem."""
    if message.kind >> 8 != _SUBSYSTEM or len(message.body) < _HEADER_BYTES:
        return None
    found = read_all(message.body, _HEADER_BYTES)
    if message.kind == NEW_GENERATION:
        return RulesetEvent(message.body[0], "", number_in(found, TABLE))
    return RulesetEvent(message.body[0], text_in(found, TABLE))


def _all_but_changes_of(sender: int) -> list[bpf.Instruction]:
    """Return a filter that discards events of changes over a socket, except new generations."""
    return [
        (bpf.LOAD_WORD, 0, 0, _SENDER_AT),
        (bpf.JUMP_IF_EQUAL, 0, 2, socket.htonl(sender)),
        (bpf.LOAD_HALF, 0, 0, _KIND_AT),
        (bpf.JUMP_IF_EQUAL, 0, 1, socket.htons(NEW_GENERATION)),
        (bpf.RETURN, 0, 0, 0xFFFFFFFF),
        (bpf.RETURN, 0, 0, 0),
    ]


class TableWatch:
    """A watch on one table in this thread's namespace; the caller closes the ruleset."""

    def __init__(self, ruleset: Ruleset, table: str, family: int = INET) -> None:
        self._ruleset = ruleset
        self._table = (family, table)
        with contextlib.ExitStack() as opened:
            with query_errors():
                self._events = Events(NETLINK_NETFILTER, [NFNLGRP_NFTABLES])
            opened.callback(self._events.close)
            self._seen = ruleset.generation()
            opened.pop_all()
        self._is_affected = False
        self.has_lost = False
        """Whether events were lost since :meth:`settle`, so that the table counts as changed."""

    def is_affected(self) -> bool:
        """Return whether another program may have changed the table since :meth:`settle`."""
        generation = self._ruleset.generation()
        for _ in range(_READS):
            if self._is_affected or self._seen >= generation:
                return self._is_affected
            self._read()
        # The ruleset keeps changing, and each change may affect this table, so assume that one has.
        return True

    def settle(self) -> None:
        """Forget earlier changes; call this before reading the table, so as to miss no change."""
        generation = self._ruleset.generation()
        self._read()
        self._seen = max(self._seen, generation)
        self._is_affected = self.has_lost = False

    def doubt(self) -> None:
        """Treat the table as changed by another program, because its contents are unknown."""
        self._is_affected = True

    @contextlib.contextmanager
    def own_change(self, sender: int) -> Iterator[None]:
        """Within the ``with`` block, don't count changes by a port ID as another program's."""
        with query_errors():
            self._events.filter(_all_but_changes_of(sender))
        try:
            yield
        finally:
            with query_errors():
                self._events.filter(())

    def close(self) -> None:
        """Close the socket for events; idempotent."""
        self._events.close()

    def _read(self) -> None:
        """Read all events that have arrived.

        A generation counts as seen only once its event has been read, because the kernel increments
        the number before it sends the event.
        """
        with query_errors():
            batch = self._events.read()
        self.has_lost |= batch.has_lost
        self._is_affected |= batch.has_lost
        for event in map(read_event, batch.messages):
            if event is not None:
                self._seen = max(self._seen, event.generation)
                self._is_affected |= (event.family, event.table) == self._table
