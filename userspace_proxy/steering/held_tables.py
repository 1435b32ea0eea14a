"""Owns two nftables tables that don't steer; the kernel removes them when this process exits.

    ConntrackHold   keeps connection tracking enabled while another program flushes all rules
    Untracked       admits connections to the status ports while the conntrack table is full

Rule 1: the tables are optional: they don't exist on kernels before 5.12 or without nftables.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from ..errors import SteeringError
from ..kernel.nf_tables import TableWriter
from ..kernel.nf_tables import expressions as x
from ..kernel.nf_tables.owned import OwnedTable, OwnerSockets
from ..kernel.nf_tables.writer import OUTPUT, PREROUTING
from ..kernel.offers import FOR_OWNER, LACKS_NOTHING, KernelOffers
from ..kernel.one_thread import InOneThread
from .names import CONNTRACK_HOLD_TABLES, UNTRACKED_TABLES

# The chain's priority: after all address translation.
_HOLD_PRIORITY = 200
# The priority of the raw table, before connection tracking (-200). Source: NF_IP_PRI_RAW.
_RAW_PRIORITY = -300


class HeldTable:
    """A table that this process owns, in the network namespace of the process's new threads."""

    def __init__(
        self,
        name: str,
        fill: Callable[[TableWriter], None],
        owners: OwnerSockets | None = None,
        kernel: KernelOffers = LACKS_NOTHING,
    ) -> None:
        self._kernel = kernel
        self._table = InOneThread(
            name, lambda: OwnedTable(name, fill, needs_owner=True, owners=owners)
        )

    async def hold(self) -> str:
        """Create the table; return why it can't be created, or an empty string. Idempotent."""
        try:
            await self._table.do(OwnedTable.put_right)
        except SteeringError as exc:
            return self._kernel.words(FOR_OWNER) or exc.message
        return ""

    async def let_go(self) -> None:
        """Remove the table; :meth:`hold` can create it again. Idempotent."""
        await self._table.close()


class ConntrackHold(HeldTable):
    """The table that keeps connection tracking enabled.

        rules flushed ──▶ no rule uses conntrack ──▶ the kernel stops tracking
            ──▶ packets of open connections arrive untranslated ──▶ RST

    The kernel tracks and translates only while a rule uses conntrack. The table has one such rule,
    which neither steers nor drops packets.

    Source: nf_conntrack_proto.c, nf_ct_netns_get().
    """

    def __init__(
        self,
        proxy_name: str = "",
        owners: OwnerSockets | None = None,
        kernel: KernelOffers = LACKS_NOTHING,
    ) -> None:
        super().__init__(CONNTRACK_HOLD_TABLES.of(proxy_name), _fill_hold, owners, kernel)


def _fill_hold(table: TableWriter) -> None:
    """Add a chain and a rule that keep connection tracking enabled.

    A single nat chain enables all four hooks at which the kernel translates; the chain's rule,
    which has no verdict, enables tracking. Only a connection's first packet traverses the chain.
    """
    table.add_base_chain("tracking", "nat", PREROUTING, _HOLD_PRIORITY)
    table.add_rule("tracking", x.match(x.CT_STATE, 0, mask=x.STATE_INVALID, op=x.NOT_EQUAL))


class Untracked(HeldTable):
    """The table that excludes connections to some ports of this node from connection tracking.

        full table: SYN ──▶ no free entry ──▶ dropped, before any rule that could admit it
        with this:  SYN ──▶ notrack ──▶ /livez answers, the page and the metrics show the full table

    Rule 1: this table exists only while the conntrack table is full. A firewall that admits new and
    established packets drops untracked packets, which are neither. It would admit tracked packets,
    but while the conntrack table is full, these are dropped anyway.
    Rule 2: it covers only packets from and to this node's own addresses, because forwarded packets
    may be translated.

    Source: nf_conntrack_core.c, nf_conntrack_in(); docs/adr/0022.
    """

    def __init__(
        self,
        ports: Collection[int],
        proxy_name: str = "",
        kernel: KernelOffers = LACKS_NOTHING,
    ) -> None:
        self._ports = tuple(sorted(set(ports)))
        super().__init__(UNTRACKED_TABLES.of(proxy_name), self._fill, kernel=kernel)

    def _fill(self, table: TableWriter) -> None:
        for chain, hook in (("prerouting", PREROUTING), ("output", OUTPUT)):
            table.add_base_chain(chain, "filter", hook, _RAW_PRIORITY)
            for port in self._ports:
                dialled = x.TCP + x.match(x.DPORT, port) + x.match(x.DADDR_TYPE, x.LOCAL)
                table.add_rule(chain, dialled + x.notrack())
        for port in self._ports:
            # This rule matches the answers, which on loopback are still untracked when they arrive.
            table.add_rule("output", x.TCP + x.match(x.SPORT, port) + x.notrack())
