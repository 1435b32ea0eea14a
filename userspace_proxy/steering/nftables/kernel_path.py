"""Keeps the kernel path's table as desired: it exists once a frontend needs it.

    difference ─▶ one transaction          changed by others ─▶ written anew

Rule 1: it is a layer above the table of proxy ports: what isn't in it goes to a proxy port.
Rule 2: a transaction that the kernel refuses changes nothing.
"""

from __future__ import annotations

import contextlib
import errno
from collections import Counter
from collections.abc import Iterable, Mapping

from ...errors import SteeringConflict, SteeringError
from ...kernel.nf_tables import NftablesError, Ruleset
from ...kernel.nf_tables.table import Definition, Listing, NftTable
from ...kernel.pod_links import PodLinks
from ...model import Balance, Frontend, IPFamily, SocketAddress
from ..base import Affinity, Forward
from ..names import KERNEL_PATH_TABLES
from .choosers import DRAWN, NAMES, Chooser, ChooserChain, write_chooser, write_without_chooser
from .counts import Counts
from .elements import SetElement, elements_of, write_steps
from .forwarding import (
    LINKS,
    SAME_LINK,
    SETS,
    Difference,
    Forwarding,
    link_elements,
    read_forwards,
    write_elements,
    write_table,
)

_LINK_SETS = (LINKS, SAME_LINK)
_ALL_SETS = (*SETS, DRAWN, *_LINK_SETS)
# These say nothing about what the kernel can do.
_SHORTAGES = frozenset(
    {errno.ENOMEM, errno.ENOBUFS, errno.ENFILE, errno.EBUSY, errno.EAGAIN, errno.EINTR}
)
# Whether the kernel has all kinds of expressions, and of those that some Services need.
_PROBES = (
    Chooser(IPFamily.IPV4, ((None, 1),)),
    Chooser(IPFamily.IPV6, ((None, 1),), Affinity("", 1), (SocketAddress("::1", 1),)),
)
_HASH_PROBES = (Chooser(IPFamily.IPV4, ((None, 1),), by_client=True),)

Forwards = Mapping[Frontend, Forward | None]
"""The targets of some frontends; None: not on the kernel path."""


def find_missing(proxy_name: str) -> dict[IPFamily | Balance, str]:
    """Return why this kernel can't have such a table, or some of its rules; empty if it can."""
    name = KERNEL_PATH_TABLES.of(proxy_name)
    with Ruleset() as ruleset:
        if why := _refusal(ruleset, _table_with(name, _PROBES)):
            return dict.fromkeys(IPFamily, f"{why} (modprobe nft_numgen nft_nat nft_masq)")
        if why := _refusal(ruleset, _table_with(name, _HASH_PROBES)):
            return {Balance.SOURCE_HASH: f"{why} (modprobe nft_hash)"}
    return {}


def _refusal(ruleset: Ruleset, messages: list[bytes]) -> str:
    """Return why the kernel refuses a transaction; empty if it doesn't."""
    try:
        ruleset.try_out(messages)
    except NftablesError as exc:
        return exc.message
    return ""


def _table_with(name: str, probes: Iterable[Chooser]) -> list[bytes]:
    """Return the messages of a table with some ways of choosing."""
    # A kernel without counters has the kernel path, too.
    messages = write_table(name, has_counters=False)
    for number, probe in enumerate(probes, 1):
        chain = ChooserChain(number, 0, dict.fromkeys(probe.endpoints, number))
        messages += write_chooser(name, probe, chain)
    return messages


class KernelPath:
    """The table of one proxy in this thread's network namespace.

    Raises:
        SteeringError: A privilege or a kernel part is missing.
    """

    def __init__(self, proxy_name: str) -> None:
        self._table = NftTable(KERNEL_PATH_TABLES.of(proxy_name))
        self._links = PodLinks()
        self._forwarding = Forwarding()
        self._written: tuple[Definition, ...] | None = None
        """Everything but the elements, as the kernel lists it; None where it is unknown."""
        self._links_written: frozenset[int] = frozenset()
        self._exists = False
        self._has_counters = True
        self._counts = Counts()

    def load(self, forwards: Forwards) -> None:
        """Write the desired state for the first time."""
        listing = self._table.read()
        if listing is not None and listing.is_owned:
            raise SteeringConflict(
                f"cannot use the nftables table inet {self._table.name}: another program owns it",
                hint="stop that program, or run with --steering=iptables",
            )
        self._forwarding, self._counts = Forwarding(), Counts()
        self._forwarding.accept(self._forwarding.difference(forwards))
        self._exists = bool(self._forwarding.forwards)
        if self._exists:
            self._write_all()
        elif listing is not None:
            self._table.remove()

    def change(self, touched: Forwards, gone: Iterable[Frontend] = ()) -> None:
        """Write a difference; nothing has changed if it raises an error.

        Args:
            gone: The frontends that aren't steered any more.
        """
        change = self._forwarding.difference(touched, gone)
        if not change.forwards and not change.uncounted:
            return
        self._write(change)
        self._counts.forget(change.uncounted)

    def _write(self, change: Difference) -> None:
        if not self._exists or self._written is None or self._table.is_touched():
            before = dict(self._forwarding.forwards)
            self._forwarding.accept(change)
            try:
                self._write_anew()
            except NftablesError:
                undone: Forwards = {f: before.get(f) for f in change.forwards}
                self._forwarding.accept(self._forwarding.difference(undone))
                raise
            self._exists = True
            return
        self._table.write(self._steps(change))
        self._forwarding.accept(change)
        if change.new_choosers or change.gone_choosers:
            self._written = self._table.read_definitions()

    def repair(self) -> int:
        """Write the table anew if another program has changed it; return how much differed."""
        if not self._exists:
            return 0
        count = 0
        if self._table.is_touched() or self._written is None:
            count = self._differences(self._table.read())
            if count:
                self._write_anew()
        self._follow_links()
        return count

    def in_force(self) -> dict[Frontend, tuple[SocketAddress, ...]]:
        """Return the endpoints of frontends on the kernel path, read from the kernel."""
        listing = self._table.look()
        return read_forwards(listing.elements) if listing else {}

    def connections(self) -> dict[Frontend, int] | None:
        """Return how many connections went to endpoints, by frontend; None: they aren't counted.

        The numbers never shrink. Frontends are included while they are steered and once they have
        been on the kernel path.

        Raises:
            SteeringError: The kernel doesn't list them.
        """
        if self._exists and self._has_counters:
            self._read_counts()
        return dict(self._counts.totals) if self._has_counters else None

    def remove(self) -> None:
        """Remove the table; idempotent."""
        if self._table.read() is not None:
            self._table.remove()
        self._forwarding, self._exists, self._written = Forwarding(), False, None
        self._counts = Counts()

    def close(self) -> None:
        """Close all sockets; what is in force stays in force."""
        self._table.close()
        self._links.close()

    def _steps(self, change: Difference) -> list[list[bytes]]:
        name = self._table.name
        return [
            *(write_chooser(name, *one) for one in change.new_choosers.items()),
            *write_elements(name, change.removed, change.added),
            *(write_without_chooser(name, *one) for one in change.gone_choosers.items()),
        ]

    def _read_counts(self) -> None:
        counted = self._forwarding.counted
        for names in NAMES.values():
            found = self._table.counts(names.counted)
            self._has_counters = self._has_counters and None not in found.values()
            for key, packets in found.items():
                # Another program may have added an element.
                if packets is not None and (frontend := counted.get((names.counted, key))):
                    self._counts.note(frontend, packets)

    def _write_anew(self) -> None:
        """Replace the table, or what another program has left of it."""
        if self._exists and self._has_counters:
            with contextlib.suppress(SteeringError):
                self._read_counts()
        self._write_all()

    def _write_all(self) -> None:
        # Until the kernel has accepted it: a repair must try again.
        self._written = None
        self._table.settle()
        name, forwarding, links = self._table.name, self._forwarding, self._links.numbers()
        steps = [
            [m for one in forwarding.choosers.items() for m in write_chooser(name, *one)],
            *write_steps(name, _LINK_SETS, (), link_elements(links)),
            *write_elements(name, (), forwarding.elements()),
        ]
        try:
            self._table.write([write_table(name, has_counters=self._has_counters), *steps])
        except NftablesError as exc:
            if not self._has_counters or exc.code in _SHORTAGES:
                raise
            self._table.write([write_table(name, has_counters=False), *steps])
            self._has_counters = False
        self._counts.begin_anew()
        self._links_written = links
        self._written = self._table.read_definitions()

    def _differences(self, listing: Listing | None) -> int:
        wanted = self._forwarding.elements() | link_elements(self._links_written)
        if listing is None:
            return len(wanted) + 1
        have = elements_of(listing, _ALL_SETS)
        count = len({(name, key) for name, key, _ in have ^ wanted})
        if self._written is None:
            return count + 1
        rules, known = Counter(listing.definitions), Counter(self._written)
        return count + ((rules - known) + (known - rules)).total()

    def _follow_links(self) -> None:
        links = self._links.numbers()
        if links == self._links_written:
            return
        have: set[SetElement] = link_elements(self._links_written)
        want = link_elements(links)
        self._table.write(write_steps(self._table.name, _LINK_SETS, have - want, want - have))
        self._links_written = links
