"""Our table in the kernel: reads it, writes it, and knows whether somebody else did.

Rule 1: only this module and ``library`` make calls that block, all in one thread.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence

from ...errors import SteeringError
from ..nf_tables.ruleset import Ruleset
from ..nf_tables.watch import TableWatch
from .library import Libnftables, NftablesError
from .rules import Listing, read_listing
from .text import write_removal


class OurTable:
    """One table of the family ``inet`` in this thread's network namespace.

    Args:
        name: Its name.
        parse: Reads what ``list table`` has printed.

    Raises:
        SteeringError: A library, a privilege or a kernel part is missing.
    """

    def __init__(self, name: str, parse: Callable[[str], Listing] = read_listing) -> None:
        self.name = name
        self._parse = parse
        self._ruleset = Ruleset()
        self._watch = TableWatch(self._ruleset, name)
        try:
            self._library = Libnftables()
        except SteeringError:
            self._watch.close()
            self._ruleset.close()
            raise

    def is_touched(self) -> bool:
        """Return whether somebody else has changed it since :meth:`read`."""
        return self._watch.is_touched()

    def read(self) -> Listing | None:
        """Return what is in force, or None without a table; what others did is known then."""
        self._watch.settle()
        return self.look()

    def look(self, *, is_terse: bool = False) -> Listing | None:
        """Return what is in force, or None without a table; for the watch nothing changes.

        Args:
            is_terse: Leave the elements out.
        """
        try:
            text = self._library.run(f"list table inet {self.name}", is_terse=is_terse)
        except NftablesError as exc:
            if exc.code == errno.ENOENT:
                return None
            raise
        return self._parse(text)

    def read_rules(self) -> str | None:
        """Return all but the elements, or None if they may be others' by now."""
        listing = self.look(is_terse=True)
        return None if listing is None or self.is_touched() else listing.rules

    def write(self, commands: Sequence[str]) -> None:
        """Run commands as one transaction; none of them is nothing to do.

        In a user namespace of its own a process can't have a socket that takes more than some
        5,000 Services at once. There each command is a transaction, in their order.

        Raises:
            NftablesError: Refused.
        """
        if not commands:
            return
        try:
            self._run("\n".join(commands))
        except NftablesError as exc:
            if exc.code != errno.EMSGSIZE:
                raise
            for command in commands:
                self._run(command)

    def remove(self) -> None:
        """Remove it, if it is there."""
        self._run(write_removal(self.name))

    def close(self) -> None:
        """Let go of the sockets; what is in force stays in force."""
        self._library.close()
        self._watch.close()
        self._ruleset.close()

    def _run(self, commands: str) -> None:
        with self._watch.own_change():
            self._library.run(commands)
