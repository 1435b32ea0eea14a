"""libnftables.so.1 by ctypes: commands as text in, listings as text out.

Rule 1: an instance belongs to one thread, and to the network namespace that it was made in.
Rule 2: what is in one call is one transaction.

Source: libnftables(3). Why not by a package: docs/adr/0007.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import os
import socket
from typing import Any

from ...errors import SteeringError

NETLINK_NETFILTER = 12
LIBRARY = "libnftables.so.1"
# Source: include/nftables/libnftables.h. Names of protocols come from /etc/protocols, which a
# container may not have, so they are asked for as numbers.
OUTPUT_STATELESS, OUTPUT_NUMERIC_PROTO, OUTPUT_TERSE = 1 << 2, 1 << 7, 1 << 11
_OUTPUT = OUTPUT_STATELESS | OUTPUT_NUMERIC_PROTO
_HINTS = {
    errno.EPERM: "run as root or grant NET_ADMIN, or run with --steering=none",
    errno.EOPNOTSUPP: "modprobe nft_nat nft_redir nft_ct nft_reject_inet, or take another steering",
}


class NftablesError(SteeringError):
    """The library or the kernel refused a command.

    Args:
        cause: In their words.
    """

    def __init__(self, cause: str) -> None:
        self.code = next((code for code in _CODES if os.strerror(code) in cause), 0)
        super().__init__(f"cannot change nftables: {cause}", hint=_HINTS.get(self.code, ""))


_CODES = (errno.ENOENT, errno.EMSGSIZE, *_HINTS)


@functools.cache
def load() -> ctypes.CDLL:
    """Load the library, once.

    Raises:
        SteeringError: It is missing.
    """
    try:
        library = ctypes.CDLL(LIBRARY)
    except OSError as exc:
        raise SteeringError(
            f"cannot load libnftables: {exc}",
            hint="apt install libnftables1, or run with --steering=iptables",
        ) from exc
    context, text = ctypes.c_void_p, ctypes.c_char_p
    for name, result, arguments in (
        ("nft_ctx_new", context, [ctypes.c_uint32]),
        ("nft_ctx_free", None, [context]),
        ("nft_ctx_buffer_output", ctypes.c_int, [context]),
        ("nft_ctx_buffer_error", ctypes.c_int, [context]),
        ("nft_ctx_get_output_buffer", text, [context]),
        ("nft_ctx_get_error_buffer", text, [context]),
        ("nft_ctx_output_set_flags", None, [context, ctypes.c_uint]),
        ("nft_ctx_set_dry_run", None, [context, ctypes.c_bool]),
        ("nft_run_cmd_from_buffer", ctypes.c_int, [context, text]),
    ):
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


class Libnftables:
    """One context of the library, with its netlink socket.

    Raises:
        SteeringError: The library is missing, or netlink sockets can't be opened.
    """

    def __init__(self) -> None:
        self._library = load()
        try:
            # Where it gets none, the library ends the process (netlink_init_error).
            socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER).close()
        except OSError as exc:
            raise SteeringError(f"cannot open a netlink socket: {exc.strerror}") from exc
        self._context: Any = self._library.nft_ctx_new(0)
        if not self._context:
            raise SteeringError("cannot use libnftables: it has no memory")
        self._library.nft_ctx_buffer_output(self._context)
        self._library.nft_ctx_buffer_error(self._context)

    def run(self, commands: str, *, is_terse: bool = False, is_dry: bool = False) -> str:
        """Run commands as one transaction; return what they print.

        Args:
            commands: As in a file for ``nft -f``.
            is_terse: Leave the elements of sets out of what is printed.
            is_dry: Let the kernel look at the commands, and change nothing.

        Raises:
            NftablesError: Refused; nothing was changed.
        """
        flags = _OUTPUT | (OUTPUT_TERSE if is_terse else 0)
        self._library.nft_ctx_output_set_flags(self._context, flags)
        self._library.nft_ctx_set_dry_run(self._context, is_dry)
        failed = self._library.nft_run_cmd_from_buffer(self._context, commands.encode())
        printed = self._library.nft_ctx_get_output_buffer(self._context)
        said = self._library.nft_ctx_get_error_buffer(self._context)
        if failed:
            raise NftablesError(first_cause(said.decode(errors="replace")))
        return str(printed.decode())

    def close(self) -> None:
        """Close the socket and give the memory back; idempotent."""
        context, self._context = self._context, None
        if context:
            self._library.nft_ctx_free(context)


def first_cause(said: str) -> str:
    """Return the first error without its place and without the command, which may be long.

    ``Error: Could not process rule: File exists`` becomes ``File exists``.
    """
    line = said.partition("\n")[0]
    cause = line.rpartition("Error: ")[2].removeprefix("Could not process rule: ").strip()
    return cause or "libnftables gave no reason"
