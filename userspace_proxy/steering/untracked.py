"""Lets connections to the status ports through while connection tracking is full.

    full table: SYN ──▶ no free entry ──▶ dropped, before any rule that could admit it
    with this:  SYN ──▶ notrack ──▶ /livez answers, the page and the metrics show the full table

Rule 1: only while the table is full. An untracked packet is neither new nor established: a
firewall that admits by these states would drop it, at a time when a tracked one is admitted. With
a full table the tracked one is dropped in any case, so nothing is lost.
Rule 2: only packets from and to this node's own addresses: what is forwarded may be translated.

Source: nf_conntrack_core.c, nf_conntrack_in(); docs/adr/0022.
"""

from __future__ import annotations

from collections.abc import Collection

from ..kernel.nf_tables import TableWriter
from ..kernel.nf_tables import expressions as x
from ..kernel.nf_tables.writer import OUTPUT, PREROUTING
from .held_table import HeldTable
from .names import untracked_table_name

# Where the table raw is, before connection tracking (-200). Source: NF_IP_PRI_RAW.
_PRIORITY = -300


class Untracked(HeldTable):
    """The table that takes connections to some ports of this node out of connection tracking.

    Args:
        ports: Their TCP ports.
        proxy_name: The proxy's ``--service-proxy-name``; empty: none.
    """

    def __init__(self, ports: Collection[int], proxy_name: str = "") -> None:
        self._ports = tuple(sorted(set(ports)))
        super().__init__(untracked_table_name(proxy_name), self._fill_in)

    def _fill_in(self, table: TableWriter) -> None:
        for chain, hook in (("prerouting", PREROUTING), ("output", OUTPUT)):
            table.add_base_chain(chain, "filter", hook, _PRIORITY)
            for port in self._ports:
                dialled = x.TCP + x.match(x.DPORT, port) + x.match(x.DADDR_TYPE, x.LOCAL)
                table.add_rule(chain, dialled + x.notrack())
        for port in self._ports:
            # The answers. On loopback they stay untracked when they come in.
            table.add_rule("output", x.TCP + x.match(x.SPORT, port) + x.notrack())
