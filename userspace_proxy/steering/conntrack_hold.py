"""Keeps conntrack active and translating while another program flushes all rules.

    rules flushed ──▶ no rule uses conntrack ──▶ the kernel stops tracking
        ──▶ packets of open connections arrive untranslated ──▶ RST

The kernel tracks and translates only while a rule uses conntrack. So a proxy keeps a separate
table with one such rule. It steers nothing and drops nothing.

Source: nf_conntrack_proto.c, nf_ct_netns_get().
"""

from __future__ import annotations

from ..kernel.nf_tables import TableWriter
from ..kernel.nf_tables import expressions as x
from ..kernel.nf_tables.writer import PREROUTING
from .held_table import HeldTable
from .names import conntrack_hold_table

# Behind all translation.
_PRIORITY = 200


class ConntrackHold(HeldTable):
    """The table that keeps connection tracking alive.

    Args:
        proxy_name: The proxy's ``--service-proxy-name``; empty: none.
    """

    def __init__(self, proxy_name: str = "") -> None:
        super().__init__(conntrack_hold_table(proxy_name), _fill)


def _fill(table: TableWriter) -> None:
    """Add what keeps the kernel at it.

    One chain of the kind nat keeps all four places where the kernel translates; its rule, which
    has no verdict, keeps what tracks. Only the first packet of a connection meets it.
    """
    table.add_base_chain("tracking", "nat", PREROUTING, _PRIORITY)
    table.add_rule("tracking", x.match(x.CT_STATE, 0, mask=x.STATE_INVALID, op=x.NOT_EQUAL))
