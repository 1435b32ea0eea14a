"""Keeps tables that only this process can change, and that the kernel removes when it exits.

A table belongs to the socket that created it. ``nft flush ruleset`` skips it, and the kernel
removes it even after ``kill -9``, unless another process keeps a copy of the socket. Through this
copy, the next process owns the table. Kernels before 5.12 don't support owners.

Source: nf_tables_api.c, NFT_TABLE_F_OWNER.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, MutableMapping

from ...errors import SteeringError
from .kept_table import KeptTable
from .nft_table import Steps
from .writer import INET, TableWriter

# The maximum number of messages to read, and of bytes per read. The kernel queues fewer messages:
# net.core.rmem_default is 208 KiB, and a message takes 700 bytes.
_UNREAD_MAX, _UNREAD_BYTES = 1000, 1 << 16

Keep = Callable[[str, socket.socket], object]


class OwnerSockets:
    """The sockets that own this proxy's tables, by name; thread-safe.

    Args:
        inherited: The previous process's sockets; each table takes its socket, and closes it.
    """

    def __init__(self, inherited: MutableMapping[str, socket.socket] | None = None) -> None:
        self._inherited = {} if inherited is None else inherited
        self._current: dict[str, socket.socket] = {}
        self._keep: Keep = lambda _name, _sock: None

    def follow(self, keep: Keep) -> None:
        """Call ``keep``, in any thread, with each name and socket, now and as sockets are added."""
        self._keep = keep
        for name, sock in list(self._current.items()):
            keep(name, sock)

    def take(self, name: str) -> socket.socket | None:
        """Return the previous process's socket, after discarding its unread answers, or None."""
        sock = self._inherited.pop(name, None)
        if sock is not None:
            with contextlib.suppress(OSError):
                for _ in range(_UNREAD_MAX):
                    # Copies of a socket share its blocking mode, which another process may change,
                    # so set MSG_DONTWAIT.
                    sock.recv(_UNREAD_BYTES, socket.MSG_DONTWAIT)
        return sock

    def note(self, name: str, sock: socket.socket) -> None:
        self._current[name] = sock
        self._keep(name, sock)


class OwnedTable:
    """One owned table in this thread's network namespace; not thread-safe.

    Args:
        fill: Adds chains and rules to the empty table.
        needs_owner: Whether to create no table if the kernel doesn't support owners. If false, a
            table without an owner stays until it is removed, and :meth:`put_right` repairs it.
        owners: Provides the previous process's socket, and receives this process's socket.

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
        owners: OwnerSockets | None = None,
    ) -> None:
        self._owners = owners or OwnerSockets()
        self._key = f"{family}/{name}"
        inherited = self._owners.take(self._key)
        self._is_owned = inherited is not None
        self._is_written = False
        self._table = KeptTable(
            name, (), self._create, set, family=family, sock=inherited, is_owned=True
        )
        self._fill = fill
        self._needs_owner = needs_owner

    def put_right(self) -> bool:
        """Write the table unless it is unchanged; return whether another program had changed it.

        Raises:
            SteeringError: The kernel refused to list or change it, or the outcome is unknown.
        """
        count = self._table.repair().count
        if count:
            self._is_owned = self._table.is_complete
            if self._is_owned:
                self._owners.note(self._key, self._table.sock)
        was_written, self._is_written = self._is_written, True
        return was_written and count > 0

    def rewrite(self) -> None:
        """Make :meth:`put_right` write the table again, because ``fill`` now adds other rules."""
        self._table.forget()
        self._is_written = False

    def close(self) -> None:
        """Remove the table, unless the kernel lacks owners, and close the sockets; idempotent."""
        if self._is_owned:
            # Closing isn't enough if other processes keep copies of the socket, so delete the
            # table.
            self._is_owned = False
            table = self._table.writer()
            table.delete()
            with contextlib.suppress(SteeringError):
                self._table.write([table.messages])
        self._table.close()

    def _create(self, is_owned: bool) -> Steps:
        table = self._table.writer()
        # Some kernels don't support owners. The second attempt has no owner, unless ``needs_owner``
        # is set.
        table.create(is_owned=is_owned or self._needs_owner, was_owned=self._is_owned)
        self._fill(table)
        return [table.messages]
