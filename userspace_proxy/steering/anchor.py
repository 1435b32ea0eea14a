"""Keeps the kernel tracking and translating while somebody flushes all rules.

    rules of ours, flushed ──▶ no rule asks for conntrack ──▶ the kernel stops tracking
        ──▶ packets of open connections come untranslated ──▶ RST

The kernel tracks and translates only while a rule wants it. So a proxy holds a table of its own
in which one rule does. It is the table's owner: others can't remove it, and ``nft flush
ruleset`` passes it over. It steers nothing, drops nothing, and goes with the process.

Rule 1: it is good to have: a kernel before 5.12, or without nftables, does without.

Source: nf_tables_api.c, NFT_TABLE_F_OWNER; nf_conntrack_proto.c, nf_ct_netns_get().
"""

from __future__ import annotations

from ..errors import SteeringError
from .names import anchor_table_name
from .nf_tables import Ruleset, TableWriter
from .nf_tables import expressions as x
from .nf_tables.writer import PREROUTING
from .one_thread import OneThread

# Behind all translation.
_PRIORITY = 200


class Anchor:
    """The table that keeps connection tracking alive.

    Args:
        proxy_name: The proxy's ``--service-proxy-name``; empty: none.
    """

    def __init__(self, proxy_name: str = "") -> None:
        # A label has no slash, so it is no name of a steering's table.
        self.name = anchor_table_name(proxy_name)
        self._thread = OneThread("conntrack-anchor")
        self._ruleset: Ruleset | None = None

    async def hold(self) -> str:
        """Make the table in the network namespace of this process's new threads.

        Returns:
            Why it can't be had; empty where it is there.
        """
        try:
            await self._thread.run(self._make)
        except SteeringError as exc:
            return exc.message
        return ""

    async def let_go(self) -> None:
        """Remove the table; idempotent."""
        if self._thread.has_begun:
            await self._thread.run(self._remove)
            self._thread.close()

    def _make(self) -> None:
        ruleset = Ruleset()
        try:
            ruleset.commit(_write_table(self.name))
        except SteeringError:
            ruleset.close()
            raise
        self._ruleset = ruleset

    def _remove(self) -> None:
        ruleset, self._ruleset = self._ruleset, None
        if ruleset is not None:
            # The kernel removes what its owner's socket leaves.
            ruleset.close()


def _write_table(name: str) -> list[bytes]:
    """Return what makes the table, owned by the socket that this is sent with.

    One chain of the kind nat keeps all four places where the kernel translates; its rule, which
    has no verdict, keeps what tracks. Only the first packet of a connection meets it.
    """
    table = TableWriter(name)
    table.create(is_owned=True)
    table.add_base_chain("tracking", "nat", PREROUTING, _PRIORITY)
    table.add_rule("tracking", x.match(x.CT_STATE, 0, mask=x.STATE_INVALID, op=x.NOT_EQUAL))
    return table.messages
