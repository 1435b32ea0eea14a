"""An nftables table that exists at most as long as this process.

The kernel removes it with the socket that made it, ``nft flush ruleset`` passes it over, and no
other program can change it. So it is never left behind, not even by ``kill -9``.

Rule 1: it is good to have: a kernel before 5.12, or without nftables, does without.

Source: nf_tables_api.c, NFT_TABLE_F_OWNER.
"""

from __future__ import annotations

from collections.abc import Callable

from ..errors import SteeringError
from ..kernel.nf_tables import Ruleset, TableWriter
from ..kernel.one_thread import OneThread


class HeldTable:
    """One such table in the network namespace of this process's new threads.

    Args:
        name: Its name.
        fill: Adds chains and rules to it.
    """

    def __init__(self, name: str, fill: Callable[[TableWriter], None]) -> None:
        self.name = name
        self._fill = fill
        self._thread = OneThread(name)
        self._ruleset: Ruleset | None = None

    async def hold(self) -> str:
        """Make the table; idempotent.

        Returns:
            Why it can't be had; empty where it is there.
        """
        try:
            await self._thread.run(self._make)
        except SteeringError as exc:
            return exc.message
        return ""

    async def let_go(self) -> None:
        """Remove the table; idempotent, and :meth:`hold` makes it again."""
        if self._thread.has_begun:
            await self._thread.run(self._remove)
            self._thread.close()

    def _make(self) -> None:
        if self._ruleset is not None:
            return
        table = TableWriter(self.name)
        table.create(is_owned=True)
        self._fill(table)
        ruleset = Ruleset()
        try:
            ruleset.commit(table.messages)
        except SteeringError:
            ruleset.close()
            raise
        self._ruleset = ruleset

    def _remove(self) -> None:
        ruleset, self._ruleset = self._ruleset, None
        if ruleset is not None:
            # The kernel removes what its owner's socket leaves.
            ruleset.close()
