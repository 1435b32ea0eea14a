"""Maintains the nftables table of the kernel path, which is created once a frontend needs it.

Rule 1: packets traverse this table first; the table of proxy ports steers untranslated connections.
Rule 2: a refused transaction changes nothing.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

from ...errors import SteeringError
from ...kernel.nf_tables.kept_table import KeptTable, Repair
from ...kernel.nf_tables.nft_table import NftTable, Steps
from ...kernel.nf_tables.writer import Interval, SetElement
from ...model import Frontend, SocketAddress
from ..base import KernelTarget
from ..names import KERNEL_PATH_TABLES
from ..pod_links import PodLinks
from .choosers import (
    NAMES,
    Chooser,
    ChooserChain,
    chains_of,
    write_chooser,
    write_without_chooser,
)
from .kernel_rules import (
    SETS,
    Difference,
    KernelRules,
    link_elements,
    read_endpoints,
    read_endpoints_of,
    read_frontends,
    write_table,
)

KernelTargets = Mapping[Frontend, KernelTarget | None]
"""The targets of some frontends; None for a frontend that isn't on the kernel path."""


def _names_of_chains(choosers: Mapping[Chooser, ChooserChain]) -> list[str]:
    return [name for one in choosers.items() for name in chains_of(*one)]


def _without_ranges(
    choosers: Mapping[Chooser, ChooserChain],
) -> tuple[dict[Chooser, ChooserChain], dict[Chooser, ChooserChain]]:
    """Return the choosers of single ports, and the choosers of ranges."""
    ranges = {chooser: chain for chooser, chain in choosers.items() if chooser.span is not None}
    return {c: chain for c, chain in choosers.items() if c not in ranges}, ranges


class KernelPath:
    """One proxy's table for the kernel path, in this thread's network namespace.

    Raises:
        SteeringError: A privilege or a kernel part is missing; also raised by most methods.
    """

    def __init__(self, proxy_name: str) -> None:
        name = KERNEL_PATH_TABLES.of(proxy_name)
        with contextlib.ExitStack() as opened:
            self._table = KeptTable(name, SETS, self._create, self._elements)
            opened.callback(self._table.close)
            self._links = PodLinks()
            opened.pop_all()
        self._rules = KernelRules()
        self._numbers: frozenset[int] = frozenset()
        """The indexes of links behind which there are only containers of this node."""
        self._exists = False
        self._has_counters = True
        self._counts = Counts()
        self._forgotten: dict[Frontend, int] = {}
        """The totals of frontends that the last change removed."""
        self._repaired: dict[Frontend, tuple[SocketAddress, ...]] = {}
        """The result of the next :meth:`take_repaired`."""

    def pair_with(self, ports: NftTable) -> None:
        """Make this table and the table of proxy ports ignore events of each other's changes."""
        self._table.pair_with(ports)

    def load(
        self,
        targets: KernelTargets,
        found: Callable[[Mapping[Frontend, tuple[SocketAddress, ...]]], None] = lambda _left: None,
    ) -> None:
        """Write the desired state for the first time; without frontends, remove an old table.

        Args:
            found: Called with the endpoints that an earlier run left, before the table is written.

        Raises:
            SteeringError: The kernel refused the table, or it belongs to another program.
        """
        # Read first: this raises if the table belongs to another program.
        listing = self._table.read()
        found(read_endpoints(listing.elements) if listing else {})
        self._rules, self._counts = KernelRules(), Counts()
        self._rules.accept(self._rules.difference(targets))
        self._exists = False
        if self._rules.targets:
            self._write_all()
            self._exists = True
        else:
            self._table.remove()

    def change(self, affected: KernelTargets, gone: Collection[Frontend] = ()) -> None:
        """Write a difference; if this raises a SteeringError, the table is unchanged.

        Args:
            gone: Frontends that are no longer steered.
        """
        self._forgotten = {}
        change = self._rules.difference(affected, gone)
        if change.targets or change.uncounted:
            self._write(change)
        self._forgotten = self._counts.forget(gone)

    def undo(self, before: KernelTargets, gone: Collection[Frontend] = ()) -> None:
        """Undo a change; if the kernel refuses, the next repair undoes it.

        Args:
            gone: Frontends that weren't steered before the change; their counts are dropped.
        """
        self._counts.restore(self._forgotten)
        try:
            self._write(self._rules.difference(before, gone))
        except SteeringError:
            # Compute the difference again: the attempt may have been recorded and reverted.
            self._rules.accept(self._rules.difference(before, gone))
            self._table.forget()
        # Forget the counts last: writing the table has read counters that it may have reset.
        self._counts.forget(gone)

    def _write(self, change: Difference) -> None:
        if self._exists:
            self._put_right()
            ended, unused = _without_ranges(change.gone_choosers)
            new, gone = _names_of_chains(change.new_choosers), _names_of_chains(ended)
            if new or gone:
                self._table.change_chains(self._steps(change, ended), gone=gone, new=new)
            else:
                self._table.write(self._steps(change, ended))
            self._rules.accept(change)
            self._remove_unused(unused)
            return
        before = dict(self._rules.targets)
        self._rules.accept(change)
        try:
            self._write_all()
        except SteeringError:
            undone: KernelTargets = {f: before.get(f) for f in change.targets}
            self._rules.accept(self._rules.difference(undone))
            # The kernel's answer may have been lost, so look whether the table exists.
            with contextlib.suppress(SteeringError):
                self._exists = self._table.look(elements_of=()) is not None
            raise
        self._exists = True

    def _remove_unused(self, choosers: Mapping[Chooser, ChooserChain]) -> None:
        """Remove the chains of ranges that no element references.

        This requires its own transaction: during the commit, packets still match the old elements
        of intervals, and would pass the empty chains to the proxy port. Source: nf_tables_commit()
        in net/netfilter/nf_tables_api.c, where nft_set_commit_update() is last.
        """
        steps = [write_without_chooser(self._table.name, *one) for one in choosers.items()]
        if steps:
            # If this is refused, the choosers stay until the table is rewritten, which is harmless.
            with contextlib.suppress(SteeringError):
                self._table.change_chains(steps, gone=_names_of_chains(choosers), new=())

    def repair(self) -> int:
        """Repair changes by other programs; return the number of differences."""
        if not self._exists:
            return 0
        count = self._put_right()
        self._follow_links()
        return count

    def take_repaired(self) -> dict[Frontend, tuple[SocketAddress, ...]]:
        """Return the frontends that were repaired since the last call.

        Each frontend has the endpoints to which it wrongly pointed, because another program or a
        refused change had added them. The frontends' connections may have any destination.
        """
        repaired, self._repaired = self._repaired, {}
        return repaired

    def _put_right(self) -> int:
        """Repair differences from the last write; return their number.

        Affinity entries stay unless rules differ: a concurrent transaction of another program isn't
        a reason to rewrite the whole table.
        """
        if self._table.is_known():
            return 0
        self._keep_counts()
        try:
            repair = self._table.put_right()
        except SteeringError:
            # If the table was rewritten, read its counters before they exceed their old values,
            # because the reset would go unnoticed after that.
            self._keep_counts()
            raise
        self._note_repair(repair)
        return repair.count

    def in_force(self) -> dict[Frontend, tuple[SocketAddress, ...]]:
        """Return the endpoints of frontends on the kernel path, read from the kernel."""
        listing = self._table.look()
        return read_endpoints(listing.elements) if listing else {}

    def connections(self) -> dict[Frontend, int] | None:
        """Return the number of connections to endpoints, by frontend; None if not counted.

        The numbers never decrease. A frontend is included from its first time on the kernel path,
        as long as it is steered.

        Raises:
            SteeringError: The kernel failed to list the counters.
        """
        if self._exists:
            self._read_counts()
        return dict(self._counts.totals) if self._has_counters else None

    def remove(self) -> None:
        """Remove the table; idempotent."""
        self._table.remove()
        self._rules, self._exists, self._counts = KernelRules(), False, Counts()

    def close(self) -> None:
        """Close all sockets; the table stays in the kernel."""
        self._table.close()
        self._links.close()

    def _create(self, has_counters: bool) -> Steps:
        name = self._table.name
        return [
            write_table(name, has_counters=has_counters and self._has_counters),
            *(write_chooser(name, *one) for one in self._rules.choosers.items()),
        ]

    def _elements(self) -> Iterator[SetElement]:
        return itertools.chain(self._rules.elements(), link_elements(self._numbers))

    def _steps(self, change: Difference, gone: Mapping[Chooser, ChooserChain]) -> Steps:
        name = self._table.name
        return [
            *(write_chooser(name, *one) for one in change.new_choosers.items()),
            *self._table.steps(change.removed, change.added),
            *(write_without_chooser(name, *one) for one in gone.items()),
        ]

    def _read_counts(self) -> None:
        self._has_counters = self._has_counters and self._table.is_complete
        if not self._has_counters:
            return
        counted = self._rules.counted
        # Elements of intervals are listed with their first key, so find their frontends by it.
        ranges = {
            (name, key.first): frontend
            for (name, key), frontend in counted.items()
            if isinstance(key, Interval)
        }
        for name in (n for names in NAMES.values() for n in (names.counted, names.counted_ranges)):
            found = self._table.counts(name)
            self._has_counters = self._has_counters and None not in found.values()
            for key, packets in found.items():
                # Another program may have added the element, so it may have no frontend.
                frontend = counted.get((name, key)) or ranges.get((name, key))
                if packets is not None and frontend is not None:
                    self._counts.note(frontend, packets)

    def _keep_counts(self) -> None:
        """Read the counters before they may be reset."""
        with contextlib.suppress(SteeringError):
            self._read_counts()

    def _note_repair(self, repair: Repair) -> None:
        # Counters that an earlier call wrote may have been read since then; they don't restart, so
        # omit them.
        keys = {(name, key) for name, key, _ in repair.added - repair.earlier}
        counted = self._rules.counted
        self._counts.begin_anew(counted[key] for key in keys & counted.keys())
        wrong = read_endpoints_of(repair.removed)
        for frontend in read_frontends(repair.added | repair.removed):
            known = self._repaired.get(frontend, ())
            self._repaired[frontend] = (*known, *wrong.get(frontend, ()))

    def _write_all(self) -> None:
        """Write the whole table, replacing any old table."""
        self._numbers = self._links.numbers()
        self._table.write_all()
        self._counts.begin_anew(self._rules.counted.values())

    def _follow_links(self) -> None:
        before, numbers = self._numbers, self._links.numbers()
        if numbers == before:
            return
        have, want = link_elements(before), link_elements(numbers)
        self._numbers = numbers
        try:
            repair = self._table.change(have - want, want - have, self._keep_counts)
        except SteeringError:
            # The next repair changes the elements. This change may have rewritten the table, so
            # read its counters before they grow to their old values.
            self._numbers = before
            self._keep_counts()
            raise
        self._note_repair(repair)


class Counts:
    """The numbers of connections to frontends, added up from readings of a table's counters.

    Totals never decrease: a counter that is lower than before was reset to 0.
    """

    def __init__(self) -> None:
        self.totals: dict[Frontend, int] = {}
        self._read: dict[Frontend, int] = {}
        """The values of the counters at the last reading."""

    def note(self, frontend: Frontend, count: int) -> None:
        """Record a reading of a frontend's counter."""
        before = self._read.get(frontend, 0)
        grown = count - before if count >= before else count
        self.totals[frontend] = self.totals.get(frontend, 0) + grown
        self._read[frontend] = count

    def begin_anew(self, frontends: Iterable[Frontend]) -> None:
        """Record that counters were reset to 0."""
        for frontend in frontends:
            self._read.pop(frontend, None)

    def forget(self, frontends: Iterable[Frontend]) -> dict[Frontend, int]:
        """Forget frontends whose counters were removed; return their totals."""
        forgotten = {f: self.totals.pop(f) for f in frontends if f in self.totals}
        self.begin_anew(forgotten)
        return forgotten

    def restore(self, totals: Mapping[Frontend, int]) -> None:
        """Continue from totals that :meth:`forget` returned; the counters must start at 0."""
        self.totals |= totals
