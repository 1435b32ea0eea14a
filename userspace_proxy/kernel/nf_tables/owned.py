"""A table owned by this process: no other program can change it, and it ends with the process.

``nft flush ruleset`` passes it over. A kernel before 5.12 knows no owners: there the table is put
right when another program has changed it, and it stays until it is removed.

Source: nf_tables_api.c, NFT_TABLE_F_OWNER.
"""

from __future__ import annotations

from collections.abc import Callable

from .errors import NftablesError
from .table import Definition, OurTable
from .writer import INET, TableWriter


class OwnedTable:
    """One such table in this thread's network namespace; of use to one thread.

    Args:
        name: Its name.
        fill: Adds chains and rules to the table, which was made a moment before.
        family: Its family.

    Raises:
        SteeringError: A privilege or a kernel part is missing.
    """

    def __init__(self, name: str, fill: Callable[[TableWriter], None], family: int = INET) -> None:
        self._table = OurTable(name, family)
        self._fill = fill
        self._written: tuple[Definition, ...] | None = None
        """As the kernel lists it; None before it was written."""

    def put_right(self) -> bool:
        """Write it, unless it is as it was written.

        Returns:
            Whether another program had changed it.

        Raises:
            NftablesError: The kernel refused.
        """
        if self._written is not None and not self._table.is_touched():
            return False
        listing = self._table.read()
        if listing is not None and listing.definitions == self._written:
            return False
        is_first = self._written is None
        try:
            self._write(is_owned=True)
        except NftablesError:
            # A kernel without owners. If it refuses for another reason, it does so again.
            self._write(is_owned=False)
        self._written = self._table.read_definitions()
        return not is_first

    def close(self) -> None:
        """Close the sockets, and so remove the table where the kernel knows owners; idempotent."""
        self._table.close()

    def _write(self, *, is_owned: bool) -> None:
        table = self._table.writer()
        table.create(is_owned=is_owned)
        self._fill(table)
        self._table.write([table.messages])
