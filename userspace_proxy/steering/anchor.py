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
from .nftables.library import Libnftables
from .one_thread import OneThread

# One chain of the kind nat keeps all four places where the kernel translates; its rule, which has
# no verdict, keeps what tracks. Only the first packet of a connection meets it.
_TABLE = """\
table inet {name} {{
  flags owner
  chain tracking {{ type nat hook prerouting priority 200; policy accept; ct state invalid; }}
}}
"""


class Anchor:
    """The table that keeps connection tracking alive.

    Args:
        proxy_name: The proxy's ``--service-proxy-name``; empty: none.
    """

    def __init__(self, proxy_name: str = "") -> None:
        # A label has no slash, so it is no name of a steering's table.
        self.name = anchor_table_name(proxy_name)
        self._thread = OneThread("conntrack-anchor")
        self._library: Libnftables | None = None

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
        library = Libnftables()
        try:
            library.run(_TABLE.format(name=self.name))
        except SteeringError:
            library.close()
            raise
        self._library = library

    def _remove(self) -> None:
        library, self._library = self._library, None
        if library is not None:
            # The kernel removes what its owner's socket leaves.
            library.close()
