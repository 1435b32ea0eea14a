"""Watches whether the connection tracking table is full.

If no entry of a full table can be replaced, the kernel silently drops the first packet of a new
connection, to Services and elsewhere; open connections continue. The limit is the node's, so it is
only reported, not changed. While packets are dropped, the status ports are exempt from tracking, so
that metrics and probes still work (``steering.held_tables``).

Source: net/netfilter/nf_conntrack_core.c, __nf_conntrack_alloc() and resolve_normal_ct().
"""

from __future__ import annotations

from collections.abc import Callable

from ...clocks import Clocks
from ...facts import StatusFacts, TrackingFacts
from ...kernel.offers import LACKS_NOTHING, KernelOffers
from ...kernel.tracking import TrackingTable, read_table
from ...log_fields import FieldLogger
from ...log_limit import LogLimit
from ...sources import Happening
from ...steering import Untracked
from ..rounds.component import Component, OwnAddresses
from ..rounds.tasks import Supervisor, pause

_log = FieldLogger("userspace_proxy.agent")

LOOK_EVERY_S = 1.0
# The share of conntrack entries in use from which the table counts as full. Ended entries are
# replaced immediately, so the last entry of a full table is rarely in use when the table is read.
_FULL = 0.99
# The share of conntrack entries in use below which the table no longer counts as full: lower than
# _FULL, so that a table at its limit isn't reported repeatedly.
_ROOM = 0.9


def exempt_ports(
    own: OwnAddresses, proxy_name: str | None, kernel: KernelOffers = LACKS_NOTHING
) -> Untracked | None:
    """Return the table that exempts the status ports from tracking; None without such a port."""
    ports = [address[1] for address in (own.health, own.admin) if address is not None]
    return Untracked(ports, proxy_name or "", kernel) if ports else None


class TrackingWatch(Component):
    """Watches one node's conntrack table; reports that it is full, and logs when it no longer is.

    Args:
        report: Called with events for users of the cluster.
        own: The proxy's addresses, whose ports are exempt while packets are dropped; None: no port.
    """

    def __init__(
        self,
        report: Callable[[Happening], None],
        own: OwnAddresses | None = None,
        proxy_name: str | None = None,
        *,
        kernel: KernelOffers = LACKS_NOTHING,
        read: Callable[[], TrackingTable] | None = None,
        clock: Callable[[], float] = Clocks.monotonic,
    ) -> None:
        self._report = report
        self._own = own
        self._proxy_name = proxy_name
        self._kernel = kernel
        self._untracked: Untracked | None = None
        self._read = read or read_table
        self._clock = clock
        self._log_limit = LogLimit()
        self.table = TrackingTable()
        """The table at the last check."""
        self.is_full = False
        self.is_dropping = False
        """Whether packets were dropped since the table became full, because no entry could be
        replaced."""

    async def start(self, supervisor: Supervisor) -> None:
        """Start to watch; call this after the status servers have started."""
        if self._own is not None:
            self._untracked = exempt_ports(self._own, self._proxy_name, self._kernel)
        supervisor.start("tracking", self.run)

    def show(self, facts: StatusFacts) -> None:
        facts.tracking = TrackingFacts(
            *self.table, is_full=self.is_full, is_dropping=self.is_dropping
        )

    async def close(self) -> None:
        if self._untracked is not None:
            await self._untracked.let_go()

    async def run(self) -> None:
        while True:
            before = self.is_dropping
            self.look()
            if self.is_dropping != before:
                await self._exempt_status_ports()
            await pause(LOOK_EVERY_S)

    def look(self) -> None:
        """Read the table; report and log that it is full, and log when it no longer is."""
        before, table = self.table, self._read()
        self.table = table
        share = table.entries / table.limit if table.limit else 0.0
        if share >= _FULL:
            # Ignore drops counted before the first check, which may be old.
            self.is_dropping |= bool(before.limit) and table.drops > before.drops
            self._note_full(table)
        elif self.is_full and share < _ROOM:
            self.is_full = self.is_dropping = False
            self._log_limit.forget()
            _log.info("conntrack table is no longer full", extra=_fields(table))

    async def _exempt_status_ports(self) -> None:
        """Exempt the status ports from tracking while packets are dropped."""
        if self._untracked is None:
            return
        if not self.is_dropping:
            await self._untracked.let_go()
        elif lack := await self._untracked.hold():
            _log.warning(
                "cannot exempt the status ports from conntrack, so health probes and the status "
                "page fail while the conntrack table is full: %(cause)s",
                extra={"cause": lack},
            )

    def _note_full(self, table: TrackingTable) -> None:
        if not self.is_full:
            self.is_full = True
            note = (
                f"the conntrack table is full ({table.entries:,} of {table.limit:,} entries): new "
                "connections may fail on this node (raise net.netfilter.nf_conntrack_max)"
            )
            self._report(Happening("ConntrackTableFull", "Track", note))
        if self._log_limit.take(self._clock()):
            _log.error(
                "conntrack table is full, so new connections may fail",
                extra={**_fields(table), "remedy": "raise net.netfilter.nf_conntrack_max"},
            )


def _fields(table: TrackingTable) -> dict[str, int]:
    return {"entries": table.entries, "limit": table.limit, "drops": table.drops}
