"""A table that only this process can change, and that the kernel removes when the process ends.

It belongs to the socket that created it. ``nft flush ruleset`` skips it, and not even ``kill -9``
leaves it behind. Kernels before 5.12 don't support owners.

Source: nf_tables_api.c, NFT_TABLE_F_OWNER.
"""

from __future__ import annotations

from collections.abc import Callable

from .ruleset import NftablesError
from .table import Definition, NftTable
from .writer import INET, TableWriter


class OwnedTable:
    """One such table in this thread's network namespace; for use in one thread.

    Args:
        name: Its name.
        fill: Adds chains and rules to the empty table.
        family: Its family.
        needs_owner: Whether kernels without owners get no table. Otherwise theirs stays until it
            is removed, and :meth:`put_right` repairs it.

    Raises:
        SteeringError: A privilege or a kernel part is missing.
    """

    def __init__(
        self,
        name: str,
        fill: Callable[[TableWriter], None],
        family: int = INET,
        *,
        needs_owner: bool = False,
    ) -> None:
        self._table = NftTable(name, family)
        self._fill = fill
        self._needs_owner = needs_owner
        self._written: tuple[Definition, ...] | None = None
        """As the kernel lists it; None before it was written."""

    def put_right(self) -> bool:
        """Write it, unless it is as it was written; return whether others had changed it."""
        if self._written is not None and not self._table.is_touched():
            return False
        listing = self._table.read()
        if listing is not None and listing.definitions == self._written:
            return False
        is_first = self._written is None
        try:
            self._write(is_owned=True)
        except NftablesError:
            if self._needs_owner:
                raise
            # If the cause isn't the owner, this fails again.
            self._write(is_owned=False)
        self._written = self._table.read_definitions()
        return not is_first

    def close(self) -> None:
        """Close the sockets, which removes the table unless the kernel lacks owners; idempotent."""
        self._table.close()

    def _write(self, *, is_owned: bool) -> None:
        table = self._table.writer()
        table.create(is_owned=is_owned)
        self._fill(table)
        self._table.write([table.messages])
